"""What is refused or goes wrong gets an error in the form of OpenAI."""

from typing import Any

import httpx
import pytest
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsBase,
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)

from engine.errors import QueueFull
from rag import wire
from rag.app import create_app
from rag.settings import Settings
from tests.rag.calling import QUESTION, assert_openai_error, client_of, events_of


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        pytest.param({"model": "nothing"}, 404, "model_not_found", id="unknown model"),
        pytest.param({"model": "word-bag"}, 400, "invalid_request", id="embedding model"),
        pytest.param({"temperature": 3}, 400, "invalid_request", id="temperature out of range"),
        pytest.param({"messages": []}, 400, "invalid_request", id="no messages"),
        pytest.param({"messages": [{"role": "me", "content": "x"}]}, 400, "invalid_request", id="role"),
        pytest.param({"stop": ""}, 400, "invalid_request", id="empty stop"),
        pytest.param({"top_logprobs": 2}, 400, "invalid_request", id="top_logprobs alone"),
        pytest.param({"logit_bias": {"a": 1}}, 400, "invalid_request", id="logit bias key"),
        pytest.param({"n": 9}, 400, "unsupported_parameter", id="n"),
        pytest.param({"tools": [{"type": "function"}]}, 400, "invalid_request", id="nameless tool"),
        pytest.param({"tools": [{"type": "custom"}]}, 400, "unsupported_parameter", id="other tool"),
        pytest.param({"tool_choice": "required"}, 400, "invalid_request", id="tool choice alone"),
        pytest.param({"functions": [{"name": "f"}]}, 400, "unsupported_parameter", id="functions"),
        pytest.param({"audio": {"voice": "x"}}, 400, "unsupported_parameter", id="audio"),
        pytest.param({"modalities": ["text", "audio"]}, 400, "unsupported_parameter", id="modalities"),
        pytest.param({"moderation": {"model": "x"}}, 400, "unsupported_parameter", id="moderation"),
        pytest.param({"prediction": {"type": "content"}}, 400, "unsupported_parameter", id="prediction"),
        pytest.param({"prompt_cache_retention": "24h"}, 400, "unsupported_parameter", id="cache retention"),
        pytest.param(
            {"prompt_cache_options": {"mode": "explicit"}}, 400, "unsupported_parameter", id="cache"
        ),
        pytest.param({"service_tier": "flex"}, 400, "unsupported_parameter", id="tier"),
        pytest.param({"store": True}, 400, "unsupported_parameter", id="store"),
        pytest.param({"metadata": {"a": "b"}}, 400, "unsupported_parameter", id="metadata"),
        pytest.param({"verbosity": "low"}, 400, "unsupported_parameter", id="verbosity"),
        pytest.param({"web_search_options": {}}, 400, "unsupported_parameter", id="web search"),
        pytest.param(
            {"reasoning_effort": "high"}, 400, "unsupported_parameter", id="effort without thoughts"
        ),
        pytest.param({"reasoning_effort": "huge"}, 400, "invalid_request", id="unknown effort"),
        pytest.param({"stream_options": {"include_usage": True}}, 400, "invalid_request", id="no stream"),
        pytest.param(
            {"stream": True, "stream_options": {"include_obfuscation": True}},
            400,
            "unsupported_parameter",
            id="obfuscation",
        ),
        pytest.param(
            {"response_format": {"type": "json_schema", "json_schema": {}}},
            400,
            "invalid_request",
            id="no schema",
        ),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            400,
            "unsupported_parameter",
            id="image",
        ),
    ],
)
async def test_wrong_request_gets_openai_error(
    client: httpx.AsyncClient, change: dict[str, Any], status: int, code: str
) -> None:
    assert_openai_error(await client.post("/v1/chat/completions", json={**QUESTION, **change}), status, code)


async def test_fields_that_ask_for_nothing_are_taken(client: httpx.AsyncClient) -> None:
    harmless = {
        "user": "u-1",
        "safety_identifier": "s-1",
        "prompt_cache_key": "k",
        "prompt_cache_retention": "in_memory",
        "service_tier": "auto",
        "store": False,
        "metadata": None,
        "modalities": ["text"],
        "verbosity": "medium",
        "reasoning_effort": "none",
        "parallel_tool_calls": True,
        "functions": None,
        "logit_bias": {},
        "unknown_to_openai": {"top": 1},
    }
    response = await client.post("/v1/chat/completions", json={**QUESTION, **harmless})
    assert response.status_code == 200, response.text


