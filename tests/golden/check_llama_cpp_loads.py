"""Check that llama.cpp loads the files that our converter writes, and computes from them what we compute.

Usage, from the repository root, in Quarry's environment:
    .venv/bin/python -m tests.golden.check_llama_cpp_loads PYTHON_WITH_BLAS ALL_MINILM_FOLDER

PYTHON_WITH_BLAS has a llama-cpp-python built with CMAKE_ARGS="-DGGML_BLAS=ON -DGGML_BLAS_VENDOR=OpenBLAS":
it multiplies in F32, where other builds round what they multiply to the type of the weights.

Converts all-MiniLM-L6-v2 and the tiny models of tests/data/tiny to each tensor type, and compares token ids,
vectors (cosine), scores and logits (greatest error over the greatest logit). Exits with 1 where one is out of
bounds.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.worker import BenchError, Worker
from engine import _native as native
from engine.convert import convert
from engine.tokenizer import load_tokenizer
from tests.golden.same_files import LEAVES_OUT, TINY, readable_exactly

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TYPES = ("F32", "F16", "BF16", "Q8_0")
MAX_ERROR = 2e-3
"""Of logits: our cache holds F16, and llama.cpp looks GELU up in a table of F16."""
MAX_SCORE_ERROR = {"F32": 1e-3, "F16": 5e-3, "BF16": 2e-2, "Q8_0": 5e-2}
MIN_COSINE = {"F32": 0.9999, "F16": 0.999, "BF16": 0.999, "Q8_0": 0.999}
"""We round most F16 and BF16 weights of encoders to 8 bits."""
TEXTS = (
    "A short sentence.",
    "Quarry keeps documents, chunks and vectors in one record.",
    "北京是中国的首都。 Mixed text, with digits 1234 and an emoji 🙂.",
    "def add(a: int, b: int) -> int:\n    return a + b",
    "word " * 200,
)


class Check:
    """Counts what is out of bounds and prints each comparison."""

    def __init__(self) -> None:
        self.n_failed = 0

    def record(self, what: str, passed: bool, found: str) -> None:
        self.n_failed += not passed
        print(f"{'ok  ' if passed else 'FAIL'} {what}: {found}")


def written(source: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """Convert `source` to every type that fits its row lengths; yield the type and the file."""
    for kind in TYPES:
        out = folder / f"{source.name}-{kind}.gguf"
        convert(source, out, tensor_type=kind)
        yield kind, out


def check_encoder(
    check: Check, peer: Worker, pool: native.ThreadPool, path: Path, kind: str, batch: Sequence[Sequence[int]]
) -> None:
    """Compare the vectors of token sequences."""
    make = native.CausalEncoder if path.stem.startswith("decoder") else native.Encoder
    ours = make(native.GgufFile(str(path)), pool).encode([np.array(ids, np.int32) for ids in batch])
    theirs = np.array(peer.ask({"do": "embed", "model": str(path), "ids": batch})["vectors"])
    least = float((ours * theirs).sum(axis=1).min())
    check.record(path.stem, least >= MIN_COSINE[kind], f"least cosine {least:.6f}")


def check_reranker(
    check: Check, peer: Worker, pool: native.ThreadPool, path: Path, kind: str, batch: Sequence[Sequence[int]]
) -> None:
    """Compare the scores of pairs; llama.cpp does not tell the second text from the first."""
    encoder = native.Encoder(native.GgufFile(str(path)), pool)
    ours = encoder.score([(np.array(ids, np.int32), len(ids)) for ids in batch])
    theirs = np.array(peer.ask({"do": "score", "model": str(path), "ids": batch})["scores"])
    error = float(np.abs(ours - theirs).max())
    check.record(path.stem, error <= MAX_SCORE_ERROR[kind], f"scores differ by {error:.1e}")


def check_tokenizer(check: Check, peer: Worker, path: Path) -> list[list[int]]:
    """Compare the token ids of TEXTS; return ours."""
    tokenizer = load_tokenizer(native.GgufFile(str(path)))
    ours = [tokenizer.encode(text) for text in TEXTS]
    theirs = peer.ask({"do": "tokenize", "model": str(path), "texts": TEXTS})["ids"]
    n_equal = sum(a == b for a, b in zip(ours, theirs, strict=True))
    check.record(f"{path.stem} token ids", n_equal == len(TEXTS), f"{n_equal} of {len(TEXTS)} texts")
    return ours


def check_decoder(check: Check, peer: Worker, pool: native.ThreadPool, path: Path, kind: str) -> None:
    """Compare the logits after every token of a sequence."""
    name = path.stem.removesuffix(f"-{kind}")
    ids = np.load(TINY / name / "golden.npz")["token_ids"].astype(np.int32)
    ours = native.Decoder(native.GgufFile(str(path)), pool, cache_tokens=256).logits(ids)
    out = path.with_suffix(".npy")
    request = {"do": "save logits", "ids": [ids.tolist()], "out": str(out), "exact": True}
    peer.ask({**request, "model": str(path)})
    exact = readable_exactly(path)
    if exact != path:  # that it loads the file has been seen
        peer.ask({**request, "model": str(exact)})
    theirs = np.load(out)
    error = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    how = "" if exact == path else ", of its weights expanded to F32"
    check.record(path.stem, error <= MAX_ERROR, f"greatest error {error:.1e} of the greatest logit{how}")


def check_file(
    check: Check, peer: Worker, pool: native.ThreadPool, source: Path, path: Path, kind: str
) -> None:
    """Compare what both make of a file; one that a side refuses is reported, not hidden."""
    golden = np.load(source / "golden.npz")
    ids = np.atleast_2d(golden["token_ids"]).tolist()
    try:
        if "vector" in golden:
            check_encoder(check, peer, pool, path, kind, ids)
        elif "scores" in golden:
            check_reranker(check, peer, pool, path, kind, ids)
        else:
            check_decoder(check, peer, pool, path, kind)
    except (BenchError, native.GgufError) as error:
        check.record(path.stem, False, str(error))


def compared() -> Iterator[Path]:
    """Give the folders of tiny models that both compute whole."""
    for source in sorted(path for path in TINY.iterdir() if path.is_dir()):
        if "judged" in np.load(source / "golden.npz"):
            continue  # texts, of which llama.cpp makes its prompt by itself
        if source.name == "modern-bert-cls-rank":
            continue  # llama.cpp takes the mean for every ModernBERT
        if source.name not in LEAVES_OUT:
            yield source


def main(python: Path, minilm: Path) -> int:
    check, pool = Check(), native.ThreadPool(1)
    module = "tests.golden.llama_cpp_answers"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Worker(python, module) as peer:
            for kind, path in written(minilm, folder):
                ids = check_tokenizer(check, peer, path)
                check_encoder(check, peer, pool, path, kind, ids)
        for source in compared():
            # One worker each: what ends llama.cpp ends one comparison.
            with Worker(python, module) as peer:
                for kind, path in written(source, folder):
                    check_file(check, peer, pool, source, path, kind)
    print(f"{check.n_failed} out of bounds")
    return 1 if check.n_failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
