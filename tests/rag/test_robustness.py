"""What must hold under load, at the end, and against clients that mean no good."""

import asyncio
import gc
import json
import random
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from rag.app import create_app
from rag.connection import Patience
from rag.log import configure_logging
from rag.server import Server
from rag.settings import Settings

QUESTION = {
    "model": "quarry",
    "messages": [{"role": "user", "content": "How many vacation days carry over?"}],
}
DEADLINE_S = 30


class Running:
    """A service on a port, and its server."""

    def __init__(self, server: Server, port: int) -> None:
        self.server = server
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    @property
    def service(self) -> Any:
        return self.server.config.app.state.service  # type: ignore[union-attr]


@asynccontextmanager
async def running(
    engine: Any, library: Any, *, patience: Patience | None = None, grace_s: float = 1.0, **settings: Any
) -> AsyncIterator[Running]:
    app = create_app(Settings(**settings), engine=engine, library=library)
    server = Server(app, grace_s=grace_s, patience=patience)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    listener = await asyncio.get_running_loop().run_in_executor(None, _listen)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield Running(server, listener.getsockname()[1])
    finally:
        server.should_exit = True
        await task
        listener.close()
        structlog.reset_defaults()


def _listen() -> Any:
    import socket

    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    listener.setblocking(False)
    return listener


async def until(condition: Any) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 (nothing announces it)
            await asyncio.sleep(0.01)


# 6: overload


# The other side runs in a process of its own: its work must not count as the server's. It connects 500 times,
# then sends all at once; of each answer it prints status, Retry-After, and the milliseconds to its headers.
CLIENT = r"""
import asyncio, sys, time
port, path, body, n = int(sys.argv[1]), sys.argv[2], sys.argv[3].encode(), int(sys.argv[4])
head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
data = f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
async def ask(reader, writer):
    started = time.perf_counter()
    writer.write(data)
    raw = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    ms = (time.perf_counter() - started) * 1000
    retry = raw.partition("retry-after: ")[2].partition("\r\n")[0] or "-"
    print(raw.split()[1], retry, ms, flush=True)
    await reader.read()
    writer.close()
async def main():
    pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(n)]
    await asyncio.gather(*(ask(*pair) for pair in pairs))
asyncio.run(main())
"""


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
async def test_500_requests_at_once_are_answered_or_told_to_come_back(
    engine: Any, library: Any, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.chat.gate = asyncio.Event()
    gc.collect()  # the garbage of other tests is not the server's
    body = json.dumps({**QUESTION, "input": "How many vacation days carry over?"})
    async with running(engine, library, queue_limit=64) as served:
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CLIENT, str(served.port), path, body, "500", stdout=asyncio.subprocess.PIPE
        )
        assert client.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            answers = [(await client.stdout.readline()).split() for _ in range(436)]
            engine.chat.gate.set()  # until now nobody was answered
            answers += [line.split() for line in (await client.stdout.read()).splitlines()]
            assert await client.wait() == 0
        await until(lambda: served.service.admission.n_inside == 0)
    assert sorted(answer[0] for answer in answers) == [b"200"] * 64 + [b"429"] * 436
    refused = [answer for answer in answers if answer[0] == b"429"]
    assert all(int(retry) > 0 for _, retry, _ in refused)
    times = sorted(float(ms) for _, _, ms in refused)
    with capsys.disabled():
        print(f"\n  {path}: refusals median {times[218]:.1f} ms, p99 {times[431]:.1f} ms")


# 7: cancellation


async def test_cancelled_requests_free_everything_and_harm_no_others(engine: Any, library: Any) -> None:
    draw = random.Random(7)
    async with running(engine, library, queue_limit=600) as served:
        for _ in range(3):
            await _round_of_cancellations(served, engine, draw)


async def _round_of_cancellations(served: Running, engine: Any, draw: random.Random) -> None:
    engine.chat.gate = asyncio.Event()
    engine.chat.generations.clear()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=DEADLINE_S, limits=limits) as client:

        async def ask(number: int) -> str:
            body = {**QUESTION, "stream": number % 2 == 0}
            return (await client.post(f"{served.url}/v1/chat/completions", json=body)).text

        asked = [asyncio.create_task(ask(number)) for number in range(100)]
        left = draw.sample(asked, 60)
        early, late = left[:20], left[20:]
        for task in early:  # wherever they are: not yet sent, searching, queued
            task.cancel()
        await until(lambda: len(engine.chat.generations) >= 80)
        for task in late:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await until(lambda: served.service.admission.n_inside == 40)
        engine.chat.gate.set()
        others = await asyncio.gather(*(task for task in asked if task not in left))
    assert all("five vacation days" in _text(answer) for answer in others)
    await until(lambda: served.service.admission.n_inside == 0)
    await until(lambda: all(generation.cancelled.is_set() for generation in engine.chat.generations))


def _text(answer: str) -> str:
    if not answer.startswith("data: "):
        return str(json.loads(answer)["choices"][0]["message"]["content"])
    chunks = [json.loads(line[6:]) for line in answer.split("\n\n") if line.startswith("data: {")]
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


# Slow clients


