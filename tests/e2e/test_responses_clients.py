"""The Responses API with the real openai and langchain-openai packages, on the starter models."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field, SecretStr

from rag.settings import Settings
from tests.e2e.serving import Served, serve

QUESTION = "When does the nightly backup start?"


class Person(BaseModel):
    """A person in a document."""

    first_name: str = Field(max_length=16)
    role: Literal["manager", "driver"]


@tool
def weather(place: Literal["Oslo", "Rome"]) -> str:
    """Tell the weather in a place."""
    return f"Rain in {place}."


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, starter_chat_gguf: Path, starter_embedding_gguf: Path
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("responses")
    (folder / "documents" / "ops").mkdir(parents=True)
    (folder / "documents" / "ops" / "backup.md").write_text(
        "# Backups\n\nThe nightly backup starts at 02:40 and is kept for 35 days on heron-3.\n"
    )
    settings = Settings(answer_tokens=48)
    with serve(folder, settings, chat=starter_chat_gguf, embedding=starter_embedding_gguf) as served:
        yield served


def store_of(served: Served) -> str:
    with served.client() as client:
        return next(store.id for store in client.vector_stores.list() if store.name == "ops")


def test_openai_creates_retrieves_continues_and_deletes(served: Served) -> None:
    search: Any = {"type": "file_search", "vector_store_ids": [store_of(served)]}
    with served.client() as client:
        answer = client.responses.create(
            model=served.chat_name,
            input=QUESTION,
            tools=[search],
            include=["file_search_call.results"],
            metadata={"case": "1"},
        )
        assert "02:40" in answer.output_text
        found = answer.output[0]
        assert found.type == "file_search_call"
        assert found.results is not None
        assert found.results[0].filename == "backup.md"
        message = answer.output[1]
        assert message.type == "message"
        annotations = [a for part in message.content if part.type == "output_text" for a in part.annotations]
        assert {a.filename for a in annotations if a.type == "file_citation"} == {"backup.md"}
        assert client.responses.retrieve(answer.id).output_text == answer.output_text
        assert client.responses.input_items.list(answer.id).data[0].type == "message"
        more = client.responses.create(
            model="quarry", input="And for how many days is it kept?", previous_response_id=answer.id
        )
        assert more.status == "completed"
        assert client.responses.input_tokens.count(model=served.chat_name, input="one").input_tokens > 0
        client.responses.delete(answer.id)
        with pytest.raises(openai.NotFoundError, match="not found"):
            client.responses.retrieve(answer.id)
        with pytest.raises(openai.BadRequestError, match="background"):
            client.responses.create(model="quarry", input=QUESTION, background=True)


def test_openai_streams(served: Served) -> None:
    with served.client() as client, client.responses.stream(model="quarry", input=QUESTION) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert "response.output_text.annotation.added" in kinds
    assert "02:40" in final.output_text


async def test_openai_async(served: Served) -> None:
    async with served.aclient() as client:
        stream = await client.responses.create(model="quarry", input=QUESTION, stream=True)
        text = "".join([e.delta async for e in stream if e.type == "response.output_text.delta"])
        whole = await client.responses.create(model="quarry", input=QUESTION)
    assert "02:40" in text
    assert "02:40" in whole.output_text


def test_openai_parses_a_form_and_calls_a_function(served: Served) -> None:
    with served.client() as client:
        parsed = client.responses.parse(
            model=served.chat_name, input="Maria is the manager.", text_format=Person, temperature=0
        )
        assert isinstance(parsed.output_parsed, Person)
        function: Any = {
            "type": "function",
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {"place": {"enum": ["Oslo", "Rome"]}},
                "required": ["place"],
                "additionalProperties": False,
            },
            "strict": True,
        }
        called = client.responses.create(
            model=served.chat_name, input="Weather in Oslo?", tools=[function], tool_choice="required"
        )
    (call,) = called.output
    assert call.type == "function_call"
    assert call.name == "weather"
    assert call.arguments in ('{"place": "Oslo"}', '{"place": "Rome"}')


def chat_openai(served: Served, **more: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model="quarry",
        base_url=f"{served.url}/v1",
        api_key=SecretStr("any"),
        max_retries=0,
        use_responses_api=True,
        **more,
    )


def cited(message: Any) -> set[str]:
    return {
        annotation["title"]
        for block in message.content_blocks
        for annotation in block.get("annotations", ())
        if annotation["type"] == "citation"
    }


def test_langchain_reads_answers_and_their_sources(served: Served) -> None:
    model = chat_openai(served)
    answer = model.invoke(QUESTION)
    assert "02:40" in answer.text
    assert cited(answer) == {"backup.md"}
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] > 0


async def test_langchain_streams(served: Served) -> None:
    whole: Any = None
    async for chunk in chat_openai(served).astream([HumanMessage(QUESTION)]):
        whole = chunk if whole is None else whole + chunk
    assert "02:40" in whole.text
    assert cited(whole) == {"backup.md"}


def test_langchain_binds_file_search_functions_and_forms(served: Served) -> None:
    model = chat_openai(served, temperature=0)
    search = {"type": "file_search", "vector_store_ids": [store_of(served)]}
    answer = model.bind_tools([search]).invoke(QUESTION)
    assert "02:40" in answer.text
    called = model.bind_tools([weather], tool_choice="weather").invoke("Weather in Oslo?")
    assert [call["name"] for call in called.tool_calls] == ["weather"]
    person = model.with_structured_output(Person).invoke("Maria is the manager.")
    assert isinstance(person, Person)
