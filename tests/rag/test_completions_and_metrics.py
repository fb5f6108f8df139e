"""Texts continued without conversation, tokens, and what Prometheus reads."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from rag.app import create_app
from rag.settings import Settings


@pytest.fixture
async def client(engine: Any, library: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(Settings(), engine=engine, library=library))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
        yield client


async def test_prompts_are_continued_in_order(client: httpx.AsyncClient) -> None:
    request = {"model": "parrot", "prompt": ["x: one", "x: two"], "n": 2, "logprobs": 1}
    body = (await client.post("/v1/completions", json=request)).json()
    assert body["object"] == "text_completion"
    assert [choice["text"] for choice in body["choices"]] == ["You said: one"] * 2 + ["You said: two"] * 2
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    logprobs = body["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["You ", "said: ", "one"]
    assert logprobs["text_offset"] == [0, 4, 10]
    usage = body["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (8, 12, 20)


@pytest.mark.parametrize("stream", [pytest.param(True, id="stream"), pytest.param(False, id="whole")])
async def test_echo_begins_with_the_prompt(client: httpx.AsyncClient, stream: bool) -> None:
    request = {"model": "parrot", "prompt": ["x: one", "x: two"], "echo": True, "stream": stream}
    answer = await client.post("/v1/completions", json=request)
    texts = {0: "", 1: ""}
    if stream:
        for line in answer.text.strip().split("\n\n")[:-1]:
            for choice in json.loads(line.removeprefix("data: "))["choices"]:
                texts[choice["index"]] += choice["text"]
    else:
        texts = {choice["index"]: choice["text"] for choice in answer.json()["choices"]}
    assert texts == {0: "x: oneYou said: one", 1: "x: twoYou said: two"}


async def test_stream_of_a_continuation(client: httpx.AsyncClient) -> None:
    request = {
        "model": "parrot",
        "prompt": "x: one",
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    lines = (await client.post("/v1/completions", json=request)).text.strip().split("\n\n")
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks[:-1]) == "You said: one"
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        pytest.param({"echo": True, "logprobs": 1}, "unsupported_parameter", "echo", id="echo with logprobs"),
        pytest.param({"suffix": "x"}, "unsupported_parameter", "suffix", id="suffix"),
        pytest.param({"best_of": 2}, "unsupported_parameter", "best_of", id="best of"),
        pytest.param({"n": 9}, "unsupported_parameter", "n", id="many"),
        pytest.param({"prompt": ""}, "invalid_request", "prompt", id="empty"),
        pytest.param({"model": "quarry"}, "invalid_request", "model", id="documents"),
        pytest.param({"prompt": "w " * 4000}, "context_length_exceeded", "messages", id="long"),
    ],
)
async def test_what_is_refused(
    client: httpx.AsyncClient, change: dict[str, Any], code: str, param: str
) -> None:
    response = await client.post("/v1/completions", json={"model": "parrot", "prompt": "x", **change})
    assert response.status_code == 400
    assert (response.json()["error"]["code"], response.json()["error"]["param"]) == (code, param)


async def test_tokens_there_and_back(client: httpx.AsyncClient) -> None:
    cut = (await client.post("/tokenize", json={"prompt": "one two"})).json()
    assert cut["count"] == len(cut["tokens"]) == 3
    assert (await client.post("/v1/detokenize", json={"tokens": cut["tokens"]})).json() == {
        "prompt": "one two"
    }
    talk = {"messages": [{"role": "user", "content": "one"}]}
    assert (await client.post("/v1/tokenize", json=talk)).json()["count"] > 1
    assert (await client.post("/v1/tokenize", json={})).status_code == 400
    wrong = await client.post("/v1/detokenize", json={"tokens": [10**6]})
    assert wrong.status_code == 400


async def test_metrics(client: httpx.AsyncClient) -> None:
    question = {
        "model": "quarry",
        "messages": [{"role": "user", "content": "How many vacation days carry over?"}],
    }
    await client.post("/v1/chat/completions", json=question)
    await client.post("/v1/chat/completions", json={**question, "model": "nothing"})
    families = text_string_to_metric_families((await client.get("/metrics")).text)
    samples = {s.name: s.value for family in families for s in family.samples}
    assert samples["quarry_requests_running"] == 2
    assert samples["quarry_requests_waiting"] == 1
    assert samples["quarry_kv_blocks_used"] == 2
    assert samples["quarry_kv_blocks_kept"] == 4
    assert samples["quarry_prompt_tokens_total"] == 100
    assert samples["quarry_prompt_tokens_reused_total"] == 300
    assert samples["quarry_time_to_first_token_seconds_count"] == 1
    assert samples["quarry_failures_total"] == 1
    assert samples["quarry_documents"] == 3


async def test_status_tells_of_the_cache_and_compaction_empties_it(
    client: httpx.AsyncClient, engine: Any
) -> None:
    cache = (await client.get("/v1/library")).json()["cache"]
    assert (cache["n_used_blocks"], cache["n_kept_blocks"], cache["n_reused_tokens"]) == (2, 4, 300)
    assert engine.n_forgotten == 0
    assert (await client.post("/v1/library/compact")).status_code == 200
    assert engine.n_forgotten == 1
