"""The routes, one module per part of OpenAI's API."""
