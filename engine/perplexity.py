"""Perplexity: how surprised a model is by a text, the way that llama.cpp's perplexity tool counts it.

The text is cut into chunks of n_ctx tokens, each on its own, with BOS in the place of its first token where
the model wants one. The tokens of the second half of a chunk are scored: they have half a chunk before them.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine import _native
from engine.errors import ContextTooLong, UnsupportedModel
from engine.importance import write_importance
from engine.tokenizer import Tokenizer, load_tokenizer

N_CTX = 512


@dataclass(frozen=True, slots=True)
class Perplexity:
    """The exponential of the mean surprise, and its standard error."""

    value: float
    error: float
    n_scored: int
    """Tokens that were scored."""
    n_chunks: int


class PerplexityProgress(Protocol):
    """Hears how many chunks are done, of how many, and the perplexity so far."""

    def __call__(self, done: int, total: int, so_far: float, /) -> None: ...


def measure_perplexity(
    model: Path,
    text: str,
    *,
    n_ctx: int = N_CTX,
    max_chunks: int | None = None,
    n_threads: int | None = None,
    progress: PerplexityProgress | None = None,
) -> Perplexity:
    """Measure a decoder on a text. Raises: UnsupportedModel, ContextTooLong (text or model too short)."""
    with _opened(model, n_ctx, n_threads) as (decoder, tokenizer, _):
        chunks = cut_chunks(tokenizer, text, n_ctx, max_chunks)
        logprobs: list[NDArray[np.float64]] = []
        for i, chunk in enumerate(chunks):
            logprobs.append(decoder.next_logprobs(chunk, n_ctx // 2).astype(np.float64))
            if progress is not None:
                progress(i + 1, len(chunks), summarize(np.concatenate(logprobs), i + 1).value)
    return summarize(np.concatenate(logprobs), len(chunks))


def summarize(logprobs: NDArray[np.float64], n_chunks: int) -> Perplexity:
    """Turn the logarithms of probabilities into perplexity and its standard error."""
    n = len(logprobs)
    mean = -float(logprobs.mean())
    variance = max(0.0, float((logprobs**2).mean()) - mean**2)
    value = math.exp(mean)
    return Perplexity(value, value * math.sqrt(variance / max(1, n - 1)), n, n_chunks)


def cut_chunks(
    tokenizer: Tokenizer, text: str, n_ctx: int, max_chunks: int | None
) -> list[NDArray[np.int32]]:
    """Cut a text into whole chunks. Raises: ContextTooLong where it has fewer than two."""
    ids = np.array(tokenizer.encode(text, add_special=True), np.int32)
    if len(ids) < 2 * n_ctx:
        raise ContextTooLong(
            f"the text has {len(ids)} tokens; two chunks of {n_ctx} need {2 * n_ctx}. Take a longer text, or "
            "shorter chunks (--context)"
        )
    n_chunks = len(ids) // n_ctx
    chunks = ids[: n_chunks * n_ctx].reshape(n_chunks, n_ctx)[:max_chunks].copy()
    put_first = tokenizer.encode("")[:1]
    if put_first and put_first == [tokenizer.bos_id]:
        chunks[:, 0] = put_first
    return list(chunks)


def collect_importance(
    model: Path,
    text: str,
    out: Path,
    *,
    text_name: str,
    n_ctx: int = N_CTX,
    max_chunks: int | None = None,
    n_threads: int | None = None,
    progress: PerplexityProgress | None = None,
) -> Perplexity:
    """Write the importance matrix of a model on a text, as llama.cpp's imatrix tool does: matrices of layers.

    Return the perplexity over the same chunks. Raises: as measure_perplexity; DiskFull, OSError.
    """
    with _opened(model, n_ctx, n_threads) as (decoder, tokenizer, pool):
        chunks = cut_chunks(tokenizer, text, n_ctx, max_chunks)
        collector = _native.ImportanceCollector()
        pool.observe(collector)
        logprobs: list[NDArray[np.float64]] = []
        for i, chunk in enumerate(chunks):
            logprobs.append(decoder.next_logprobs(chunk, n_ctx // 2).astype(np.float64))
            if progress is not None:
                progress(i + 1, len(chunks), summarize(np.concatenate(logprobs), i + 1).value)
        pool.observe(None)
    sums, counts = {}, {}
    for name, width, squares, seen in collector.sums():
        if name.startswith("blk."):
            sums[name] = np.array(squares, np.float64).reshape(-1, width)
            counts[name] = np.array(seen, np.int64)
    write_importance(out, sums, counts, text_name=text_name, n_chunks=len(chunks), chunk_tokens=n_ctx)
    return summarize(np.concatenate(logprobs), len(chunks))


@contextmanager
def _opened(
    model: Path, n_ctx: int, n_threads: int | None
) -> Iterator[tuple[_native.Decoder, Tokenizer, _native.ThreadPool]]:
    pool = _native.ThreadPool(n_threads or os.cpu_count() or 1)
    try:
        file = _native.GgufFile(str(model))
        decoder = _native.Decoder(file, pool, cache_tokens=n_ctx)
    except _native.GgufError as e:
        raise UnsupportedModel(f"{model} cannot be measured: {e}") from e
    if n_ctx > decoder.context_length:
        raise ContextTooLong(
            f"{model.name} reads {decoder.context_length} tokens; chunks have {n_ctx}. "
            f"Say --context {decoder.context_length}"
        )
    yield decoder, load_tokenizer(file), pool
