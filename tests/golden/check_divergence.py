"""Measure how far our logits are from llama.cpp's on the same file, in every mixture that we write.

Two references, both by llama.cpp: "exact", which expands the weights and multiplies in F32 (a build with the
BLAS backend), and "default", whose kernels round activations to 8 bits. For each mixture: mean KL and
agreement on the most likely token of ours against both, and of the default against the exact.

Usage, from the repository root, in Quarry's environment, with the peers' one in .venv-peers:
    .venv/bin/python -m tests.golden.check_divergence PYTHON_WITH_BLAS MODEL.gguf [MIXTURE ...]

The model is expanded to F16 and quantised anew; "file" in the place of a mixture takes it as it is.
PYTHON_WITH_BLAS has a llama-cpp-python built with CMAKE_ARGS="-DGGML_BLAS=ON -DGGML_BLAS_VENDOR=OpenBLAS".
Exits with 1 where a mean KL from the exact logits is above 2e-3.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.worker import ROOT, Worker
from engine import _native as native
from engine.mixtures import MIXTURES
from engine.quantize import quantize
from engine.tokenizer import load_tokenizer
from tests.golden.distributions import full_divergence, log_softmax
from tests.golden.smollm2_prompts import PROMPTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEXTS = {
    "English": (10, 12),
    "code": (18, 20),
    "Chinese": (27, 28, 29, 30),
    "chat": (31, 36),
    "passages": (39,),
}
"""Prompts of smollm2_prompts.py by kind."""
MAX_KL = 2e-3
AS_IT_IS = "file"


@dataclass(frozen=True, slots=True)
class Distance:
    """Of two models' next-token distributions, at each position."""

    kl: NDArray[np.float64]
    agrees: NDArray[np.bool_]

    def __str__(self) -> str:
        return f"{self.kl.mean():.1e} {self.agrees.mean():6.1%}"


@dataclass(frozen=True, slots=True)
class Distances:
    ours: Distance
    """From the exact logits, as `peers`."""
    from_default: Distance
    peers: Distance


def distance(reference: NDArray[np.float32], other: NDArray[np.float32]) -> Distance:
    """Compare logits [n, n_vocab], a slice at a time."""
    kl = []
    for at in range(0, len(reference), 256):
        rows = slice(at, at + 256)
        kl.append(full_divergence(log_softmax(reference[rows]), log_softmax(other[rows])))
    return Distance(np.concatenate(kl), reference.argmax(axis=1) == other.argmax(axis=1))


class Comparison:
    """The texts as tokens, and both builds of llama.cpp."""

    def __init__(self, exact: Worker, default: Worker, vocabulary: Path, folder: Path) -> None:
        self.exact, self.default, self.folder = exact, default, folder
        tokenizer = load_tokenizer(native.GgufFile(str(vocabulary)))
        self.kinds = [kind for kind, numbers in TEXTS.items() for _ in numbers]
        numbers = [number for numbers in TEXTS.values() for number in numbers]
        self.ids = [tokenizer.encode(PROMPTS[number], parse_special=True) for number in numbers]

    def of_kind(self) -> dict[str, NDArray[np.bool_]]:
        """Say which positions belong to each kind of text."""
        kinds = np.concatenate([[kind] * len(ids) for kind, ids in zip(self.kinds, self.ids, strict=True)])
        return {kind: kinds == kind for kind in TEXTS}

    def peers_logits(self, model: Path, *, exact: bool) -> NDArray[np.float32]:
        """Return llama.cpp's, [n_positions, n_vocab]."""
        out = self.folder / "logits.npy"
        worker = self.exact if exact else self.default
        request = {"do": "save logits", "model": str(model), "ids": self.ids, "out": str(out), "exact": exact}
        worker.ask(request)
        return np.asarray(np.load(out))

    def our_logits(self, model: Path) -> NDArray[np.float32]:
        decoder = native.Decoder(native.GgufFile(str(model)), native.ThreadPool(2), cache_tokens=1024)
        return np.concatenate([decoder.logits(np.array(ids, np.int32)) for ids in self.ids])

    def measure(self, model: Path) -> Distances:
        exact = self.peers_logits(model, exact=True)
        default = self.peers_logits(model, exact=False)
        ours = self.our_logits(model)
        return Distances(distance(exact, ours), distance(default, ours), distance(exact, default))


def main(python: Path, source: Path, names: list[str]) -> int:
    n_failed = 0
    module = "tests.golden.llama_cpp_answers"
    with (
        tempfile.TemporaryDirectory() as name,
        Worker(python, module) as exact,
        Worker(ROOT / ".venv-peers" / "bin" / "python", module) as default,
    ):
        folder = Path(name)
        base, model = folder / "base.gguf", folder / "model.gguf"
        if names != [AS_IT_IS]:
            quantize(source, base, MIXTURES["F16"], requantize=True)
        comparison = Comparison(exact, default, source, folder)
        print(f"{sum(map(len, comparison.ids))} positions of {len(comparison.ids)} texts")
        for mixture in names:
            if mixture != AS_IT_IS:
                quantize(base, model, MIXTURES[mixture])
            found = comparison.measure(source if mixture == AS_IT_IS else model)
            passed = bool(found.ours.kl.mean() <= MAX_KL)
            n_failed += not passed
            kinds = comparison.of_kind()
            by_kind = ", ".join(f"{kind} {found.ours.kl[of].mean():.1e}" for kind, of in kinds.items())
            print(
                f"{'ok  ' if passed else 'FAIL'} {mixture:7} ours from exact {found.ours} ({by_kind}); "
                f"ours from default {found.from_default}; default from exact {found.peers}",
                flush=True,
            )
    print(f"{n_failed} out of bounds")
    return 1 if n_failed else 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:] or list(MIXTURES)))
