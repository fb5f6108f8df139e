"""Python face of the native engine: models in, tokens and vectors out."""
