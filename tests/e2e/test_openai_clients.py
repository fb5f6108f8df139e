"""The whole job with other people's clients: openai and langchain-openai, a real server, real models."""

import asyncio
import base64
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import tiktoken
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import SecretStr

from rag.settings import Settings
from tests.e2e.serving import Served, serve

DEADLINE_S = 60
KEY = "test-key"
DOCUMENTS = {
    "handbook.md": (
        "# Handbook\n\n## Leave\n\nEmployees may carry over five vacation days into the next year. "
        "The form is signed by Maria Lindqvist.\n\n## Travel\n\nTrains are booked in second class.\n"
    ),
    "ops/backup.md": (
        "# Backups\n\nThe nightly backup starts at 02:40 and is kept for 35 days on the server called "
        "heron-3.\n\n## Restore\n\nRun `restore --latest` on heron-3 and wait for the green lamp.\n"
    ),
    "ops/printer.txt": "The printer on the third floor is a Kyoto 550. The front desk changes its toner.\n",
    "recipes.html": (
        "<html><body><h1>Soups</h1><p>The lentil soup simmers for forty minutes with cumin and a bay leaf."
        "</p></body></html>"
    ),
    "规定/考勤.md": (
        "# 考勤制度\n\n## 年假\n\n第十五条 员工每年享有二十五天年假。未休完的年假可以顺延三个月。\n\n"
        "## 加班\n\n加班须经部门主管书面批准。\n"
    ),
}


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, starter_chat_gguf: Path, starter_embedding_gguf: Path
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("clients")
    documents = folder / "documents"
    for name, text in DOCUMENTS.items():
        (documents / name).parent.mkdir(parents=True, exist_ok=True)
        (documents / name).write_text(text, "utf-8")
    settings = Settings(api_keys=KEY, answer_tokens=48)
    models = {"chat": starter_chat_gguf, "embedding": starter_embedding_gguf}
    with serve(folder, settings, **models, key=KEY) as served:
        yield served


@pytest.fixture
def client(service: Served) -> Iterator[openai.OpenAI]:
    with service.client() as client:
        yield client


def ask(client: openai.OpenAI, question: str, **more: Any) -> Any:
    messages: Any = [{"role": "user", "content": question}]
    return client.chat.completions.create(
        model=more.pop("model", "quarry"), messages=messages, temperature=0, **more
    )


def paths(completion: Any) -> list[str]:
    return [source["path"] for source in completion.model_extra["sources"]]


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.2)


# What only one document says


@pytest.mark.parametrize(
    ("question", "path"),
    [
        pytest.param("Who signs the form for vacation days?", "handbook.md", id="who"),
        pytest.param("When does the nightly backup start?", "ops/backup.md", id="when"),
        pytest.param("Which printer is on the third floor?", "ops/printer.txt", id="which"),
        pytest.param("How long does the lentil soup simmer?", "recipes.html", id="html"),
        pytest.param("员工每年有几天年假？", "规定/考勤.md", id="chinese"),
        pytest.param("谁批准加班？", "规定/考勤.md", id="chinese who"),
    ],
)
def test_answer_comes_from_the_document_that_has_it(service: Served, question: str, path: str) -> None:
    with service.client() as client:
        answer = ask(client, question)
    assert paths(answer)[0] == path
    assert path.rsplit("/", maxsplit=1)[-1].split(".", maxsplit=1)[0] in answer.choices[0].message.content


def test_question_that_no_document_answers(service: Served) -> None:
    with service.client() as client:
        answer = ask(client, "Which team won the football world cup in Uruguay?")
    assert paths(answer) == []
    assert answer.choices[0].message.content == "The documents do not say anything about this."


def test_collection_is_a_model(service: Served) -> None:
    with service.client() as client:
        names = [model.id for model in client.models.list()]
        assert client.models.retrieve("quarry-ops").id == "quarry-ops"
        answer = ask(client, "When does the nightly backup start?", model="quarry-ops")
        other = ask(client, "When does the nightly backup start?", model="quarry-default")
    assert {"quarry", "quarry-ops", "quarry-default"} <= set(names)
    assert all(name.isascii() for name in names)
    assert set(paths(answer)) == {"ops/backup.md"}
    assert "ops/backup.md" not in paths(other)