async def test_headers_that_do_not_end_are_cut_off(engine: Any, library: Any) -> None:
    async with running(engine, library, patience=Patience(headers_s=0.2)) as served:
        silent = await asyncio.open_connection("127.0.0.1", served.port)
        slow = await asyncio.open_connection("127.0.0.1", served.port)
        slow[1].write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
        for reader, writer in (silent, slow):
            async with asyncio.timeout(DEADLINE_S):
                with suppress(ConnectionResetError):
                    assert await reader.read() == b""
            writer.close()
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{served.url}/health")).status_code == 200


async def test_endless_headers_are_cut_off(engine: Any, library: Any) -> None:
    async with running(engine, library, patience=Patience(header_bytes=4096)) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        async with asyncio.timeout(DEADLINE_S):
            with suppress(ConnectionError):
                while not reader.at_eof():
                    writer.write(b"X: " + b"x" * 1000 + b"\r\n")
                    await writer.drain()
                    await asyncio.sleep(0)
        writer.close()


async def test_body_that_does_not_come_on_is_given_up(engine: Any, library: Any) -> None:
    async with running(engine, library, body_timeout_s=0.2) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        head = b"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{"
        writer.write(head)
        async with asyncio.timeout(DEADLINE_S):
            answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400")
        writer.close()


async def test_answer_that_nobody_reads_is_cut_off(engine: Any, library: Any) -> None:
    engine.chat.reply = "word " * 400_000
    async with running(engine, library, patience=Patience(stalled_s=0.3), answer_tokens=1 << 19) as served:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1)
        data = json.dumps({**QUESTION, "model": "parrot", "stream": True}).encode()
        engine.chat.context_length = 1 << 20
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(data)}\r\n"
        writer.write(f"{head}Content-Type: application/json\r\n\r\n".encode() + data)
        await until(lambda: bool(engine.chat.generations))
        await until(lambda: served.service.admission.n_inside == 0)
        assert engine.chat.generations[0].cancelled.is_set()
        assert engine.chat.generations[0].n_completion_tokens < 400_000
        writer.close()


async def test_connections_are_bounded(engine: Any, library: Any) -> None:
    async with running(engine, library, patience=Patience(n_connections=3)) as served:
        held = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(3)]
        await until(lambda: len(served.server.server_state.connections) == 3)
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        for _, other in (*held, (None, writer)):
            other.close()


# 16: the end


@pytest.mark.parametrize(
    ("finishes", "ending"),
    [pytest.param(True, "stop", id="in time"), pytest.param(False, "shutting_down", id="ended")],
)
async def test_stop_under_8_streams_ends_each_with_a_last_word(
    engine: Any, library: Any, finishes: bool, ending: str
) -> None:
    engine.chat.gate = asyncio.Event()
    async with (
        running(engine, library, grace_s=5.0 if finishes else 0.3) as served,
        httpx.AsyncClient(timeout=DEADLINE_S) as client,
    ):

        async def ask(*, stream: bool) -> httpx.Response:
            body = {**QUESTION, "stream": stream}
            return await client.post(f"{served.url}/v1/chat/completions", json=body)

        streams = [asyncio.create_task(ask(stream=True)) for _ in range(8)]
        whole = asyncio.create_task(ask(stream=False))
        responses = asyncio.create_task(
            client.post(
                f"{served.url}/v1/responses", json={"model": "quarry", "input": "vacation", "stream": True}
            )
        )
        await until(lambda: len(engine.chat.generations) >= 10)
        served.server.should_exit = True
        await until(lambda: not served.server.servers or not served.server.servers[0].is_serving())
        async with httpx.AsyncClient() as other:
            with pytest.raises(httpx.TransportError):
                await other.get(f"{served.url}/ready")
        if finishes:
            engine.chat.gate.set()
        for answer in await asyncio.gather(*streams):
            lines = [line for line in answer.text.split("\n\n") if line]
            assert lines[-1] == "data: [DONE]"
            last = json.loads(lines[-2].removeprefix("data: "))
            told = last["error"]["code"] if "error" in last else last["choices"][0]["finish_reason"]
            assert told == ending
        assert (await whole).status_code == (200 if finishes else 503)
        kind = "completed" if finishes else "failed"
        assert (await responses).text.rstrip().rpartition("event: response.")[2].startswith(kind)


async def test_nothing_new_is_let_in_at_the_end(engine: Any, library: Any) -> None:
    app = create_app(Settings(), engine=engine, library=library)
    app.state.service.shutdown.begin()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        for path in ("/ready", "/v1/models"):
            response = await client.get(path)
            assert (response.status_code, response.json()["error"]["code"]) == (503, "shutting_down")
            assert response.headers["retry-after"]
        assert (await client.get("/health")).status_code == 200


# 19: malformed uploads


