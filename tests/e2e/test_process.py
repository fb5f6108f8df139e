"""`quarry serve` as a process of its own, with the starter models: many clients, those that leave, the end.

`make test` runs the crowd short; `make soak` the whole: 500 streams, 300 of them cut off, ten rounds.
"""

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.rag.test_cli import RUN, environment
from tests.running import free_port

IS_WHOLE = bool(os.environ.get("QUARRY_SOAK"))
N_STREAMS, N_ROUNDS = (500, 10) if IS_WHOLE else (60, 3)
FREED_WITHIN_S = 2.0
GROWTH_BYTES = 32 << 20  # between the second round and the last
GRACE_S = 2.0
DEADLINE_S = 300.0
# Ids of SmolLM2 that end an answer.
NEVER_ENDS = {"0": -100, "2": -100}


@dataclass(frozen=True)
class Process:
    """A service that runs, and where."""

    process: subprocess.Popen[bytes]
    port: int
    chat_name: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def chat(self, text: str, **more: Any) -> bytes:
        """Write a request for a chat without documents."""
        body = json.dumps(
            {
                "model": self.chat_name,
                "messages": [{"role": "user", "content": text}],
                "temperature": 0,
                **more,
            }
        ).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        return f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@contextmanager
def serving(folder: Path, models: Path, **settings: str) -> Iterator[Process]:
    """Start the command and wait until it is ready; whoever uses it may have ended it."""
    port = free_port()
    (folder / "documents").mkdir(exist_ok=True)
    key = settings.get("api_keys", "any").partition(",")[0]
    own = environment(port=str(port), models_dir=str(models), log_level="error", **settings)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*RUN, "serve"], cwd=folder, env=own, stdout=log, stderr=log)
        try:
            names = [name["id"] for name in _when_ready(process, port, key)]
            yield Process(process, port, next(name for name in names if name.startswith("smollm2")))
        finally:
            process.kill()
            process.wait()


def _when_ready(process: subprocess.Popen[bytes], port: int, key: str) -> list[dict[str, Any]]:
    deadline = time.monotonic() + DEADLINE_S
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(httpx.TransportError):
                if client.get("/ready").status_code == 200:
                    models: list[dict[str, Any]] = client.get("/v1/models").json()["data"]
                    return models
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
    raise AssertionError(f"the service is not ready; it ended with {process.poll()}")


# 7: cancellation


