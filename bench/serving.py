"""Rows about the service: what HTTP, retrieval and many clients cost on top of the engine."""

from __future__ import annotations

import contextlib
import json
import random
import selectors
import socket
import statistics
import sys
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from bench.product import write_documents
from bench.turns import Row
from bench.worker import BenchError, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

N_CHUNKS = 100_000
N_QUESTIONS, N_WARM = 40, 5
N_STREAMS, N_TOKENS, N_TURNS = 8, 256, 4
N_CROWD, N_IDLE = 32, 200
N_CROWD_TOKENS = 128
BARE = "the same engine without HTTP"
_ABOUT = (
    "a harbour at night", "how bread is baked", "the first railway", "rain in the mountains",
    "a letter to a friend", "what bees do in winter", "an old bridge", "learning to swim",
)  # fmt: skip


@dataclass(slots=True)
class Stream:
    """An answer that is being read: when its pieces of text came, in seconds."""

    connection: socket.socket
    sent: float
    times: list[float] = field(default_factory=list)
    n_tokens: int = 0
    held: bytes = b""
    is_over: bool = False

    def read(self) -> None:
        """Take what has come."""
        data = self.connection.recv(1 << 16)
        now = perf_counter()
        *lines, self.held = (self.held + data).split(b"\n")
        for line in lines:
            if not line.startswith(b"data: "):
                continue
            if line.startswith(b"data: [DONE]"):
                self.is_over = True
            elif b'"content":"' in line and b'"content":""' not in line:
                self.times.append(now)
            elif b'"completion_tokens":' in line:
                self.n_tokens = json.loads(line[6:])["usage"]["completion_tokens"]
        if not data and not self.is_over:
            raise BenchError(f"a stream broke off: {self.held[-300:]!r}")


