"""LangChain's own client and agents as the tests use them."""

from collections.abc import Callable
from typing import Any, Literal

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain.agents.structured_output import ToolStrategy
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

from tests.e2e.serving import Served


@tool
def weather(place: Literal["Oslo", "Rome"]) -> str:
    """Tell the weather in a place."""
    return f"Rain in {place}."


def chat_openai(served: Served, **more: Any) -> ChatOpenAI:
    """Point LangChain's client at a service."""
    own = {"model": "quarry", "base_url": f"{served.url}/v1", "max_retries": 0, **more}
    return ChatOpenAI(api_key=SecretStr(served.key), **own)


@tool
def opening_hours(day: Literal["Monday", "Sunday"]) -> str:
    """Tell when the office opens on a day."""
    return f"On {day} the office opens at 9."


class Place(BaseModel):
    """A place that somebody asks about."""

    place: Literal["Oslo", "Rome"]


class CallsFirst(AgentMiddleware):
    """Has the model call a tool first, which with 135 million weights it does not choose by itself."""

    def wrap_model_call(
        self, request: ModelRequest, handler: Callable[[ModelRequest], ModelResponse]
    ) -> ModelResponse:
        has_result = any(isinstance(message, ToolMessage) for message in request.messages)
        return handler(request.override(tool_choice="none" if has_result else "any"))


def check_agents(model: BaseChatModel) -> None:
    """Run LangChain's loop: question, call, the tool itself, its result, answer; and one with a form."""
    asked = {"messages": [HumanMessage("What is the weather in Oslo?")]}
    agent: Any = create_agent(model, tools=[weather], middleware=[CallsFirst()])
    question, calling, result, answer = agent.invoke(asked)["messages"]
    assert isinstance(question, HumanMessage)
    assert isinstance(calling, AIMessage)
    assert [call["name"] for call in calling.tool_calls] == ["weather"]
    assert isinstance(result, ToolMessage)
    assert result.tool_call_id == calling.tool_calls[0]["id"]
    assert result.text == "Rain in Oslo."
    assert isinstance(answer, AIMessage)
    assert not answer.tool_calls
    assert "rain" in answer.text.lower()
    formed: Any = create_agent(model, tools=[], response_format=ToolStrategy(Place))
    assert formed.invoke(asked)["structured_response"] == Place(place="Oslo")