async def ask(service: Process, i: int) -> bytes | None:
    """Ask, and read to the end or leave: at once, while it waits, after the first words, before an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    try:
        stage, text = i % 5, f"{i} " + "word " * (150 if i % 5 == 1 else 5)
        n_tokens = 4 if stage >= 3 else 100
        request = service.chat(text, stream=stage != 2, max_tokens=n_tokens, logit_bias=NEVER_ENDS)
        writer.write(request)
        await writer.drain()
        if stage == 0:
            await reader.readuntil(b"\r\n\r\n")
            await reader.readuntil(b'"content":"')
            return None
        if stage in (1, 2):
            await asyncio.sleep(0.05 * (i % 40))
            return None
        return await reader.read()
    finally:
        writer.close()


async def is_idle(client: httpx.AsyncClient) -> bool:
    text = (await client.get("/metrics")).text
    wanted = ("quarry_requests_running 0.0", "quarry_requests_waiting 0.0", "quarry_kv_blocks_used 0.0")
    return all(line in text for line in wanted)


@pytest.mark.timeout(3600 if IS_WHOLE else 300)
async def test_clients_that_leave_free_everything(
    tmp_path: Path, starter_models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A small cache is full, and so in memory, after the first round.
    own = {"queue_limit": str(N_STREAMS + 10), "cache_tokens": "4096"}
    with serving(tmp_path, starter_models, **own) as service:
        resident, freed = [], []
        async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
            for _ in range(N_ROUNDS):
                answers = await asyncio.gather(*(ask(service, i) for i in range(N_STREAMS)))
                whole = [answer for answer in answers if answer is not None]
                assert len(whole) == N_STREAMS * 2 // 5
                assert all(b"data: [DONE]" in answer for answer in whole)
                assert not any(b'"error"' in answer for answer in whole)
                # All at once, in whatever they are doing.
                left = [
                    await asyncio.open_connection("127.0.0.1", service.port)
                    for _ in range(N_STREAMS * 3 // 5)
                ]
                for i, (_, writer) in enumerate(left):
                    writer.write(
                        service.chat(f"{i} word", stream=i % 2 == 0, max_tokens=200, logit_bias=NEVER_ENDS)
                    )
                await asyncio.sleep(0.5)
                started = time.perf_counter()
                for _, writer in left:
                    writer.close()
                while not await is_idle(client):
                    assert time.perf_counter() - started < FREED_WITHIN_S * 5
                    await asyncio.sleep(0.02)
                freed.append(time.perf_counter() - started)
                resident.append(service.resident_bytes)
    with capsys.disabled():
        megabytes = [round(n / (1 << 20)) for n in resident]
        print(f"\n  freed within {max(freed):.2f} s; resident after each round: {megabytes} MiB")
    assert max(freed) < FREED_WITHIN_S
    assert resident[-1] - resident[1] < GROWTH_BYTES


# 16: the end


async def read_on(reader: asyncio.StreamReader) -> list[dict[str, Any]]:
    """Read a stream to its end; its events, the last of which must be [DONE]."""
    lines = [line for line in (await reader.read()).split(b"\n") if line.startswith(b"data: ")]
    assert lines[-1] == b"data: [DONE]"
    return [json.loads(line[6:]) for line in lines[:-1]]


@pytest.mark.parametrize(
    ("n_tokens", "ending"),
    [pytest.param(48, "length", id="in time"), pytest.param(1500, "shutting_down", id="ended")],
)
async def test_sigterm_under_8_streams(
    tmp_path: Path, starter_models: Path, n_tokens: int, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    grace = GRACE_S if ending == "shutting_down" else 60.0
    with serving(tmp_path, starter_models, stop_grace_s=str(grace), cache_tokens="16384") as service:
        streams = []
        for i in range(8):
            reader, writer = await asyncio.open_connection("127.0.0.1", service.port, limit=1 << 24)
            writer.write(
                service.chat(f"Count from {i}.", stream=True, max_tokens=n_tokens, logit_bias=NEVER_ENDS)
            )
            streams.append((reader, writer))
        for reader, _ in streams:
            await reader.readuntil(b'"content":"')
        kept = await asyncio.open_connection("127.0.0.1", service.port)  # a client that is connected already
        kept[1].write(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await kept[0].readuntil(b"}")
        started = time.perf_counter()
        service.process.send_signal(signal.SIGTERM)
        await until_unready(service)
        unready = time.perf_counter() - started
        with suppress(ConnectionError):
            kept[1].write(service.chat("Hello"))
            refused = await kept[0].read()
            assert refused == b"" or (b" 503 " in refused and b"shutting_down" in refused)
        for reader, writer in streams:
            last = (await read_on(reader))[-1]
            told = last["error"]["code"] if "error" in last else last["choices"][0]["finish_reason"]
            assert told == ending
            writer.close()
        kept[1].close()
        assert await asyncio.to_thread(service.process.wait, DEADLINE_S) == 0
        ended = time.perf_counter() - started
    with capsys.disabled():
        print(f"\n  unready after {unready * 1000:.0f} ms, ended after {ended:.2f} s")
    assert "Stopped." in (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()


async def until_unready(service: Process) -> None:
    """Ask until nobody answers, or the answer is that the service ends."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                async with httpx.AsyncClient(base_url=service.url) as client:
                    if (await client.get("/ready")).status_code == 503:
                        return
            except httpx.TransportError:
                return


# 5: keys


async def test_beginnings_of_prompts_are_shared_within_a_key_only(
    tmp_path: Path, starter_models: Path
) -> None:
    """The cache that keeps them is no way to learn what others asked."""
    with serving(tmp_path, starter_models, api_keys="alpha,beta") as service:
        async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:

            async def newly_read(key: str) -> tuple[int, int]:
                """Ask; count the tokens that were read, and those that the cache knew."""
                before = await counters(client)
                body = {
                    "model": service.chat_name,
                    "messages": [{"role": "user", "content": "The code of the vault is 4711. " * 30}],
                    "max_tokens": 1,
                }
                headers = {"Authorization": f"Bearer {key}"}
                reply = await client.post("/v1/chat/completions", json=body, headers=headers)
                assert reply.status_code == 200, reply.text
                after = await counters(client)
                return after[0] - before[0], after[1] - before[1]

            first, reused = await newly_read("alpha")
            assert (first > 200, reused) == (True, 0)
            assert await newly_read("beta") == (first, 0)
            again, reused = await newly_read("alpha")
            assert again < 20
            assert again + reused == first


async def counters(client: httpx.AsyncClient) -> tuple[int, int]:
    text = (await client.get("/metrics", headers={"Authorization": "Bearer alpha"})).text
    values = dict(line.split() for line in text.splitlines() if line.startswith("quarry_prompt_tokens"))
    return int(float(values["quarry_prompt_tokens_total"])), int(
        float(values["quarry_prompt_tokens_reused_total"])
    )
