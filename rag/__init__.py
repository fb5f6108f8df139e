"""Retrieval, answers, the OpenAI service and the command line."""
