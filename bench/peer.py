"""The peers' worker: llama.cpp and onnxruntime. Run as `python -m bench.peer` in the peers' environment."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from bench import llama, onnx_encoder, prompts
from bench.worker import peak_resident_bytes, serve

N_THREADS = int(sys.argv[1]) if len(sys.argv) > 1 else os.cpu_count() or 1


class Models:
    """Keeps one model file loaded, once in each setting asked for, so that a turn measures no loading."""

    def __init__(self) -> None:
        self._path = ""
        self._models: dict[llama.Settings, llama.Llama] = {}
        self._encoders: dict[str, onnx_encoder.OnnxEncoder] = {}

    def get(self, path: str, settings: llama.Settings) -> llama.Llama:
        if path != self._path:
            self.drop()
            self._path = path
        if settings not in self._models:
            self._models[settings] = llama.Llama(path, settings)
        return self._models[settings]

    def onnx(self, path: str, settings: dict[str, Any]) -> onnx_encoder.OnnxEncoder:
        if path != self._path:
            self.drop()
            self._path = path
        how = f"{settings['engine']} {settings.get('per_channel', False)}"
        if how not in self._encoders:
            self._encoders[how] = onnx_encoder.OnnxEncoder(
                Path(path),
                int8=settings["engine"].endswith("int8"),
                per_channel=settings.get("per_channel", False),
                n_threads=N_THREADS,
            )
        return self._encoders[how]

    def drop(self) -> None:
        for model in self._models.values():
            model.close()
        self._models.clear()
        self._encoders.clear()


def prefill(models: Models, request: dict[str, Any]) -> float:
    """Return prompt tokens a second of one prompt, from nothing to its next token."""
    n = request["n_tokens"]
    model = models.get(request["model"], settings(request, n_ctx=n + 64, n_batch=n))
    ids = prompts.token_ids(n, model.n_vocab)
    model.clear()
    model.fill([(token, i, 0, i == n - 1) for i, token in enumerate(ids)])
    start = perf_counter()
    model.run()
    model.output(-1).argmax()
    return float(n / (perf_counter() - start))


def decode(models: Models, request: dict[str, Any]) -> float:
    """Return the tokens a second of greedy decoding, all sequences together."""
    n_sequences = request["n_sequences"]
    n_context, n_tokens = request["n_context"], request["n_tokens"]
    n_ctx = n_sequences * (n_context + n_tokens + 64)
    model = models.get(request["model"], settings(request, n_ctx=n_ctx, n_sequences=n_sequences))
    model.clear()
    last = [
        model.prefill(prompts.token_ids(n_context, model.n_vocab, seed=s), sequence=s)
        for s in range(n_sequences)
    ]
    start = perf_counter()
    for i in range(n_tokens):
        model.feed([(token, n_context + i, s, True) for s, token in enumerate(last)])
        last = [int(model.output(s).argmax()) for s in range(n_sequences)]
    return float(n_sequences * n_tokens / (perf_counter() - start))


def embed(models: Models, request: dict[str, Any]) -> float:
    """Return tokens a second of embedding passages, `per_call` of them in one call."""
    n, per_call = request["n_tokens"], request["settings"]["per_call"]
    if "engine" in request["settings"]:
        encoder = models.onnx(request["model"], request["settings"])
        ids = [prompts.token_ids(n, encoder.n_vocab, seed=s) for s in range(request["n_passages"])]
        start = perf_counter()
        for at in range(0, len(ids), per_call):
            encoder.encode(ids[at : at + per_call])
        return float(n * len(ids) / (perf_counter() - start))
    chosen = settings(
        request, n_ctx=per_call * n, n_batch=per_call * n, n_sequences=per_call, embeddings=True
    )
    model = models.get(request["model"], chosen)
    passages = [prompts.token_ids(n, model.n_vocab, seed=s) for s in range(request["n_passages"])]
    start = perf_counter()
    for at in range(0, len(passages), per_call):
        model.embed(passages[at : at + per_call])
    return float(n * len(passages) / (perf_counter() - start))


def vectors(models: Models, request: dict[str, Any]) -> list[list[float]]:
    """Return onnxruntime's normalised vectors of the passages."""
    encoder = models.onnx(request["model"], request["settings"])
    n = request["n_tokens"]
    found = encoder.encode(
        [prompts.token_ids(n, encoder.n_vocab, seed=s) for s in range(request["n_passages"])]
    )
    lists: list[list[float]] = (found / np.linalg.norm(found, axis=1, keepdims=True)).tolist()
    return lists