async def test_every_field_of_openai_is_known() -> None:
    fields = {
        name
        for kind in (CompletionCreateParamsNonStreaming, CompletionCreateParamsStreaming)
        for name in kind.__annotations__
    }
    fields |= set(CompletionCreateParamsBase.__annotations__)
    taken = {"user", "safety_identifier", "prompt_cache_key"}
    assert fields - set(wire.ChatRequest.model_fields) - set(wire.CHAT_FIELDS) == taken


@pytest.mark.parametrize(
    ("content", "kind", "code"),
    [
        pytest.param(b"{", "application/json", "invalid_json", id="cut json"),
        pytest.param(b"[" * 100_000, "application/json", "bad_request", id="deep json"),
        pytest.param(b"\xff\xfe", "application/json", "invalid_json", id="not utf-8"),
        pytest.param(b'{"model": "quarry"}', "text/plain", "invalid_request", id="wrong content type"),
        pytest.param(
            b'{"model":"quarry","messages":[{"role":"user","content":"\\ud800"}]}',
            "application/json",
            "invalid_request",
            id="lone surrogate",
        ),
    ],
)
async def test_unreadable_body_gets_openai_error(
    client: httpx.AsyncClient, content: bytes, kind: str, code: str
) -> None:
    response = await client.post("/v1/chat/completions", content=content, headers={"content-type": kind})
    assert_openai_error(response, 400, code)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        pytest.param("GET", "/nowhere", 404, "not_found", id="no route"),
        pytest.param("GET", "/v1/chat/completions", 405, "method_not_allowed", id="wrong method"),
        pytest.param("GET", "/v1/models/nothing", 404, "model_not_found", id="no model"),
    ],
)
async def test_router_errors_are_openai_errors(
    client: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    response = await client.request(method, path, headers={"Origin": "http://localhost:3000"})
    assert_openai_error(response, status, code)
    assert response.headers["access-control-allow-origin"] == "http://localhost:3000"


async def test_unhandled_error_has_body_and_cors_and_tells_nothing(
    client: httpx.AsyncClient, library: Any
) -> None:
    def explode(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("secret")

    library.search_dense = explode
    response = await client.post(
        "/v1/chat/completions", json=QUESTION, headers={"Origin": "http://localhost:3000"}
    )
    message = assert_openai_error(response, 500, "internal_error")
    assert "secret" not in message
    assert response.headers["access-control-allow-origin"] == "http://localhost:3000"


async def test_failure_in_the_stream_is_readable_and_machine_readable(
    client: httpx.AsyncClient, engine: Any
) -> None:
    engine.chat.fails_after = 2
    response = await client.post("/v1/chat/completions", json={**QUESTION, "stream": True})
    chunks = events_of(response)
    assert "error" in chunks[-1]
    assert "[Error: " in chunks[-2]["choices"][0]["delta"]["content"]
    assert engine.chat.generations[-1].cancelled.is_set()


async def test_context_overflow_is_named_in_the_message(client: httpx.AsyncClient) -> None:
    body = {"model": "parrot", "messages": [{"role": "user", "content": "word " * 3000}]}
    for stream in (False, True):
        response = await client.post("/v1/chat/completions", json={**body, "stream": stream})
        assert "context_length_exceeded" in assert_openai_error(response, 400, "context_length_exceeded")


async def test_full_queue_of_the_engine_is_429(client: httpx.AsyncClient, engine: Any) -> None:
    def refuse(*_: Any) -> None:
        raise QueueFull("64 requests wait", retry_after=7)

    engine.chat.generate = refuse
    response = await client.post("/v1/chat/completions", json={**QUESTION, "stream": True})
    assert_openai_error(response, 429, "queue_full")
    assert response.headers["retry-after"] == "7"


async def test_body_over_the_limit_is_413(engine: Any, library: Any) -> None:
    app = create_app(Settings(max_body_bytes=2048), engine=engine, library=library)
    async with client_of(app) as client:
        response = await client.post("/v1/chat/completions", content=b" " * 4096)
    assert_openai_error(response, 413, "request_too_large")
