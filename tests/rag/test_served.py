"""The service behind a real server: disconnects, overload, keep-alives, the openai package."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx
import openai
import pytest

from rag.api import answering
from rag.app import create_app
from rag.server import Server
from rag.settings import Settings

QUESTION: list[Any] = [{"role": "user", "content": "How many vacation days carry over?"}]
DEADLINE_S = 10


@asynccontextmanager
async def serving(engine: Any, library: Any, **settings: Any) -> AsyncIterator[str]:
    app = create_app(Settings(**settings), engine=engine, library=library)
    server = Server(app, grace_s=2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await running


@pytest.fixture
async def url(engine: Any, library: Any) -> AsyncIterator[str]:
    async with serving(engine, library) as url:
        yield url


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 (nothing announces it)
            await asyncio.sleep(0.01)


async def until_cancelled(engine: Any) -> None:
    await until(lambda: bool(engine.chat.generations))
    async with asyncio.timeout(DEADLINE_S):
        await engine.chat.generations[-1].cancelled.wait()


async def test_openai_client_streams_and_reads_usage(url: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any") as client:
        stream = await client.chat.completions.create(
            model="quarry", messages=QUESTION, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "five vacation days" in text
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens > 0


async def test_openai_client_raises_on_failure_in_the_stream(url: str, engine: Any) -> None:
    engine.chat.fails_after = 1
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any") as client:
        stream = await client.chat.completions.create(model="quarry", messages=QUESTION, stream=True)
        with pytest.raises(openai.APIError, match="request id"):
            [chunk async for chunk in stream]


async def test_closing_the_stream_cancels_the_generation(url: str, engine: Any) -> None:
    engine.chat.gate = asyncio.Event()
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any") as client:
        stream = await client.chat.completions.create(model="quarry", messages=QUESTION, stream=True)
        await stream.close()
        await until_cancelled(engine)


@pytest.mark.parametrize("stream", [pytest.param(True, id="stream"), pytest.param(False, id="whole")])
async def test_leaving_cancels_the_generation(url: str, engine: Any, stream: bool) -> None:
    engine.chat.gate = asyncio.Event()
    async with httpx.AsyncClient() as client:
        body = {"model": "quarry", "messages": QUESTION, "stream": stream}
        asking = asyncio.create_task(client.post(f"{url}/v1/chat/completions", json=body))
        await until(lambda: bool(engine.chat.generations))
        asking.cancel()
        await until_cancelled(engine)


async def test_queue_is_bounded_and_leaves_no_place_taken(engine: Any, library: Any) -> None:
    engine.chat.gate = asyncio.Event()
    async with serving(engine, library, queue_limit=2) as url, httpx.AsyncClient(timeout=30) as client:
        body = {"model": "quarry", "messages": QUESTION}
        asked = [asyncio.create_task(client.post(f"{url}/v1/chat/completions", json=body)) for _ in range(6)]
        await until(lambda: sum(task.done() for task in asked) == 4)
        engine.chat.gate.set()
        answers = [await task for task in asked]
        assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429, 429, 429]
        assert all(a.headers["retry-after"] for a in answers if a.status_code == 429)
        again = await client.post(f"{url}/v1/chat/completions", json=body)
        assert again.status_code == 200


async def test_waiting_stream_sends_headers_and_empty_deltas(
    url: str, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "KEEP_ALIVE_S", 0.05)
    engine.chat.gate = asyncio.Event()
    body = {"model": "quarry", "messages": QUESTION, "stream": True}
    async with (
        httpx.AsyncClient() as client,
        client.stream("POST", f"{url}/v1/chat/completions", json=body) as response,
        aclosing(response.aiter_lines()) as lines,
    ):
        assert response.status_code == 200
        deltas = []
        async for line in lines:
            if line:
                deltas.append(json.loads(line.removeprefix("data: "))["choices"][0]["delta"])
            if len(deltas) == 4:
                break
    assert deltas == [{"role": "assistant", "content": ""}, {}, {}, {}]


async def test_slow_search_does_not_hold_the_headers_back(
    url: str, library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "HEADERS_AFTER_S", 0.05)

    go_on = threading.Event()
    search = library.search_dense

    def slow(*args: Any, **kwargs: Any) -> Any:
        go_on.wait(DEADLINE_S)
        return search(*args, **kwargs)

    library.search_dense = slow
    body = {"model": "quarry", "messages": QUESTION, "stream": True}
    async with (
        httpx.AsyncClient() as client,
        client.stream("POST", f"{url}/v1/chat/completions", json=body) as response,
    ):
        assert response.status_code == 200  # the search has not returned yet
        go_on.set()
        text = "".join([part async for part in response.aiter_text()])
    assert "[DONE]" in text