def chats(models: Models, request: dict[str, Any]) -> float:
    """Return the seconds until the last of several chats that come at once has its answer.

    "together": every prompt, then all answers in one batch; else one chat after the other.
    """
    asked = dict(request["settings"])
    together = asked.pop("together")
    n_chats, n_prompt, n_tokens = request["n_chats"], request["n_prompt"], request["n_tokens"]
    n_sequences = n_chats if together else 1
    chosen = settings(
        {"settings": asked},
        n_ctx=n_sequences * (n_prompt + n_tokens + 48),
        n_sequences=n_sequences,
        unified_cache=False,
    )
    model = models.get(request["model"], chosen)
    if request.get("warm"):
        n_chats, n_prompt, n_tokens = 1, 64, 2
    prompt_ids = [prompts.token_ids(n_prompt, model.n_vocab, seed=s) for s in range(n_chats)]
    model.clear()
    start = perf_counter()
    last: list[int] = []
    for s, ids in enumerate(prompt_ids):
        if together:
            last.append(model.prefill(ids, sequence=s))
            continue
        model.clear()
        token = model.prefill(ids)
        for i in range(n_tokens - 1):
            model.feed([(token, n_prompt + i, 0, True)])
            token = int(model.output(0).argmax())
    for i in range(n_tokens - 1 if together else 0):
        model.feed([(token, n_prompt + i, s, True) for s, token in enumerate(last)])
        last = [int(model.output(s).argmax()) for s in range(n_chats)]
    return perf_counter() - start


def load(models: Models, request: dict[str, Any]) -> float:
    """Return the seconds from nothing to the first token after a short prompt."""
    models.drop()
    start = perf_counter()
    model = llama.Llama(request["model"], settings(request))
    model.prefill(prompts.token_ids(16, model.n_vocab))
    seconds = perf_counter() - start
    model.close()
    return seconds


def memory(models: Models, request: dict[str, Any]) -> float:
    """Return the process's peak in bytes after one prompt; ask a fresh worker."""
    prefill(models, request)
    return float(peak_resident_bytes())


def settings(request: dict[str, Any], **fixed: Any) -> llama.Settings:
    asked = {key: value for key, value in request["settings"].items() if key != "per_call"}
    return llama.Settings(n_threads=N_THREADS, **fixed, **asked)


def main() -> None:
    llama.start()
    models = Models()
    measures = {
        "prefill": prefill,
        "decode": decode,
        "embed": embed,
        "chats": chats,
        "load": load,
        "memory": memory,
    }

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if request["do"] == "describe":
            return {
                "llama-cpp-python": importlib.metadata.version("llama-cpp-python"),
                "onnxruntime": importlib.metadata.version("onnxruntime"),
                "numpy": np.__version__,
                "build": llama.system_info(),
                "n_threads": N_THREADS,
            }
        if request["do"] == "quantize":
            source, target = Path(request["source"]), Path(request["target"])
            llama.quantize(source, target, request["type"], n_threads=N_THREADS)
            return {}
        if request["do"] == "vectors":
            return {"vectors": vectors(models, request)}
        if request["do"] == "drop":
            models.drop()
            return {}
        return {"value": measures[request["do"]](models, request)}

    serve(answer)


if __name__ == "__main__":
    main()
