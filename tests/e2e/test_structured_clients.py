"""Structured outputs and tools with the real openai and langchain-openai packages, on the starter model."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel, Field

from rag.settings import Settings
from tests.e2e.langchain_client import chat_openai, weather
from tests.e2e.serving import Served, serve

QUESTION = "Who signs the form for vacation days?"


class Person(BaseModel):
    """A person in a document."""

    first_name: str = Field(max_length=16)
    role: Literal["manager", "driver"]
    years: int = Field(ge=0, le=99)


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, starter_chat_gguf: Path, starter_embedding_gguf: Path
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("structured")
    (folder / "documents").mkdir()
    (folder / "documents" / "handbook.md").write_text("The form is signed by Maria Lindqvist, the manager.\n")
    with serve(folder, Settings(), chat=starter_chat_gguf, embedding=starter_embedding_gguf) as served:
        yield served


@pytest.mark.parametrize("model", [pytest.param(None, id="chat"), pytest.param("quarry", id="documents")])
def test_openai_parse(served: Served, model: str | None) -> None:
    with served.client() as client:
        completion = client.chat.completions.parse(
            model=model or served.chat_name,
            messages=[{"role": "user", "content": QUESTION}],
            response_format=Person,
            temperature=0,
        )
    assert isinstance(completion.choices[0].message.parsed, Person)
    assert completion.choices[0].finish_reason == "stop"


def test_openai_streams_a_form(served: Served) -> None:
    messages: Any = [{"role": "user", "content": QUESTION}]
    with (
        served.client() as client,
        client.chat.completions.stream(model="quarry", messages=messages, response_format=Person) as stream,
    ):
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Person)


def test_openai_names_what_is_wrong_in_a_schema(served: Served) -> None:
    wrong: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "strnig"}}}
    with served.client() as client, pytest.raises(openai.BadRequestError, match="strnig"):
        client.chat.completions.create(
            model="quarry", messages=[{"role": "user", "content": "x"}], response_format=wrong
        )


def test_openai_streams_a_forced_call(served: Served) -> None:
    tools: Any = [openai.pydantic_function_tool(Person, name="note")]
    messages: Any = [{"role": "user", "content": QUESTION}]
    with served.client() as client:
        stream = client.chat.completions.create(
            model="quarry", messages=messages, tools=tools, tool_choice="required", stream=True, temperature=0
        )
        calls = [call for chunk in stream for call in chunk.choices[0].delta.tool_calls or []]
    assert [call.id is not None for call in calls] == [True, False]
    assert calls[0].function is not None
    assert calls[0].function.name == "note"
    Person.model_validate_json("".join(c.function.arguments or "" for c in calls if c.function))


@pytest.mark.parametrize(
    "method", [pytest.param("json_schema", id="schema"), pytest.param("function_calling", id="call")]
)
def test_langchain_structured_output(served: Served, method: Any) -> None:
    with_form = chat_openai(served, temperature=0).with_structured_output(Person, method=method)
    assert isinstance(with_form.invoke(QUESTION), Person)


def test_langchain_bind_tools(served: Served) -> None:
    model = chat_openai(served, temperature=0).bind_tools([weather], tool_choice="weather")
    answer = model.invoke("What is the weather in Oslo?")
    (call,) = answer.tool_calls
    result = weather.invoke(call)
    assert result.content in ("Rain in Oslo.", "Rain in Rome.")
    free = chat_openai(served, temperature=0).bind_tools([weather])
    told = free.invoke([("user", "What is the weather in Oslo?"), answer, result])
    assert told.content or told.tool_calls
