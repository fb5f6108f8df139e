"""Compare our quantised files with those that llama.cpp makes of the same model, in every mixture.

For each: are the types of all tensors the same, how many of all bytes, does each side load the other's file,
and the perplexity of both files by our engine on one text.

Usage, from the repository root, in Quarry's environment, with the peers' one in .venv-peers:
    .venv/bin/python -m tests.golden.check_quantize F16.gguf TEXT [--imatrix FILE] [--chunks N] [TYPE ...]

`quarry imatrix` makes the file; both quantizers are given what it holds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from bench.worker import ROOT, Worker
from engine import _native
from engine.importance import read_importance
from engine.mixtures import MIXTURES
from engine.perplexity import measure_perplexity
from engine.quantize import quantize

MAX_DIFFERENCE = 0.005
"""Of perplexity, relative."""


def types_of(path: Path) -> dict[str, str]:
    return {tensor.name: tensor.type for tensor in _native.GgufFile(str(path)).tensors()}


def equal_bytes(ours: Path, theirs: Path) -> float:
    """Return which share of the bytes of all tensors is the same in both, where their types are."""
    files = [_native.GgufFile(str(path)) for path in (ours, theirs)]
    readers = [_native.Quantizer(file, 1) for file in files]
    n_equal = n_bytes = 0
    for tensor in files[0].tensors():
        n_rows = int(np.prod(tensor.shape[1:], dtype=np.int64))
        left, right = (np.frombuffer(r.copy(tensor.name, 0, n_rows), np.uint8) for r in readers)
        n_equal += int((left == right).sum())
        n_bytes += len(left)
    return n_equal / n_bytes


def main(model: Path, text: str, imatrix: Path | None, n_chunks: int, names: list[str]) -> int:
    n_failed = 0
    python = ROOT / ".venv-peers" / "bin" / "python"
    with tempfile.TemporaryDirectory() as name, Worker(python, "tests.golden.llama_cpp_answers") as peer:
        ours, theirs, columns = (Path(name) / part for part in ("ours.gguf", "theirs.gguf", "columns.npz"))
        importance = None if imatrix is None else read_importance(imatrix)
        if importance is not None:
            np.savez(columns, **importance.columns)
        for mixture in names:
            quantize(model, ours, MIXTURES[mixture], importance=importance, requantize=True)
            request = {"do": "quantize", "model": str(model), "out": str(theirs), "type": mixture}
            peer.ask({**request, "importance": None if importance is None else str(columns)})
            same_types = types_of(ours) == types_of(theirs)
            peer.ask({"do": "logits", "model": str(ours), "ids": [1, 2, 3]})
            found = [measure_perplexity(path, text, max_chunks=n_chunks) for path in (ours, theirs)]
            off = found[0].value / found[1].value - 1
            passed = same_types and abs(off) <= MAX_DIFFERENCE
            n_failed += not passed
            same = f"the same, {equal_bytes(ours, theirs):.2%} of bytes" if same_types else "differ"
            print(
                f"{'ok  ' if passed else 'FAIL'} {mixture:7} {found[0].value:9.4f} against "
                f"{found[1].value:9.4f} ({off:+.3%}), types {same}",
                flush=True,
            )
    print(f"{n_failed} out of bounds")
    return 1 if n_failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--imatrix", type=Path)
    parser.add_argument("--chunks", type=int, default=4)
    parser.add_argument("mixtures", nargs="*", default=list(MIXTURES))
    given = parser.parse_intermixed_args()
    words = given.text.read_text(encoding="utf-8")
    sys.exit(main(given.model, words, given.imatrix, given.chunks, given.mixtures))
