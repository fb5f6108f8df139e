"""Write perplexity.json: the perplexity of a tiny model on our licence, from llama.cpp's logits.

Counted as llama.cpp's tools/perplexity does: chunks of n_ctx tokens, BOS in the place of the first one where
the model adds it, positions n_ctx / 2 to n_ctx - 2 scored by the token that follows.

Usage, from the repository root, in Quarry's environment, with the peers' one in .venv-peers:
    .venv/bin/python -m tests.golden.make_perplexity
"""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import gguf
import numpy as np

from bench.worker import ROOT, Worker
from engine.convert import convert
from tests.golden.distributions import log_softmax

OUT = Path(__file__).with_name("perplexity.json")
MODEL, N_CTX = "llama-tied", 128


def main() -> None:
    python = ROOT / ".venv-peers" / "bin" / "python"
    with tempfile.TemporaryDirectory() as name, Worker(python, "tests.golden.llama_cpp_answers") as peer:
        path = Path(name) / "model.gguf"
        convert(ROOT / "tests" / "data" / "tiny" / MODEL, path, tensor_type="F32")
        reader = gguf.GGUFReader(path)
        wants_bos = bool(reader.fields["tokenizer.ggml.add_bos_token"].contents())
        bos = int(reader.fields["tokenizer.ggml.bos_token_id"].contents())
        question = {"model": str(path), "texts": [(ROOT / "LICENSE").read_text(encoding="utf-8")]}
        ids = np.array(peer.ask({"do": "tokenize", **question})["ids"][0])
        chunks = ids[: len(ids) // N_CTX * N_CTX].reshape(-1, N_CTX)[:8]
        surprise: list[float] = []
        for chunk in chunks:
            if wants_bos:
                chunk[0] = bos
            asked = {"do": "logits", "model": str(path), "ids": chunk.tolist()}
            logprobs = log_softmax(np.array(peer.ask(asked)["logits"], np.float32))
            surprise += [-logprobs[i, chunk[i + 1]] for i in range(N_CTX // 2, N_CTX - 1)]
    n = len(surprise)
    mean = sum(surprise) / n
    variance = sum(x * x for x in surprise) / n - mean**2
    value = math.exp(mean)
    found = {"perplexity": value, "error": value * math.sqrt(variance / (n - 1)), "n_scored": n}
    OUT.write_text(json.dumps(found) + "\n", encoding="utf-8")
    print(found)


if __name__ == "__main__":
    main()
