"""/v1/responses over small parts: the order and the shape of events, what is kept, what is refused."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses.response_create_params import ResponseCreateParamsBase
from pydantic import TypeAdapter

from rag.app import create_app
from rag.responses import request as requests
from rag.responses.store import ResponseStore
from rag.settings import Settings
from rag.stores import path_id, store_id

QUESTION = "How many vacation days carry over?"
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "Tell the weather.",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    "strict": True,
}
SEARCH = {"type": "file_search", "vector_store_ids": [store_id("default")]}
BEGIN = ["response.created", "response.in_progress"]
SEARCHED = [
    "response.output_item.added",
    "response.file_search_call.in_progress",
    "response.file_search_call.searching",
    "response.file_search_call.completed",
    "response.output_item.done",
]
SAID_FIRST = ["response.output_item.added", "response.content_part.added", "response.output_text.delta"]
SAID_LAST = ["response.output_text.done", "response.content_part.done", "response.output_item.done"]
CALLED = [
    "response.output_item.added",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.output_item.done",
]
THOUGHT = [
    "response.output_item.added",
    "response.content_part.added",
    "response.reasoning_text.delta",
    "response.reasoning_text.done",
    "response.content_part.done",
    "response.output_item.done",
]
SUMMED_UP = [
    "response.output_item.added",
    "response.reasoning_summary_part.added",
    "response.reasoning_summary_text.delta",
    "response.reasoning_summary_text.done",
    "response.reasoning_summary_part.done",
    "response.output_item.done",
]


@pytest.fixture
async def client(engine: Any, library: Any, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(data_dir=tmp_path / "data", documents_dir=tmp_path / "documents")
    transport = httpx.ASGITransport(create_app(settings, engine=engine, library=library))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
        yield client


async def create(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await client.post("/v1/responses", json={"model": "quarry", "input": QUESTION, **body})
    assert response.status_code == 200, response.text
    body = response.json()
    # Their model lets much pass; what it has must stand there with its type.
    Response.model_validate(body, strict=True)
    return body


async def stream(client: httpx.AsyncClient, **body: Any) -> list[dict[str, Any]]:
    request = {"model": "quarry", "input": QUESTION, "stream": True, **body}
    response = await client.post("/v1/responses", json=request)
    assert response.headers["content-type"].startswith("text/event-stream"), response.text
    events = []
    for block in response.text.strip().split("\n\n"):
        name, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
        EVENT.validate_python(events[-1])
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def order(events: list[dict[str, Any]]) -> list[str]:
    """Name the events, runs of the same one once."""
    names: list[str] = []
    for event in events:
        if names[-1:] != [event["type"]]:
            names.append(event["type"])
    return names


async def test_events_of_an_answer_from_documents(client: httpx.AsyncClient) -> None:
    events = await stream(client)
    cited = "response.output_text.annotation.added"
    assert order(events) == [*BEGIN, *SAID_FIRST, cited, *SAID_LAST, "response.completed"]
    text = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    final = events[-1]["response"]
    (part,) = final["output"][0]["content"]
    assert part["text"] == text
    assert text.startswith("Employees may carry over five vacation days [1]")
    (citation,) = part["annotations"]
    assert (citation["type"], citation["filename"]) == ("file_citation", "handbook.md")
    assert text[citation["index"] :].startswith("[1]")
    assert final["usage"]["total_tokens"] == final["usage"]["input_tokens"] + final["usage"]["output_tokens"]
    assert [e["response"]["status"] for e in (events[0], events[1])] == ["in_progress"] * 2
    assert events[0]["response"]["output"] == []


async def test_whole_answer_is_the_streamed_one(client: httpx.AsyncClient) -> None:
    whole = await create(client, tools=[SEARCH])
    streamed = (await stream(client, tools=[SEARCH]))[-1]["response"]

    def without_ids(value: Any) -> Any:
        if isinstance(value, dict):
            times = ("id", "created_at", "completed_at")
            return {k: without_ids(v) for k, v in value.items() if k not in times}
        return [without_ids(item) for item in value] if isinstance(value, list) else value

    assert without_ids(whole) == without_ids(streamed)


async def test_file_search_searches_the_stores_that_are_named(client: httpx.AsyncClient) -> None:
    events = await stream(client, tools=[SEARCH], model="parrot", include=["file_search_call.results"])
    assert order(events)[: len(BEGIN) + len(SEARCHED)] == BEGIN + SEARCHED
    search, message = events[-1]["response"]["output"]
    assert search["queries"] == [QUESTION]
    assert search["results"][0]["filename"] == "handbook.md"
    assert "five vacation days" in search["results"][0]["text"]
    assert search["results"][0]["file_id"] == message["content"][0]["annotations"][0]["file_id"]
    other = {"type": "file_search", "vector_store_ids": [store_id("hr")]}
    nothing = await create(client, tools=[other])
    assert nothing["output"][0]["results"] is None
    assert "do not say" in nothing["output"][1]["content"][0]["text"]


async def test_file_search_is_limited_and_filtered(client: httpx.AsyncClient, library: Any) -> None:
    for number in range(5):
        library.put(f"days-{number}.txt", f"Vacation days carry over, says file {number}.")
    limited = {**SEARCH, "max_num_results": 2}
    include = ["file_search_call.results"]
    found = (await create(client, tools=[limited], include=include))["output"][0]["results"]
    assert len(found) == 2
    file_id = path_id("days-3.txt")
    path = f"/v1/vector_stores/{store_id('default')}/files/{file_id}"
    assert (await client.post(path, json={"attributes": {"year": 2026}})).json()["attributes"] == {
        "year": 2026
    }
    content = (await client.get(f"{path}/content")).json()
    assert content["data"] == [{"type": "text", "text": "Vacation days carry over, says file 3."}]
    filtered = {**SEARCH, "filters": {"type": "gte", "key": "year", "value": 2026}}
    found = (await create(client, tools=[filtered], include=include))["output"][0]["results"]
    assert [(result["filename"], result["attributes"]) for result in found] == [
        ("days-3.txt", {"year": 2026})
    ]
    strict = {**SEARCH, "ranking_options": {"score_threshold": 1.0}}
    assert (await create(client, tools=[strict], include=include))["output"][0]["results"] == []


async def test_function_is_called(client: httpx.AsyncClient, engine: Any) -> None:
    engine.chat.reply = '{"name": "weather", "arguments": {"place": "Oslo"}}'
    events = await stream(client, tools=[WEATHER], model="parrot")
    assert order(events) == [*BEGIN, *CALLED, "response.completed"]
    (call,) = events[-1]["response"]["output"]
    assert (call["name"], call["arguments"]) == ("weather", '{"place": "Oslo"}')
    engine.chat.reply = None
    turns = [
        {"role": "user", "content": "What is the weather?"},
        call,
        {"type": "function_call_output", "call_id": call["call_id"], "output": "Rain."},
    ]
    answer = await create(client, input=turns, tools=[WEATHER], model="parrot")
    assert "Rain." in answer["output"][0]["content"][0]["text"]
    assert "Result of weather:\nRain." in engine.chat.prompts[-1]


@pytest.mark.parametrize(
    ("reasoning", "expected"),
    [
        pytest.param({"effort": "high"}, THOUGHT, id="thoughts"),
        pytest.param({"summary": "auto"}, SUMMED_UP, id="summary"),
    ],
)
async def test_thoughts_come_before_the_answer(
    client: httpx.AsyncClient, engine: Any, reasoning: dict[str, str], expected: list[str]
) -> None:
    engine.chat.thinks = True
    engine.chat.reply = "<think> Two and two. </think> Four."
    events = await stream(client, model="parrot", reasoning=reasoning)
    assert order(events) == [*BEGIN, *expected, *SAID_FIRST, *SAID_LAST, "response.completed"]
    thought, message = events[-1]["response"]["output"]
    said = thought["summary"] or thought["content"]
    assert said[0]["text"].strip() == "Two and two."
    assert message["content"][0]["text"] == "Four."
    assert events[-1]["response"]["usage"]["output_tokens_details"]["reasoning_tokens"] > 0


async def test_answer_cut_short_is_incomplete(client: httpx.AsyncClient) -> None:
    events = await stream(client, model="parrot", max_output_tokens=2)
    assert events[-1]["type"] == "response.incomplete"
    final = events[-1]["response"]
    assert final["incomplete_details"] == {"reason": "max_output_tokens"}
    assert (final["status"], final["output"][0]["status"]) == ("incomplete", "incomplete")


async def test_failure_in_the_stream_fails_the_response(client: httpx.AsyncClient, engine: Any) -> None:
    engine.chat.fails_after = 2
    events = await stream(client, model="parrot")
    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"]["error"]["code"] == "server_error"
    assert events[-1]["response"]["status"] == "failed"
    failed = events[-1]["response"]["id"]
    assert (await client.get(f"/v1/responses/{failed}")).status_code == 404


async def test_logprobs_where_they_are_asked_for(client: httpx.AsyncClient) -> None:
    answer = await create(
        client, model="parrot", top_logprobs=2, include=["message.output_text.logprobs"], max_output_tokens=3
    )
    logprobs = answer["output"][0]["content"][0]["logprobs"]
    assert len(logprobs) == 3
    assert len(logprobs[0]["top_logprobs"]) == 2


async def test_form(client: httpx.AsyncClient, engine: Any) -> None:
    engine.chat.reply = '{"days": 5}'
    schema = {"type": "object", "properties": {"days": {"type": "integer"}}, "required": ["days"]}
    text = {"format": {"type": "json_schema", "name": "Leave", "schema": schema, "strict": True}}
    answer = await create(client, text=text)
    assert answer["output"][0]["content"][0]["text"] == '{"days": 5}'
    assert answer["text"]["format"]["name"] == "Leave"
    assert engine.chat.generations[0].params.grammar is not None


async def test_conversation_goes_on_with_a_kept_response(client: httpx.AsyncClient, engine: Any) -> None:
    first = await create(client, model="parrot", instructions="Be brief.", input="Remember the word ochre.")
    assert (await client.get(f"/v1/responses/{first['id']}")).json() == first
    items = (await client.get(f"/v1/responses/{first['id']}/input_items")).json()["data"]
    assert items[0]["content"] == [{"type": "input_text", "text": "Remember the word ochre."}]
    second = await create(client, model="parrot", previous_response_id=first["id"], input="Which word?")
    assert "ochre" in engine.chat.prompts[-1]
    assert "Be brief." not in engine.chat.prompts[-1]  # instructions are those of one request
    assert second["previous_response_id"] == first["id"]
    item = {"type": "item_reference", "id": first["output"][0]["id"]}
    await create(client, model="parrot", input=[item, {"role": "user", "content": "And?"}])
    assert "You said: Remember the word ochre." in engine.chat.prompts[-1]
    assert (await client.delete(f"/v1/responses/{first['id']}")).json()["deleted"]
    assert (await client.get(f"/v1/responses/{first['id']}")).status_code == 404
    body = {"model": "parrot", "input": "?", "previous_response_id": first["id"]}
    gone = await client.post("/v1/responses", json=body)
    assert (gone.status_code, gone.json()["error"]["code"]) == (400, "previous_response_not_found")


async def test_response_is_not_kept_where_the_client_says_so(client: httpx.AsyncClient) -> None:
    answer = await create(client, store=False)
    assert (await client.get(f"/v1/responses/{answer['id']}")).status_code == 404


async def test_kept_responses_belong_to_their_key(engine: Any, library: Any) -> None:
    app = create_app(Settings(api_keys="alpha,beta"), engine=engine, library=library)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
        mine, other = ({"Authorization": f"Bearer {key}"} for key in ("alpha", "beta"))
        body = {"model": "parrot", "input": "Remember ochre."}
        answer = (await client.post("/v1/responses", json=body, headers=mine)).json()
        path = f"/v1/responses/{answer['id']}"
        assert (await client.get(path, headers=mine)).status_code == 200
        for method in ("GET", "DELETE"):
            assert (await client.request(method, path, headers=other)).status_code == 404
        body["previous_response_id"] = answer["id"]
        assert (await client.post("/v1/responses", json=body, headers=other)).status_code == 400
        body = {"model": "parrot", "input": [{"type": "item_reference", "id": answer["output"][0]["id"]}]}  # type: ignore[dict-item]
        assert (await client.post("/v1/responses", json=body, headers=other)).status_code == 400


def test_kept_responses_are_bounded() -> None:
    store = ResponseStore(most=3, most_bytes=10_000)
    for number in range(5):
        response = {"id": f"resp_{number}", "output": []}
        store.keep(response, tenant="", input_items=[], messages=[])
    assert store.find("resp_4", tenant="").response["id"] == "resp_4"
    with pytest.raises(Exception, match="resp_1"):
        store.find("resp_1", tenant="")
    store.keep({"id": "large", "output": ["x" * 20_000]}, tenant="", input_items=[], messages=[])
    with pytest.raises(Exception, match="large"):
        store.find("large", tenant="")


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        pytest.param({"background": True}, "unsupported_parameter", "background", id="background"),
        pytest.param({"conversation": "conv_1"}, "unsupported_parameter", "conversation", id="conversation"),
        pytest.param({"truncation": "auto"}, "unsupported_parameter", "truncation", id="truncation"),
        pytest.param({"prompt": {"id": "p"}}, "unsupported_parameter", "prompt", id="prompt"),
        pytest.param({"max_tool_calls": 3}, "unsupported_parameter", "max_tool_calls", id="tool calls"),
        pytest.param({"service_tier": "flex"}, "unsupported_parameter", "service_tier", id="tier"),
        pytest.param(
            {"include": ["reasoning.encrypted_content"]}, "unsupported_parameter", "include", id="include"
        ),
        pytest.param({"tools": [{"type": "web_search"}]}, "unsupported_parameter", "tools.0", id="web"),
        pytest.param(
            {"tools": [{"type": "file_search"}]}, "invalid_request", "tools.0.vector_store_ids", id="no ids"
        ),
        pytest.param(
            {"tools": [{**SEARCH, "max_num_results": 90}]},
            "invalid_request",
            "tools.0.max_num_results",
            id="many",
        ),
        pytest.param({"tools": [SEARCH, SEARCH]}, "invalid_request", "tools", id="two searches"),
        pytest.param(
            {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]},
            "not_found",
            "vector_store_id",
            id="store",
        ),
        pytest.param({"tool_choice": {"type": "file_search"}}, "invalid_request", "tool_choice", id="choice"),
        pytest.param(
            {"text": {"verbosity": "low"}}, "unsupported_parameter", "text.verbosity", id="verbosity"
        ),
        pytest.param(
            {"text": {"format": {"type": "yaml"}}}, "unsupported_parameter", "text.format", id="format"
        ),
        pytest.param(
            {"reasoning": {"effort": "high"}}, "unsupported_parameter", "reasoning.effort", id="effort"
        ),
        pytest.param({"reasoning": {"summary": 3}}, "invalid_request", "reasoning.summary", id="summary"),
        pytest.param({"input": []}, "invalid_request", "input", id="nothing"),
        pytest.param({"input": [{"type": "computer_call"}]}, "unsupported_parameter", "input.0", id="item"),
        pytest.param(
            {"input": [{"role": "me", "content": ""}]}, "invalid_request", "input.0.role", id="role"
        ),
        pytest.param(
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "unsupported_parameter",
            "input.0.content",
            id="image",
        ),
        pytest.param(
            {"input": [{"type": "function_call", "name": "f", "call_id": "c", "arguments": "{"}]},
            "invalid_request",
            "input.0.arguments",
            id="arguments",
        ),
        pytest.param({"stream_options": {}}, "invalid_request", "stream_options", id="stream options"),
        pytest.param({"model": "nothing"}, "model_not_found", "model", id="model"),
    ],
)
async def test_what_is_not_supported_is_refused(
    client: httpx.AsyncClient, change: dict[str, Any], code: str, param: str
) -> None:
    body = {"model": "quarry", "input": QUESTION, **change}
    response = await client.post("/v1/responses", json=body)
    error = response.json()["error"]
    assert (error["code"], error["param"]) == (code, param), error
    assert response.status_code == (404 if code in ("not_found", "model_not_found") else 400)


def test_every_field_of_openai_is_known() -> None:
    fields = {*ResponseCreateParamsBase.__annotations__, "stream"}
    taken = {"user", "safety_identifier", "prompt_cache_key"}
    assert fields - set(requests.ResponseRequest.model_fields) - set(requests.FIELDS) == taken


async def test_input_tokens_are_counted(client: httpx.AsyncClient) -> None:
    body = {"model": "parrot", "input": "one two"}
    counted = (await client.post("/v1/responses/input_tokens", json=body)).json()["input_tokens"]
    assert counted == (await create(client, **body))["usage"]["input_tokens"]


async def test_nothing_can_be_cancelled(client: httpx.AsyncClient) -> None:
    answer = await create(client)
    assert (await client.post(f"/v1/responses/{answer['id']}/cancel")).status_code == 400
    assert (await client.get(f"/v1/responses/{answer['id']}?stream=true")).status_code == 400