def first_token(folder: Path, model: Path) -> list[Row]:
    """Ask questions of 100,000 chunks over HTTP, then the engine the same prompts; milliseconds added.

    Each prompt was read once before by either side, so that what is left is the service's own work; the
    question is embedded by hashing.
    """
    documents = folder / "documents"
    if not documents.exists():
        write_documents(documents, n_files=990, n_words=100)
    with _server(model, folder) as server:
        server.ask({"do": "reconcile"})
        n_chunks = server.ask({"do": "chunks"})["value"]
        if n_chunks < N_CHUNKS:
            raise BenchError(f"the library has {n_chunks} chunks; the row needs {N_CHUNKS}")
        port = server.ask({"do": "open"})["port"]
        added = []
        questions = _draw_questions(documents)
        while len(added) < N_QUESTIONS + N_WARM:
            body = _chat("quarry", next(questions), max_tokens=4, temperature=0)
            (stream,) = read_all(port, [body])
            if not stream.n_tokens:
                continue  # nothing was found, and no model wrote the answer
            served = _first_over_http(port, body)
            bare = server.ask({"do": "first"})["value"]
            added.append((served - bare) * 1e3)
    added = sorted(added[N_WARM:])
    return [
        Row("serve/first_token_added/p50_ms", statistics.median(added), None, None, "ms", None),
        Row("serve/first_token_added/p90_ms", added[len(added) * 9 // 10], None, None, "ms", None),
    ]


def streams(folder: Path, model: Path) -> list[Row]:
    """Let 8 clients stream side by side, and the engine write the same, in turns; tokens a second."""
    with _server(model, folder) as server:
        port, name, bias = (server.ask({"do": "open"})[key] for key in ("port", "model", "no_end"))
        asked = [f"Write about {about}." for about in _ABOUT[:N_STREAMS]]
        bodies = [_chat(name, text, max_tokens=N_TOKENS, temperature=0, logit_bias=bias) for text in asked]
        served, bare = [], []
        for _ in range(N_TURNS + 1):
            start = perf_counter()
            done = read_all(port, bodies, low_water=1 << 20)
            served.append(sum(stream.n_tokens for stream in done) / (perf_counter() - start))
            reply = server.ask({"do": "rate", "asked": asked, "n_tokens": N_TOKENS, "bias": bias})
            if reply["n_tokens"] != sum(stream.n_tokens for stream in done):
                raise BenchError(f"{reply['n_tokens']} tokens without HTTP are not those with it")
            bare.append(reply["value"])
    ours, peer = statistics.median(served[1:]), statistics.median(bare[1:])
    # Of neighbours: a machine that changes its pace changes that of both.
    ratio = statistics.median(a / b for a, b in zip(served[1:], bare[1:], strict=True))
    return [Row("serve/streams-8/tokens_per_s", ours, peer, BARE, "tokens/s", ratio)]


def gaps(folder: Path, model: Path) -> list[Row]:
    """Let 32 clients stream beside 200 that keep their connections and ask nothing; gaps between tokens."""
    with _server(model, folder) as server, contextlib.ExitStack() as closing:
        port, name, bias = (server.ask({"do": "open"})[key] for key in ("port", "model", "no_end"))
        for _ in range(N_IDLE):
            idle = closing.enter_context(socket.create_connection(("127.0.0.1", port)))
            idle.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            idle.recv(4096)
        bodies = [
            _chat(
                name,
                f"Write {number} words about {_ABOUT[number % len(_ABOUT)]}.",
                max_tokens=N_CROWD_TOKENS,
                temperature=0.7,
                seed=number,
                logit_bias=bias,
            )
            for number in range(N_CROWD)
        ]
        ratios, medians = [], []
        for _ in range(4):
            between = [
                (after - before) * 1e3
                for stream in read_all(port, bodies)
                for before, after in pairwise(stream.times)
            ]
            median, p99 = statistics.median(between), statistics.quantiles(between, n=100)[98]
            medians.append(median)
            ratios.append(p99 / median)
    return [
        Row("serve/gaps-32/median_ms", statistics.median(medians[1:]), None, None, "ms", None),
        Row("serve/gaps-32/p99_over_median", statistics.median(ratios[1:]), None, None, "times", None),
    ]


ROWS: dict[str, Callable[[Path, Path], list[Row]]] = {
    "serve/first_token_added": first_token,
    "serve/streams-8": streams,
    "serve/gaps-32": gaps,
}


def rows(cache: Path, model: Callable[[], Path]) -> dict[str, Callable[[], list[Row]]]:
    """Give the rows of this module by name, over folders in `cache`."""

    def run(measure: Callable[[Path, Path], list[Row]], folder: Path) -> list[Row]:
        return measure(folder, model())

    folders = {
        name: cache / ("serve-100k" if measure is first_token else "serve") for name, measure in ROWS.items()
    }
    return {name: partial(run, measure, folders[name]) for name, measure in ROWS.items()}


def read_all(port: int, bodies: Sequence[bytes], *, low_water: int = 1) -> list[Stream]:
    """Send all requests at once; read their streams to the end.

    Below `low_water` bytes a stream that goes on is not read: this reader leaves the machine to the server,
    as one that is elsewhere does.
    """
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as closing:
        opened = []
        for body in bodies:
            connection = closing.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, low_water)
            connection.sendall(body)
            opened.append(Stream(connection, perf_counter()))
            selector.register(connection, selectors.EVENT_READ, opened[-1])
        n_open = len(opened)
        while n_open:
            for key, _ in selector.select():
                stream: Stream = key.data
                stream.read()
                if stream.is_over:
                    selector.unregister(stream.connection)
                    n_open -= 1
    return opened


def _draw_questions(documents: Path) -> Iterator[str]:
    """Draw runs of words that stand somewhere, without end."""
    draw = random.Random(9)
    files = sorted(documents.iterdir())
    while True:
        words = draw.choice(files).read_text().replace("#", "").split()
        at = draw.randrange(len(words) - 12)
        yield " ".join(words[at : at + 12])


@contextlib.contextmanager
def _server(model: Path, folder: Path) -> Iterator[Worker]:
    with Worker(Path(sys.executable), "bench.server", str(model), str(folder)) as server:
        yield server


def _first_over_http(port: int, body: bytes) -> float:
    (stream,) = read_all(port, [body])
    if not stream.times:
        raise BenchError("an answer has no text")
    return stream.times[0] - stream.sent


def _chat(model: str, text: str, **more: object) -> bytes:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "stream": True,
        "stream_options": {"include_usage": True},
        **more,
    }
    data = json.dumps(body).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    length = f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    return (head + length).encode() + data
