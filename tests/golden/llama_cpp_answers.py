"""llama.cpp's side of the check_*.py: tokenizes, embeds, evaluates and quantises files.

Run by those scripts as `python -m tests.golden.llama_cpp_answers` in the peers' environment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench import llama
from bench.worker import serve

LEAST_ROWS = 32
"""Of a product that the BLAS backend takes; shorter inputs are filled up behind their end."""
FILLER = 0


def save_logits(request: dict[str, Any]) -> None:
    """Write the logits after every token of each sequence of `ids`, one below the other, to `out`.

    `exact` asks for F32 arithmetic, which only a build with the BLAS backend has.
    """
    if request["exact"] != llama.has_blas():
        raise ValueError("the BLAS build is for exact logits, and only they for it")
    exact = llama.Settings(n_threads=2, n_ubatch=2048, flash_attention=False, f32_cache=True, repack=False)
    model = llama.Llama(request["model"], exact if request["exact"] else llama.Settings(n_threads=2))
    rows = []
    for ids in request["ids"]:
        filled = ids + [FILLER] * (LEAST_ROWS - len(ids))
        rows.append(model.logits(filled, range(len(filled)))[: len(ids)])
    model.close()
    np.save(request["out"], np.concatenate(rows))


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Load the file, answer one question about it and close it."""
    if request["do"] == "vocabulary":
        return {"ids": llama.vocabulary_ids(request["model"], request["texts"])}
    if request["do"] == "save logits":
        save_logits(request)
        return {}
    if request["do"] == "quantize":
        columns = np.load(request["importance"]) if request.get("importance") else None
        llama.quantize(
            Path(request["model"]),
            Path(request["out"]),
            request["type"],
            n_threads=2,
            importance=None if columns is None else {name: columns[name] for name in columns.files},
        )
        return {}
    embeds = request["do"] in ("embed", "score")
    settings = llama.Settings(
        flash_attention=False, f32_cache=True, n_ctx=512, n_batch=512, embeddings=embeds
    )
    model = llama.Llama(request["model"], settings)
    try:
        if request["do"] == "tokenize":
            ids = [model.tokenize(text, add_special=True, parse_special=False) for text in request["texts"]]
            return {"ids": ids}
        if request["do"] == "score":
            return {"scores": [model.scores(ids) for ids in request["ids"]]}
        if embeds:
            return {"vectors": [model.embed([ids])[0].tolist() for ids in request["ids"]]}
        ids = request["ids"]
        return {"logits": model.logits(ids, range(len(ids))).tolist()}
    finally:
        model.close()


if __name__ == "__main__":
    llama.start()
    serve(answer)
