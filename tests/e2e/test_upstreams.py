"""Models that run elsewhere: a second Quarry is the upstream, its clients are other people's."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import openai
import pytest
from openai.types import CompletionUsage
from pydantic import BaseModel, Field, SecretStr

from engine.convert import convert
from engine.errors import UpstreamFailed
from engine.remote import RemoteEmbedder, estimate_tokens
from engine.upstream import Address, Upstream
from rag.settings import Settings
from tests.e2e.serving import Served, serve

TINY = Path(__file__).parents[1] / "data" / "tiny"
KEY = "upstream-key"
BOTH = ("chat", "embedder")
QUESTION: list[Any] = [{"role": "user", "content": "When does the nightly backup start?"}]


class Person(BaseModel):
    """A person in a document."""

    first_name: str = Field(max_length=16)
    role: Literal["manager", "driver"]


@pytest.fixture(scope="module")
def upstream(
    tmp_path_factory: pytest.TempPathFactory, starter_chat_gguf: Path, starter_embedding_gguf: Path
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("upstream")
    convert(TINY / "bert-rank", folder / "bert-rank.gguf", tensor_type="F32")
    models = {"chat": starter_chat_gguf, "embedding": starter_embedding_gguf}
    models["rerank"] = folder / "bert-rank.gguf"
    with serve(folder, Settings(api_keys=KEY, queue_limit=4), **models, key=KEY) as served:
        yield served


def pointed_at(upstream: Served, **more: Any) -> Settings:
    engine = upstream.engine
    assert engine.chat is not None
    assert engine.embedder is not None
    assert engine.reranker is not None
    settings: dict[str, Any] = {}
    for role, model in (("chat", engine.chat), ("embedding", engine.embedder), ("rerank", engine.reranker)):
        settings |= {f"{role}_url": upstream.url, f"{role}_model": model.name, f"{role}_key": KEY}
    return Settings(**{"answer_tokens": 48, "embedding_tokens": 256, **settings, **more})


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, upstream: Served) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("pointed")
    (folder / "documents").mkdir()
    (folder / "documents" / "backup.md").write_text(
        "# Backups\n\nThe nightly backup starts at 02:40 and is kept for 35 days on heron-3.\n"
    )
    with serve(folder, pointed_at(upstream)) as served:
        yield served


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.05)


def counted(usage: CompletionUsage | None) -> tuple[int, int]:
    """Return the tokens read and written; how many were known from before differs from call to call."""
    assert usage is not None
    return usage.prompt_tokens, usage.completion_tokens


def test_answers_come_from_documents_through_the_upstream(served: Served) -> None:
    with served.client() as client:
        answer = client.chat.completions.create(model="quarry", messages=QUESTION, temperature=0)
        assert (answer.model_extra or {})["sources"][0]["path"] == "backup.md"
        assert answer.choices[0].message.content
        assert answer.usage is not None
        stream = client.chat.completions.create(
            model="quarry",
            messages=QUESTION,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == answer.choices[0].message.content
    assert counted(chunks[-1].usage) == counted(answer.usage)


def test_plain_chat_is_the_upstreams_own(served: Served, upstream: Served) -> None:
    request: Any = {
        "model": upstream.chat_name,
        "messages": QUESTION,
        "temperature": 0,
        "max_tokens": 12,
        "logprobs": True,
        "top_logprobs": 2,
    }
    with served.client() as here, upstream.client() as there:
        ours = here.chat.completions.create(**request)
        theirs = there.chat.completions.create(**request)
    assert ours.choices[0].message.content == theirs.choices[0].message.content
    assert ours.choices[0].finish_reason == theirs.choices[0].finish_reason == "length"
    assert ours.choices[0].logprobs == theirs.choices[0].logprobs
    assert counted(ours.usage) == counted(theirs.usage)


def test_forms_tools_and_continuations_hold_there(served: Served, upstream: Served) -> None:
    with served.client() as client:
        parsed = client.chat.completions.parse(
            model=upstream.chat_name,
            messages=[{"role": "user", "content": "Maria is the manager."}],
            response_format=Person,
            temperature=0,
        )
        assert isinstance(parsed.choices[0].message.parsed, Person)
        tool: Any = {
            "type": "function",
            "function": {
                "name": "weather",
                "parameters": {
                    "type": "object",
                    "properties": {"place": {"enum": ["Oslo"]}},
                    "required": ["place"],
                },
            },
        }
        called = client.chat.completions.create(
            model="quarry", messages=QUESTION, tools=[tool], tool_choice="required", temperature=0
        )
        calls = called.choices[0].message.tool_calls or []
        assert [json.loads(call.function.arguments) for call in calls if call.type == "function"] == [
            {"place": "Oslo"}
        ]
        continued = client.completions.create(
            model=upstream.chat_name, prompt="One, two, three,", max_tokens=4, temperature=0
        )
        assert continued.choices[0].text


def test_vectors_and_scores_are_the_upstreams_own(served: Served, upstream: Served) -> None:
    assert upstream.engine.embedder is not None
    assert upstream.engine.reranker is not None
    texts = ["a passage", "ein Absatz", "", "一段文字"]
    with served.client() as client:
        data = client.embeddings.create(model="text-embedding-3-small", input=texts).data
    ours = np.array([item.embedding for item in data], np.float32)
    theirs = upstream.engine.embedder.embed(texts, kind="document")
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    passages = ["the cat sat", "a dog ran in the park"]
    body = {"model": "rerank", "query": "the cat", "documents": passages}
    results = httpx.post(f"{served.url}/v1/rerank", json=body).json()["results"]
    scores = upstream.engine.reranker.rerank("the cat", passages)
    assert {r["index"]: pytest.approx(r["relevance_score"], abs=1e-5) for r in results} == dict(
        enumerate(scores)
    )


def test_leaving_here_ends_the_work_there(served: Served, upstream: Served) -> None:
    with served.client() as client:
        stream = client.chat.completions.create(
            model=upstream.chat_name, messages=QUESTION, stream=True, max_tokens=2000
        )
        next(iter(stream))
        stream.close()
    eventually(lambda: upstream.engine.status().scheduler.n_running == 0)


def test_too_long_a_prompt_is_named_as_ever(served: Served, upstream: Served) -> None:
    messages: Any = [{"role": "user", "content": "word " * 9000}]
    with served.client() as client, pytest.raises(openai.BadRequestError, match="context_length_exceeded"):
        client.chat.completions.create(model=upstream.chat_name, messages=messages)


def test_what_the_upstream_keeps_to_itself_is_refused(served: Served) -> None:
    response = httpx.post(f"{served.url}/v1/tokenize", json={"prompt": "x"})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "unsupported_parameter")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"chat_key": "wrong"}, "refuses the key", id="key"),
        pytest.param({"chat_model": "nothing"}, "does not exist", id="model"),
        pytest.param({"chat_url": "http://127.0.0.1:9"}, "does not answer", id="nobody there"),
    ],
)
def test_failing_upstream_is_named(
    tmp_path: Path, upstream: Served, change: dict[str, str], words: str
) -> None:
    with serve(tmp_path, pointed_at(upstream, **change)) as served:
        assert served.engine.chat is not None
        body = {"model": served.engine.chat.name, "messages": QUESTION}
        for stream in (False, True):
            response = httpx.post(f"{served.url}/v1/chat/completions", json={**body, "stream": stream})
            assert response.status_code == 502
            assert response.json()["error"]["code"] == "upstream_failed"
            assert words in response.json()["error"]["message"]


def test_embedder_that_is_not_there_is_named_at_the_start(upstream: Served) -> None:
    for address in (Address("http://127.0.0.1:9/v1", "m"), Address(upstream.url, "nothing", KEY)):
        client = Upstream(address)
        with pytest.raises(UpstreamFailed, match=r"127\.0\.0\.1"):
            RemoteEmbedder(client, max_tokens=256)
        client.close()


def test_another_embedding_model_is_never_mixed_in(tmp_path: Path, upstream: Served) -> None:
    """The record knows which model its vectors are of, wherever that ran."""
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "a.md").write_text("The frobnicator is blue.\n")
    with serve(tmp_path, pointed_at(upstream)) as served:
        assert served.engine.embedder is not None
        first = served.engine.embedder.fingerprint
    with serve(tmp_path, pointed_at(upstream, embedding_model="text-embedding-other")) as served:
        assert served.engine.embedder is not None
        assert served.engine.embedder.fingerprint != first
        with served.client() as client:
            found = client.chat.completions.create(
                model="quarry", messages=[{"role": "user", "content": "Which colour has the frobnicator?"}]
            )
        assert (found.model_extra or {})["sources"][0]["path"] == "a.md"
        status = httpx.get(f"{served.url}/ready").json()
        assert status["embedding_model"] == "text-embedding-other"


def test_settings_ask_for_the_name_of_the_model_there() -> None:
    with pytest.raises(ValueError, match="QUARRY_CHAT_URL needs QUARRY_CHAT_MODEL"):
        Settings(chat_url="http://gpu:8000/v1")
    assert isinstance(Settings(chat_key="k").chat_key, SecretStr)


@pytest.mark.parametrize(
    ("text", "roles"),
    [
        pytest.param("The nightly backup starts at 02:40 and is kept for 35 days.", BOTH, id="english"),
        pytest.param("第十五条：员工每年享有二十五天年假，加班须经主管批准。", ("embedder",), id="chinese"),
        pytest.param("sha256:9b5ad71b2ce5302211f9c61530b329a4922fc6a4", BOTH, id="hex"),
        pytest.param("Donaudampfschifffahrtsgesellschaft überprüft Straßenbahnfahrkarten", BOTH, id="german"),
        pytest.param("def f(x):\n    return [y ** 2 for y in x if y]\n", BOTH, id="code"),
    ],
)
def test_estimate_is_not_below_the_count(text: str, roles: tuple[str, ...], upstream: Served) -> None:
    for role in roles:  # the starter chat model spells Chinese in bytes
        assert estimate_tokens(text) >= getattr(upstream.engine, role).count_tokens(text)
