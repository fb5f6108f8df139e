"""Compare our quantised files with those that llama.cpp makes of the same model, in every mixture.

For each: are the types of all tensors the same, does each side load the other's file, and the perplexity of
both files by our engine on one text.

Usage, from the repository root, in Quarry's environment, with the peers' one in .venv-peers:
    .venv/bin/python -m tests.golden.check_quantize MODEL.F16.gguf TEXT [CHUNKS] [MIXTURE ...]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from bench.worker import ROOT, Worker
from engine import _native
from engine.mixtures import MIXTURES
from engine.perplexity import measure_perplexity
from engine.quantize import quantize

MAX_DIFFERENCE = 0.005
"""Of perplexity, relative."""


def types_of(path: Path) -> dict[str, str]:
    return {tensor.name: tensor.type for tensor in _native.GgufFile(str(path)).tensors()}


def main(model: Path, text: str, n_chunks: int, names: list[str]) -> int:
    n_failed = 0
    python = ROOT / ".venv-peers" / "bin" / "python"
    with tempfile.TemporaryDirectory() as name, Worker(python, "tests.golden.llama_cpp_answers") as peer:
        ours, theirs = Path(name) / "ours.gguf", Path(name) / "theirs.gguf"
        for mixture in names:
            quantize(model, ours, MIXTURES[mixture], requantize=True)
            peer.ask({"do": "quantize", "model": str(model), "out": str(theirs), "type": mixture})
            same_types = types_of(ours) == types_of(theirs)
            peer.ask({"do": "logits", "model": str(ours), "ids": [1, 2, 3]})
            found = [measure_perplexity(path, text, max_chunks=n_chunks) for path in (ours, theirs)]
            off = found[0].value / found[1].value - 1
            passed = same_types and abs(off) <= MAX_DIFFERENCE
            n_failed += not passed
            print(
                f"{'ok  ' if passed else 'FAIL'} {mixture:7} {found[0].value:9.4f} against "
                f"{found[1].value:9.4f} ({off:+.3%}), types {'the same' if same_types else 'differ'}",
                flush=True,
            )
    print(f"{n_failed} out of bounds")
    return 1 if n_failed else 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    chunks = int(sys.argv[3]) if len(sys.argv) > 3 else 4
    sys.exit(
        main(
            Path(sys.argv[1]),
            Path(sys.argv[2]).read_text(encoding="utf-8"),
            chunks,
            sys.argv[4:] or list(MIXTURES),
        )
    )
