"""Answers in the client's form, calls of its tools, and several answers at once."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from engine.grammar import json_schema_grammar
from rag.app import create_app
from rag.errors import ApiError
from rag.forms import compile_schema, read_response_format
from rag.settings import Settings
from rag.tools import flatten, may_be_call, read_tools

SCHEMA = {"type": "object", "properties": {"days": {"type": "integer"}}, "required": ["days"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "Leave", "schema": SCHEMA, "strict": True}}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tell the weather.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"$ref": "#/$defs/Place"}},
            "required": ["place"],
            "$defs": {"Place": {"type": "string"}},
        },
    },
}
CALL = '{"name": "weather", "arguments": {"place": "Oslo"}}'


def body(question: str, **more: Any) -> dict[str, Any]:
    return {"model": "quarry", "messages": [{"role": "user", "content": question}], **more}


@pytest.fixture
async def client(engine: Any, library: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(Settings(), engine=engine, library=library)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
        yield client


async def send(client: httpx.AsyncClient, request: dict[str, Any]) -> Any:
    response = await client.post("/v1/chat/completions", json=request)
    assert response.status_code == 200, response.text
    return response.json()


async def stream(client: httpx.AsyncClient, request: dict[str, Any]) -> list[dict[str, Any]]:
    response = await client.post("/v1/chat/completions", json={**request, "stream": True})
    lines = [line for line in response.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


async def test_form_reads_the_passages_and_writes_nothing_beside_json(
    client: httpx.AsyncClient, engine: Any
) -> None:
    engine.chat.reply = '{"days": 5}'
    answer = await send(client, body("How many vacation days carry over?", response_format=FORMAT))
    assert answer["choices"][0]["message"]["content"] == '{"days": 5}'
    assert answer["sources"][0]["path"] == "handbook.md"
    assert "five vacation days" in engine.chat.prompts[0]
    assert '"days"' in engine.chat.prompts[0]
    assert "like [1]" not in engine.chat.prompts[0]
    assert engine.chat.generations[0].params.grammar is not None


async def test_form_without_passages_is_answered_from_the_conversation(
    client: httpx.AsyncClient, engine: Any
) -> None:
    engine.chat.reply = '{"days": 0}'
    answer = await send(client, body("Who won the chess olympiad?", response_format=FORMAT))
    assert answer["choices"][0]["message"]["content"] == '{"days": 0}'
    assert answer["sources"] == []


@pytest.mark.parametrize(
    ("given", "code", "named"),
    [
        pytest.param({"type": "yaml"}, "unsupported_parameter", "yaml", id="kind"),
        pytest.param({"type": "json_schema"}, "invalid_request", "schema", id="no schema"),
        pytest.param(
            {"type": "json_schema", "json_schema": {"schema": {"type": "strnig"}}},
            "invalid_json_schema",
            "strnig",
            id="bad schema",
        ),
    ],
)
def test_format_that_cannot_be_followed(given: dict[str, Any], code: str, named: str) -> None:
    with pytest.raises(ApiError, match=named) as caught:
        read_response_format(given, chat=None)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        pytest.param("required", "tool_calls", id="required"),
        pytest.param({"type": "function", "function": {"name": "weather"}}, "stop", id="named"),
        pytest.param("auto", "tool_calls", id="auto"),
    ],
)
async def test_call_of_a_tool(client: httpx.AsyncClient, engine: Any, choice: Any, reason: str) -> None:
    engine.chat.reply = CALL
    request = body("What is the weather in Oslo?", tools=[WEATHER], tool_choice=choice)
    choice_body = (await send(client, request))["choices"][0]
    assert choice_body["finish_reason"] == reason
    assert choice_body["message"]["content"] is None
    (call,) = choice_body["message"]["tool_calls"]
    assert call["function"] == {"name": "weather", "arguments": '{"place": "Oslo"}'}
    assert "Tell the weather." in engine.chat.prompts[0]
    assert (engine.chat.generations[0].params.grammar is None) == (choice == "auto")
    chunks = await stream(client, request)
    parts = [part for c in chunks for part in c["choices"][0]["delta"].get("tool_calls", [])]
    assert [part["index"] for part in parts] == [0, 0]
    assert ["id" in part for part in parts] == [True, False]
    assert "".join(part["function"]["arguments"] for part in parts) == '{"place": "Oslo"}'
    assert chunks[-1]["choices"][0]["finish_reason"] == reason


async def test_documents_answer_where_no_tool_is_called(client: httpx.AsyncClient) -> None:
    request = body("How many vacation days carry over?", tools=[WEATHER])
    answer = await send(client, request)
    assert "five vacation days" in answer["choices"][0]["message"]["content"]
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["sources"][0]["path"] == "handbook.md"


async def test_result_of_a_tool_goes_to_the_model(client: httpx.AsyncClient, engine: Any) -> None:
    request = body("What is the weather in Oslo?", tools=[WEATHER])
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"place": "Oslo"}'},
    }
    request["messages"] += [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Rain."},
    ]
    answer = await send(client, request)
    assert "Rain" in answer["choices"][0]["message"]["content"]
    assert "Result of weather:\nRain." in engine.chat.prompts[0]


def test_calls_are_recognised_by_their_form() -> None:
    tools = read_tools([WEATHER], "auto", chat=None, is_parallel=True)
    assert tools is not None
    tagged = f"<tool_call>\n{CALL}\n</tool_call>\n<tool_call>{CALL}</tool_call>"
    assert [len(tools.calls_in(text)) for text in (CALL, tagged, f"```json\n{CALL}\n```", f"[{CALL}]")] == [
        1,
        2,
        1,
        1,
    ]
    others = [
        "It rains.",
        '{"name": "other", "arguments": {}}',
        "{",
        '{"name": "weather", "arguments": 3}',
        "",
    ]
    assert [tools.calls_in(text) for text in others] == [()] * len(others)
    one = read_tools([WEATHER], None, chat=None, is_parallel=False)
    assert one is not None
    assert len(one.calls_in(tagged)) == 1


def test_prose_is_known_by_its_beginning() -> None:
    assert [may_be_call(text) for text in ("", " <tool", "{", "``", "The", "<b>")] == [True] * 4 + [False] * 2


def test_no_tools_where_none_may_be_called() -> None:
    assert read_tools([WEATHER], "none", chat=None, is_parallel=True) is None
    assert read_tools(None, "auto", chat=None, is_parallel=True) is None


def test_calls_and_results_as_text() -> None:
    function = {"name": "weather", "arguments": {"place": "Oslo"}}
    messages = [
        {"role": "assistant", "content": "", "tool_calls": [{"id": "a", "function": function}]},
        {"role": "tool", "tool_call_id": "a", "content": "Rain."},
    ]
    told = [
        {"role": "assistant", "content": CALL},
        {"role": "user", "content": "Result of weather:\nRain."},
    ]
    further = {"role": "user", "content": "And tomorrow?"}
    assert flatten([*messages, further]) == [*told, further]
    for question, hint in (("How is it?", "Answer my question with it"), ("天气怎么样？", "据此用文字回答")):
        asked = {"role": "user", "content": question}
        *before, last = flatten([asked, *messages])
        assert before == [asked, told[0]]
        assert last["content"].startswith("Result of weather:\nRain.\n\n")
        assert hint in last["content"]


async def test_several_answers(client: httpx.AsyncClient, engine: Any) -> None:
    answer = await send(client, body("How many vacation days carry over?", n=3, seed=5))
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert {g.params.seed for g in engine.chat.generations} == {5, 6, 7}
    options = {"stream_options": {"include_usage": True}}
    chunks = await stream(client, body("How many vacation days carry over?", n=2, **options))
    texts = {0: "", 1: ""}
    for chunk in chunks[:-1]:
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts[0] == texts[1] == answer["choices"][0]["message"]["content"]
    assert chunks[-1]["usage"]["completion_tokens"] == 22


async def test_failure_of_one_of_several_answers_is_told(client: httpx.AsyncClient, engine: Any) -> None:
    engine.chat.fails_after = 0
    response = await client.post("/v1/chat/completions", json=body("How many vacation days carry over?", n=2))
    assert response.status_code == 500
    async with asyncio.timeout(10):
        for generation in engine.chat.generations:
            await generation.cancelled.wait()


def test_properties_that_nobody_named_are_not_written() -> None:
    form = read_response_format(FORMAT, chat=None)
    closed = {**SCHEMA, "additionalProperties": False}
    assert form is not None
    assert form.grammar == json_schema_grammar(closed)
    combined = {"allOf": [SCHEMA, {"type": "object", "properties": {"note": {"type": "string"}}}]}
    assert compile_schema(combined, chat=None, param="x") == json_schema_grammar(combined)


def test_strings_of_small_models_are_bounded_where_nothing_bounds_them(engine: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"free": {"type": "string"}, "short": {"type": "string", "maxLength": 5}},
        "required": ["free", "short"],
        "additionalProperties": False,
    }
    free = json_schema_grammar(schema)
    assert compile_schema(schema, chat=engine.chat, param="x") == free
    engine.chat.n_weights = 135_000_000
    bounded = {"free": {"type": "string", "maxLength": 200}, "short": {"type": "string", "maxLength": 5}}
    expected = json_schema_grammar({**schema, "properties": bounded})
    assert compile_schema(schema, chat=engine.chat, param="x") == expected
