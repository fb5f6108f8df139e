"""langchain-openai as the tests use it."""

from typing import Any, Literal

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.e2e.serving import Served


@tool
def weather(place: Literal["Oslo", "Rome"]) -> str:
    """Tell the weather in a place."""
    return f"Rain in {place}."


def chat_openai(served: Served, **more: Any) -> ChatOpenAI:
    """Point LangChain's client at a service."""
    return ChatOpenAI(
        model="quarry", base_url=f"{served.url}/v1", api_key=SecretStr(served.key), max_retries=0, **more
    )