def _malformed(draw: random.Random) -> tuple[bytes, str]:
    """Break a multipart body somewhere."""
    boundary = b"frontier"
    name = bytes(draw.choice(b'abc.md"\\\r\n\x00\xff%/;=') for _ in range(draw.randint(0, 30)))
    head = b'--%b\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n' % (boundary, name)
    purpose = b'--%b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nassistants\r\n' % boundary
    body = bytearray(purpose + head + b"\r\nsome text\r\n--" + boundary + b"--\r\n")
    for _ in range(draw.randint(0, 3)):
        place = draw.randrange(len(body))
        kind = draw.randrange(3)
        if kind == 0:
            body[place] = draw.randrange(256)
        elif kind == 1:
            del body[place : place + draw.randint(1, 40)]
        else:
            body[place:place] = bytes(draw.randrange(256) for _ in range(draw.randint(1, 40)))
        body = body or bytearray(b"-")
    declared = draw.choice(["frontier", "frontier", "frontier", "other", "", '"', "x" * 300])
    return bytes(body), f"multipart/form-data; boundary={declared}"


# Starlette leaves the parts of a broken form to the garbage collector.
@pytest.mark.filterwarnings("ignore:.*SpooledTemporaryFile:pytest.PytestUnraisableExceptionWarning")
async def test_malformed_uploads_are_never_the_servers_fault(
    engine: Any, library: Any, tmp_path: Path
) -> None:
    draw = random.Random(19)
    settings = Settings(data_dir=tmp_path / "data", documents_dir=tmp_path / "documents")
    app = create_app(settings, engine=engine, library=library)
    seen: dict[int, int] = {}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        for _ in range(1000):
            body, kind = _malformed(draw)
            response = await client.post("/v1/files", content=body, headers={"content-type": kind})
            assert response.status_code < 500, (body, kind, response.text)
            if response.status_code != 200:
                assert set(response.json()["error"]) == {"message", "type", "param", "code"}
            seen[response.status_code] = seen.get(response.status_code, 0) + 1
    assert seen[200] > 30
    assert seen[400] > 200
    written = {path.parent.name for path in await asyncio.to_thread(lambda: list(tmp_path.rglob("*.*")))}
    assert written <= {"uploads", "data"}


# 20: ids, logs, metrics


@pytest.fixture(params=[pytest.param(False, id="lines"), pytest.param(True, id="json")])
def log_lines(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[[], str]]:
    """Return what the service has written into its log."""
    configure_logging("info", as_json=request.param)
    yield lambda: capsys.readouterr().err
    structlog.reset_defaults()


async def test_no_word_of_documents_or_prompts_is_logged(
    engine: Any, library: Any, tmp_path: Path, log_lines: Callable[[], str]
) -> None:
    secrets = ("xylophonic", "zephyrous", "quixotry")
    library.put("secret.md", "The xylophonic marmot sleeps for zephyrous reasons.")
    settings = Settings(data_dir=tmp_path / "data", documents_dir=tmp_path / "documents")
    app = create_app(settings, engine=engine, library=library)
    ids = []
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        question = "Does the xylophonic marmot sleep? quixotry"
        chat = {"model": "quarry", "messages": [{"role": "user", "content": question}]}
        requests: list[tuple[str, dict[str, Any]]] = [
            ("/v1/chat/completions", chat),
            ("/v1/chat/completions", {**chat, "stream": True}),
            ("/v1/chat/completions", {**chat, "temperature": question}),
            ("/v1/responses", {"model": "quarry", "input": question}),
            ("/v1/completions", {"model": "parrot", "prompt": question}),
            ("/v1/embeddings", {"model": "word-bag", "input": question * 30}),
            ("/v1/library/search", {"query": question}),
            ("/v1/tokenize", {"prompt": question}),
        ]
        for round_ in range(2):
            for path, body in requests:
                headers = {"x-request-id": f"mine-{round_}-{len(ids)}"}
                response = await client.post(path, json=body, headers=headers)
                assert response.headers["x-request-id"] == headers["x-request-id"]
                if response.status_code >= 400:
                    assert response.json()["request_id"] == headers["x-request-id"]
                ids.append(headers["x-request-id"])
            engine.chat.fails_after = 1  # the second time everything goes wrong, with a traceback in the log
    log = log_lines()
    assert "Traceback" in log
    assert [secret for secret in secrets if secret in log] == []
    assert [request_id for request_id in ids if request_id not in log] == []


async def test_metrics_count_what_operators_ask_for(engine: Any, library: Any) -> None:
    app = create_app(Settings(), engine=engine, library=library)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        await client.post("/v1/chat/completions", json=QUESTION)
        await client.post("/v1/chat/completions", json={**QUESTION, "n": 99})
        await client.get(f"/v1/models/{'x' * 100}")
        text = (await client.get("/metrics")).text
    for line in (
        "quarry_requests_running 2.0",
        "quarry_requests_waiting 1.0",
        "quarry_queue_seconds_count 1.0",
        "quarry_time_to_first_token_seconds_count 1.0",
        "quarry_search_seconds_count 1.0",
        "quarry_prompt_tokens_total 100.0",
        "quarry_completion_tokens_total 20.0",
        "quarry_kv_blocks_used 2.0",
        "quarry_ingest_backlog 0.0",
        'quarry_failures_total{code="unsupported_parameter"} 1.0',
        'quarry_requests_total{route="/chat/completions",status="400"} 1.0',
        'quarry_requests_total{route="/models/{name:path}",status="404"} 1.0',
    ):
        assert line in text
