"""The Responses API with the real openai and langchain-openai packages, on the starter models."""

from typing import Any, Literal

import openai
import pytest
from langchain_core.messages import HumanMessage
from pydantic import BaseModel, Field

from tests.e2e.langchain_client import chat_openai, weather
from tests.e2e.serving import Served

QUESTION = "When does the nightly backup start?"


class Person(BaseModel):
    """A person in a document."""

    first_name: str = Field(max_length=16)
    role: Literal["manager", "driver"]


def store_of(served: Served) -> str:
    with served.client() as client:
        return next(store.id for store in client.vector_stores.list() if store.name == "ops")


def test_openai_creates_retrieves_continues_and_deletes(backup_service: Served) -> None:
    search: Any = {"type": "file_search", "vector_store_ids": [store_of(backup_service)]}
    with backup_service.client() as client:
        answer = client.responses.create(
            model=backup_service.chat_name,
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
        assert (
            client.responses.input_tokens.count(model=backup_service.chat_name, input="one").input_tokens > 0
        )
        client.responses.delete(answer.id)
        with pytest.raises(openai.NotFoundError, match="not found"):
            client.responses.retrieve(answer.id)
        with pytest.raises(openai.BadRequestError, match="background"):
            client.responses.create(model="quarry", input=QUESTION, background=True)


def test_openai_streams(backup_service: Served) -> None:
    with backup_service.client() as client, client.responses.stream(model="quarry", input=QUESTION) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert "response.output_text.annotation.added" in kinds
    assert "02:40" in final.output_text


async def test_openai_async(backup_service: Served) -> None:
    async with backup_service.aclient() as client:
        stream = await client.responses.create(model="quarry", input=QUESTION, stream=True)
        text = "".join([e.delta async for e in stream if e.type == "response.output_text.delta"])
        whole = await client.responses.create(model="quarry", input=QUESTION)
    assert "02:40" in text
    assert "02:40" in whole.output_text


def test_openai_parses_a_form_and_calls_a_function(backup_service: Served) -> None:
    with backup_service.client() as client:
        parsed = client.responses.parse(
            model=backup_service.chat_name, input="Maria is the manager.", text_format=Person, temperature=0
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
            model=backup_service.chat_name, input="Weather in Oslo?", tools=[function], tool_choice="required"
        )
    (call,) = called.output
    assert call.type == "function_call"
    assert call.name == "weather"
    assert call.arguments in ('{"place": "Oslo"}', '{"place": "Rome"}')


def cited(message: Any) -> set[str]:
    return {
        annotation["title"]
        for block in message.content_blocks
        for annotation in block.get("annotations", ())
        if annotation["type"] == "citation"
    }


def test_langchain_reads_answers_and_their_sources(backup_service: Served) -> None:
    model = chat_openai(backup_service, use_responses_api=True)
    answer = model.invoke(QUESTION)
    assert "02:40" in answer.text
    assert cited(answer) == {"backup.md"}
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] > 0


async def test_langchain_streams(backup_service: Served) -> None:
    whole: Any = None
    async for chunk in chat_openai(backup_service, use_responses_api=True).astream([HumanMessage(QUESTION)]):
        whole = chunk if whole is None else whole + chunk
    assert "02:40" in whole.text
    assert cited(whole) == {"backup.md"}


def test_langchain_binds_file_search_functions_and_forms(backup_service: Served) -> None:
    model = chat_openai(backup_service, use_responses_api=True, temperature=0)
    search = {"type": "file_search", "vector_store_ids": [store_of(backup_service)]}
    answer = model.bind_tools([search]).invoke(QUESTION)
    assert "02:40" in answer.text
    called = model.bind_tools([weather], tool_choice="weather").invoke("Weather in Oslo?")
    assert [call["name"] for call in called.tool_calls] == ["weather"]
    person = model.with_structured_output(Person).invoke("Maria is the manager.")
    assert isinstance(person, Person)
