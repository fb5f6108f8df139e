"""llama.cpp's side of check_llama_cpp_loads.py: tokenizes, embeds and evaluates files that we wrote.

Run by that script as `python -m tests.golden.llama_cpp_answers` in the peers' environment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench import llama
from bench.worker import serve


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Load the file, answer one question about it and close it."""
    if request["do"] == "vocabulary":
        return {"ids": llama.vocabulary_ids(request["model"], request["texts"])}
    if request["do"] == "quantize":
        llama.quantize(Path(request["model"]), Path(request["out"]), request["type"], n_threads=1)
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
