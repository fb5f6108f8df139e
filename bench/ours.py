"""Our worker: measures Quarry's native engine. Run as `python -m bench.ours` in Quarry's environment."""

from __future__ import annotations

import os
import sys
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import conversations, prompts
from bench.worker import peak_resident_bytes, serve
from engine import _native as native

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_THREADS = int(sys.argv[1]) if len(sys.argv) > 1 else os.cpu_count() or 1
SLICE_TOKENS = 512
GREEDY = native.SamplingParams(temperature=0.0)


class Models:
    """Keeps the model that was asked for last, so that a turn measures no loading."""

    def __init__(self) -> None:
        self.pool = native.ThreadPool(N_THREADS)
        self._key: tuple[str, int] | None = None
        self._model: native.Decoder | native.Encoder | None = None

    def decoder(self, path: str, cache_tokens: int) -> native.Decoder:
        if self._key != (path, cache_tokens) or not isinstance(self._model, native.Decoder):
            self.drop()
            self._model = native.Decoder(native.GgufFile(path), self.pool, cache_tokens=cache_tokens)
            self._key = (path, cache_tokens)
        return self._model

    def encoder(self, path: str) -> native.Encoder:
        if self._key != (path, 0) or not isinstance(self._model, native.Encoder):
            self.drop()
            self._model = native.Encoder(native.GgufFile(path), self.pool)
            self._key = (path, 0)
        return self._model

    def drop(self) -> None:
        self._key = self._model = None


def _ids(n: int, n_vocab: int, *, seed: int = 0) -> NDArray[np.int32]:
    return np.array(prompts.token_ids(n, n_vocab, seed=seed), np.int32)


def _read_prompt(model: native.Decoder, sequence: native.Sequence, ids: NDArray[np.int32]) -> int:
    """Feed a prompt in slices; return the next token."""
    for at in range(0, len(ids), SLICE_TOKENS):
        last = at + SLICE_TOKENS >= len(ids)
        drawn = model.step([(sequence, ids[at : at + SLICE_TOKENS], int(last))])[0]
    return drawn[0].id


def prefill(models: Models, request: dict[str, Any]) -> float:
    """Return prompt tokens a second of one prompt, from nothing to its next token."""
    n = request["n_tokens"]
    model = models.decoder(request["model"], n + 64)
    ids = _ids(n, model.vocab_size)
    sequence = model.new_sequence(GREEDY)
    start = perf_counter()
    _read_prompt(model, sequence, ids)
    seconds = perf_counter() - start
    sequence.release()
    return float(n / seconds)


def decode(models: Models, request: dict[str, Any]) -> float:
    """Return the tokens a second of greedy decoding, all sequences together."""
    n_sequences = request["n_sequences"]
    n_context, n_tokens = request["n_context"], request["n_tokens"]
    model = models.decoder(request["model"], n_sequences * (n_context + n_tokens + 64))
    sequences = [model.new_sequence(GREEDY) for _ in range(n_sequences)]
    last = [
        _read_prompt(model, sequence, _ids(n_context, model.vocab_size, seed=s))
        for s, sequence in enumerate(sequences)
    ]
    start = perf_counter()
    for _ in range(n_tokens):
        rows = [(s, np.array([token], np.int32), 1) for s, token in zip(sequences, last, strict=True)]
        last = [drawn.id for (drawn,) in model.step(rows)]
    seconds = perf_counter() - start
    for sequence in sequences:
        sequence.release()
    return float(n_sequences * n_tokens / seconds)


def embed(models: Models, request: dict[str, Any]) -> float:
    """Return tokens a second of embedding passages in one batch."""
    n = request["n_tokens"]
    model = models.encoder(request["model"])
    passages = [_ids(n, model.vocab_size, seed=s) for s in range(request["n_passages"])]
    start = perf_counter()
    model.encode(passages)
    return float(n * len(passages) / (perf_counter() - start))


def load(models: Models, request: dict[str, Any]) -> float:
    """Return the seconds from nothing to the first token after a short prompt."""
    models.drop()
    start = perf_counter()
    model = native.Decoder(native.GgufFile(request["model"]), models.pool, cache_tokens=2048)
    _read_prompt(model, model.new_sequence(GREEDY), _ids(16, model.vocab_size))
    return perf_counter() - start


def memory(models: Models, request: dict[str, Any]) -> float:
    """Return the process's peak in bytes after one prompt; ask a fresh worker."""
    prefill(models, request)
    return float(peak_resident_bytes())


def vectors(models: Models, request: dict[str, Any]) -> list[list[float]]:
    """Return the normalised vectors of the passages."""
    model = models.encoder(request["model"])
    passages = [_ids(request["n_tokens"], model.vocab_size, seed=s) for s in range(request["n_passages"])]
    return model.encode(passages, normalize=True).tolist()


def main() -> None:
    models = Models()
    engines = conversations.Engines(N_THREADS)
    measures = {"prefill": prefill, "decode": decode, "embed": embed, "load": load, "memory": memory}

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if request["do"] == "describe":
            return {
                "instruction_set": models.pool.instruction_set,
                "types": list(native.type_names),
                "n_threads": N_THREADS,
            }
        if request["do"] == "peaks":
            return models.pool.peaks()
        if request["do"] == "vectors":
            return {"vectors": vectors(models, request)}
        if request["do"] == "drop":
            models.drop()
            return {}
        if request["do"] in conversations.MEASURES:
            models.drop()
            return conversations.MEASURES[request["do"]](engines, request)
        engines.drop()
        return {"value": measures[request["do"]](models, request)}

    serve(answer)


if __name__ == "__main__":
    main()
