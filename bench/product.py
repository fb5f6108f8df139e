"""Rows about the product rather than the kernels: retrieval, the native build, the second start."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Literal

import numpy as np

from bench.turns import Row
from bench.worker import ROOT, BenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

N_CHUNKS, N_QUERIES = 10_000, 500
_SYLLABLES = ("ba", "ce", "di", "fo", "gu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "zu")


def count_words(texts: Sequence[str]) -> list[int]:
    """Count words; stands in a module, so that it can be pickled."""
    return [len(text.split()) for text in texts]


@dataclass(frozen=True, slots=True)
class HashFingerprint:
    name: str
    dimension: int


class HashEmbedder:
    """Turns texts into vectors by hashing their words: real vectors for the indexes, and no model's time."""

    name = "hash-384"
    dimension = 384
    max_tokens = 512
    fingerprint = HashFingerprint("hash", 384)

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    @property
    def token_counter(self) -> Callable[[Sequence[str]], list[int]]:
        return count_words

    def embed(self, texts: Sequence[str], *, kind: Literal["document", "query"]) -> NDArray[np.float32]:  # noqa: ARG002 - the Protocol's
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in re.findall(r"\w+", text.lower()):
                code = zlib.crc32(word.encode())
                row[code % self.dimension] += 1.0 if code & 1 << 20 else -1.0
            row[0] += 1e-3  # the empty text has a direction, too
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def retrieve(folder: Path) -> list[Row]:
    """Search 10,000 chunks 500 times, dense and lexical, fused; milliseconds a query, no model."""
    from ingest.library import Library
    from rag.retriever import Retriever

    documents = folder / "documents"
    if not documents.exists():
        write_documents(documents, n_files=200, n_words=300)
    embedder = HashEmbedder()
    library = Library.open(folder / "data", documents_dir=documents, embedder=embedder)
    try:
        library.reconcile()
        n_chunks = sum(known.n_chunks for known in library.collections())
        if n_chunks < N_CHUNKS:
            raise BenchError(f"the library has {n_chunks} chunks; the row needs {N_CHUNKS}")
        retriever = Retriever(embedder=embedder, library=library)
        queries = draw_queries(N_QUERIES)
        for query in queries[:20]:
            retriever.search(query)
        times = []
        for query in queries:
            start = perf_counter()
            retriever.search(query)
            times.append((perf_counter() - start) * 1e3)
    finally:
        library.close()
    values = statistics.quantiles(times, n=100)
    return [
        Row("retrieve/10k/p50_ms", values[49], None, None, "ms", None),
        Row("retrieve/10k/p99_ms", values[98], None, None, "ms", None),
    ]


def build() -> list[Row]:
    """Build native/ from nothing with two jobs; seconds."""
    tools = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as folder:
        configure = [tools / "cmake", "-S", ROOT / "native", "-B", folder, "-G", "Ninja"]
        configure += [f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}", f"-DPython_EXECUTABLE={sys.executable}"]
        start = perf_counter()
        for command in (
            [*configure, "-DCMAKE_BUILD_TYPE=Release"],
            [tools / "cmake", "--build", folder, "--parallel", "2"],
        ):
            done = subprocess.run(
                [str(part) for part in command], capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                raise BenchError(f"native/ does not build: {(done.stderr or done.stdout)[-500:]}")
        seconds = perf_counter() - start
    return [Row("build/native_s", seconds, None, None, "s", None)]


def second_start(folder: Path, models: Path) -> list[Row]:
    """Start `quarry up` twice on starter models and documents; seconds until the second is ready."""
    documents = folder / "documents"
    if not documents.exists():
        shutil.copytree(ROOT / "documents", documents)
    _start_once(folder, models, limit_s=900)
    seconds = statistics.median(_start_once(folder, models, limit_s=60) for _ in range(3))
    return [Row("start/second_s", seconds, None, None, "s", None)]


def _start_once(folder: Path, models: Path, *, limit_s: float) -> float:
    """Start the service, wait until /ready says 200 and everything is ingested, stop it; return seconds."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "QUARRY_DATA_DIR": str(folder / "data"),
        "QUARRY_DOCUMENTS_DIR": str(folder / "documents"),
        "QUARRY_MODELS_DIR": str(models),
        "QUARRY_PORT": str(port),
    }
    with (folder / "quarry.log").open("w") as log:
        start = perf_counter()
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("quarry")), "up"],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
        )
        try:
            _wait_ready(process, port, start + limit_s, folder / "quarry.log")
            return perf_counter() - start
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def _wait_ready(process: subprocess.Popen[bytes], port: int, deadline: float, log: Path) -> None:
    while perf_counter() < deadline:
        if process.poll() is not None:
            raise BenchError(f"quarry up ended with status {process.returncode}: {log.read_text()[-500:]}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as reply:
                if reply.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            sleep(0.02)
    raise BenchError(f"quarry up is not ready in time: {log.read_text()[-500:]}")


def _words(draw: random.Random, n: int) -> str:
    """Draw words whose frequencies fall the way those of a language do."""
    return " ".join(word_of(int(draw.paretovariate(0.9)) % 20_000) for _ in range(n))


def word_of(number: int) -> str:
    """Return the word of a number, the same every time."""
    text = ""
    while number or not text:
        number, digit = divmod(number, len(_SYLLABLES))
        text += _SYLLABLES[digit]
    return text


def write_documents(folder: Path, *, n_files: int, n_words: int) -> None:
    """Write Markdown files of 51 sections, each long enough to be a chunk of its own."""
    draw = random.Random(7)
    unfinished = folder.with_name("documents.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for i in range(n_files):
        sections = [f"## {_words(draw, 3)}\n\n{_words(draw, n_words)}.\n" for _ in range(51)]
        (unfinished / f"document-{i:03}.md").write_text(f"# {_words(draw, 4)}\n\n" + "\n".join(sections))
    unfinished.rename(folder)


def draw_queries(n: int) -> list[str]:
    draw = random.Random(8)
    return [_words(draw, draw.randint(3, 9)) for _ in range(n)]