def test_document_added_changed_and_deleted(service: Served) -> None:
    path = service.documents / "badger.md"
    question = "What is the code word of the badger project?"

    def says(word: str | None) -> bool:
        with service.client() as client:
            texts = [s["text"] for s in ask(client, question, max_tokens=8).model_extra["sources"]]
        return any(word in text for text in texts) if word else not any("badger" in text for text in texts)

    assert says(None)
    path.write_text("# Badger\n\nThe code word of the badger project is marzipan.\n")
    eventually(lambda: says("marzipan"))
    path.write_text("# Badger\n\nThe code word of the badger project is turpentine now.\n")
    eventually(lambda: says("turpentine") and not says("marzipan"))
    path.unlink()
    eventually(lambda: says(None))


# openai


def test_stream_is_the_whole_answer_with_usage_and_sources(service: Served) -> None:
    question = "When does the nightly backup start?"
    with service.client() as client:
        ask(client, question)  # from now on both tell the same of what was known
        whole = ask(client, question)
        chunks = list(ask(client, question, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert "**Sources**" in text
    assert chunks[-1].usage == whole.usage
    assert whole.usage.prompt_tokens > 50
    assert [c.choices[0].finish_reason for c in chunks[:-1] if c.choices[0].finish_reason] == [
        whole.choices[0].finish_reason
    ]
    assert any((chunk.model_extra or {}).get("sources") for chunk in chunks)


async def test_async_client_streams_several_at_once(service: Served) -> None:
    async def stream(client: openai.AsyncOpenAI, number: int) -> str:
        messages: Any = [{"role": "user", "content": f"Count from {number} upwards."}]
        name = service.engine.chat.name if service.engine.chat else ""
        chunks = await client.chat.completions.create(
            model=name, messages=messages, stream=True, max_tokens=12, temperature=0
        )
        return "".join([c.choices[0].delta.content or "" async for c in chunks if c.choices])

    async with service.aclient() as client:
        together = await asyncio.gather(*(stream(client, number) for number in range(4)))
        alone = [await stream(client, number) for number in range(4)]
    assert together == alone
    assert all(together)


def test_stop_seed_length_and_logprobs(service: Served) -> None:
    name = service.engine.chat.name if service.engine.chat else ""
    with service.client() as client:
        counted = ask(client, "Write the numbers from one to nine.", model=name, max_tokens=40)
        text = counted.choices[0].message.content
        word = text.split()[3]
        stopped = ask(client, "Write the numbers from one to nine.", model=name, max_tokens=40, stop=[word])
        assert stopped.choices[0].message.content == text[: text.index(word)]
        assert stopped.choices[0].finish_reason == "stop"
        messages: Any = [{"role": "user", "content": "Tell me a story."}]
        drawn = [
            client.chat.completions.create(
                model=name,
                messages=messages,
                temperature=1.5,
                seed=seed,
                max_tokens=16,
                logprobs=True,
                top_logprobs=3,
            )
            for seed in (7, 7, 8)
        ]
    texts = [completion.choices[0].message.content for completion in drawn]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]
    assert drawn[0].choices[0].finish_reason == "length"
    logprobs = drawn[0].choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert len(logprobs.content) == 16
    assert all(len(item.top_logprobs) == 3 and item.logprob <= 0 for item in logprobs.content)


def test_closing_a_stream_frees_the_engine(service: Served) -> None:
    name = service.engine.chat.name if service.engine.chat else ""
    with service.client() as client:
        stream = ask(client, "Write a very long story.", model=name, max_tokens=2000, stream=True)
        next(iter(stream))
        stream.close()
        eventually(lambda: service.engine.status().scheduler.n_running == 0)


def test_embeddings_float_base64_and_order(service: Served) -> None:
    texts = ["vacation days", "", "年假", "backup"]
    with service.client() as client:
        packed = client.embeddings.create(model="text-embedding-3-small", input=texts)
        plain = client.embeddings.create(model="text-embedding-3-small", input=texts, encoding_format="float")
        single = client.embeddings.create(model="text-embedding-3-small", input=texts[0])
    vectors = np.array([item.embedding for item in packed.data], np.float32)
    assert vectors.tolist() == np.array([item.embedding for item in plain.data], np.float32).tolist()
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    assert np.allclose(vectors[0], single.data[0].embedding, atol=1e-3)
    assert packed.usage.prompt_tokens == plain.usage.prompt_tokens > 0
    raw = httpx.post(
        f"{service.url}/v1/embeddings",
        json={"model": "text-embedding-ada-002", "input": "x", "encoding_format": "base64"},
        headers={"Authorization": f"Bearer {KEY}"},
    ).json()["data"][0]["embedding"]
    assert len(base64.b64decode(raw)) == 4 * vectors.shape[1]


def test_errors_are_the_package_s_own(service: Served) -> None:
    with service.client() as client:
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            ask(client, "x", model="nothing")
        with pytest.raises(openai.BadRequestError, match="n=9"):
            ask(client, "x", n=9)
        name = service.engine.chat.name if service.engine.chat else ""
        with pytest.raises(openai.BadRequestError, match="context_length_exceeded") as caught:
            ask(client, "word " * 20_000, model=name)
        assert caught.value.code == "context_length_exceeded"
        with pytest.raises(openai.BadRequestError, match="at most"):
            client.embeddings.create(model="text-embedding-3-small", input="word " * 5000)
        with pytest.raises(openai.BadRequestError, match="logit_bias"):
            ask(client, "x", model=name, logit_bias={"99999999": 1})
    wrong = openai.OpenAI(base_url=f"{service.url}/v1", api_key="wrong", max_retries=0)
    with wrong, pytest.raises(openai.AuthenticationError, match="QUARRY_API_KEYS"):
        wrong.models.list()


# langchain-openai


def chat_openai(service: Served, **more: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model="quarry",
        base_url=f"{service.url}/v1",
        api_key=SecretStr(KEY),
        temperature=0,
        max_retries=0,
        **more,
    )


async def test_langchain_chat(service: Served) -> None:
    question = "When does the nightly backup start?"
    async with openai.DefaultAsyncHttpxClient() as http:  # LangChain never closes its own
        model = chat_openai(service, include_response_headers=True, http_async_client=http)
        invoked = model.invoke(question)
        streamed = "".join(str(chunk.content) for chunk in model.stream(question))
        awaited = await model.ainvoke(question)
    assert "backup.md" in str(invoked.content)
    assert streamed == invoked.content == awaited.content
    assert invoked.usage_metadata is not None
    assert "ops/backup.md" in invoked.response_metadata["headers"]["x-quarry-sources"]


@asynccontextmanager
async def embeddings(service: Served, **more: Any) -> AsyncIterator[OpenAIEmbeddings]:
    async with openai.DefaultAsyncHttpxClient() as http_async:
        with openai.DefaultHttpxClient() as http:
            yield OpenAIEmbeddings(
                model="text-embedding-3-small",
                base_url=f"{service.url}/v1",
                api_key=SecretStr(KEY),
                max_retries=0,
                http_client=http,
                http_async_client=http_async,
                **more,
            )


async def test_langchain_embeddings(service: Served) -> None:
    async with embeddings(service, check_embedding_ctx_length=False) as model:
        documents = model.embed_documents(["vacation days", "backup"])
        query = await model.aembed_query("vacation days")
    assert np.allclose(documents[0], query, atol=1e-3)
    assert not np.allclose(documents[1], query, atol=1e-1)


async def test_langchain_token_ids_get_a_helpful_answer(
    service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The real vocabulary would be fetched from the network; the request has the same shape with this one.
    by_bytes = tiktoken.Encoding(
        "bytes", pat_str=r"\S+|\s+", mergeable_ranks={bytes([i]): i for i in range(256)}, special_tokens={}
    )
    monkeypatch.setattr(tiktoken, "encoding_for_model", lambda _: by_bytes)
    async with embeddings(service) as model:
        with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
            model.embed_documents(["vacation days"])


# ChatGPT-Next-Web


@pytest.mark.parametrize("route", ["/v1", "/v1/v1", "/api/openai/v1"])
def test_nextchat_asks_and_wants_a_title(service: Served, route: str) -> None:
    url = f"{service.url}{route}/chat/completions"
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": "When does the nightly backup start?"}],
        "stream": True,
        "model": "gpt-4o-mini",
        "temperature": 0.5,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "top_p": 1,
    }
    headers = {
        "Authorization": f"Bearer {KEY}",
        "Origin": "http://localhost:3000",
        "x-requested-with": "XMLHttpRequest",
    }
    answer = httpx.post(url, json=body, headers=headers, timeout=DEADLINE_S)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert "backup.md" in answer.text
    body["messages"] += [
        {"role": "assistant", "content": "At 02:40 [1]."},
        {
            "role": "user",
            "content": "使用四到五个字直接返回这句话的简要主题，不要解释、不要标点",
        },
    ]
    title = httpx.post(url, json={**body, "stream": False}, headers=headers, timeout=DEADLINE_S).json()
    assert title["sources"] == []
    assert "**" not in title["choices"][0]["message"]["content"]


def test_gate_of_the_running_server(service: Served) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    for changed, status in (
        ({}, 200),
        ({"Host": "evil.example.net"}, 403),
        ({"Origin": "https://evil.example.net"}, 403),
        ({"Authorization": ""}, 401),
    ):
        response = httpx.get(f"{service.url}/v1/models", headers={**headers, **changed})
        assert (response.status_code, changed) == (status, changed)
    assert httpx.get(f"{service.url}/health").status_code == 200


# What was known


def test_usage_tells_what_was_not_read_again(service: Served, client: openai.OpenAI) -> None:
    plain = {"model": service.chat_name, "max_tokens": 4}
    question = "Name a colour that is not in this list: " + ", ".join(f"colour {i}" for i in range(60))

    def cached(**more: Any) -> tuple[int, int]:
        usage = ask(client, question, **plain, **more).usage
        return usage.prompt_tokens_details.cached_tokens, usage.prompt_tokens

    known, n_prompt = cached()
    assert known < 64  # the template's own beginning, if anything
    known, _ = cached()
    assert n_prompt - 32 <= known < n_prompt
    assert cached(n=2)[0] == known
    chunks = list(ask(client, question, stream=True, stream_options={"include_usage": True}, **plain))
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens == known
    answer = client.responses.create(model=service.chat_name, input=question, max_output_tokens=16)
    assert answer.usage is not None
    assert answer.usage.input_tokens_details.cached_tokens == known
    text = client.completions.create(model=service.chat_name, prompt=[question, question], max_tokens=2, n=2)
    again = client.completions.create(model=service.chat_name, prompt=[question, question], max_tokens=2, n=2)
    assert text.usage is not None
    assert again.usage is not None
    assert again.usage.prompt_tokens_details is not None
    half = again.usage.prompt_tokens // 2
    assert 2 * (half - 32) <= again.usage.prompt_tokens_details.cached_tokens < 2 * half
    message = ChatOpenAI(
        model=service.chat_name, base_url=f"{service.url}/v1", api_key=SecretStr(service.key), max_retries=0
    ).invoke(question)
    assert message.usage_metadata["input_token_details"]["cache_read"] == known  # type: ignore[index]  # it is there


def test_an_answer_from_documents_tells_what_was_known(client: openai.OpenAI) -> None:
    ask(client, "When does the nightly backup start?")
    again = ask(client, "When does the nightly backup start?")
    assert 0 < again.usage.prompt_tokens_details.cached_tokens < again.usage.prompt_tokens


def test_no_kept_prompt_outlives_a_deleted_document(service: Served, client: openai.OpenAI) -> None:
    kept = service.documents.parent / "data" / "prefixes"

    def n_kept() -> int:
        return sum(len(path.name) == 64 for path in kept.iterdir())

    (service.documents / "otter.md").write_text("# Otter\n\nThe otter project is secret.\n")
    question = "What is the otter project? " + "Think of what I said before. " * 30
    for _ in range(2):
        ask(client, question, model=service.chat_name, max_tokens=4)
    eventually(lambda: n_kept() > 0)
    eventually(lambda: "otter.md" in paths(ask(client, "What is the otter project?", max_tokens=4)))
    (service.documents / "otter.md").unlink()
    eventually(lambda: n_kept() == 0)
