"""Write same_files.npz and wide_models.xz: logits of llama.cpp in F32 arithmetic, and files that it wrote.

Usage, from the repository root, in Quarry's environment:
    .venv/bin/python -m tests.golden.make_same_files PYTHON_WITH_BLAS SMOLLM2.Q4_1.gguf [PART ...]

PART is tiny, wide or the type of a file of SmolLM2; without one, all are made, from nothing.
PYTHON_WITH_BLAS has a llama-cpp-python built with CMAKE_ARGS="-DGGML_BLAS=ON -DGGML_BLAS_VENDOR=OpenBLAS".
Products of stacked experts and of few rows are not by BLAS, and would be rounded: of models that have such it
reads the same weights expanded to F32.
"""

from __future__ import annotations

import io
import lzma
import sys
import tarfile
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.worker import Worker
from engine import _native as native
from engine.mixtures import MIXTURES
from engine.quantize import quantize
from engine.tokenizer import load_tokenizer
from tests.golden import same_files
from tests.golden.distributions import CutDistributions, cut, log_softmax
from tests.golden.smollm2_prompts import STEAM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

TOP_K = 24


class Maker:
    """Asks llama.cpp and keeps what it answers."""

    def __init__(self, peer: Worker, folder: Path) -> None:
        self.peer, self.folder = peer, folder
        self.found: dict[str, NDArray[np.generic]] = {}

    def log_probabilities(
        self, model: Path, ids: NDArray[np.int32], positions: Sequence[int]
    ) -> NDArray[np.float64]:
        out = self.folder / "logits.npy"
        request = {"do": "save logits", "model": str(model), "ids": [ids.tolist()], "out": str(out)}
        self.peer.ask({**request, "exact": True})
        return log_softmax(np.load(out)[list(positions)])

    def keep(self, key: str, model: Path, values: dict[str, NDArray[np.generic]]) -> None:
        self.found[f"{key}/hash"] = np.array(same_files.fingerprint(model))
        self.found |= {f"{key}/{name}": array for name, array in values.items()}
        model.unlink()
        print(key, flush=True)

    def tiny(self) -> None:
        for name in same_files.tiny_decoders():
            for kind in same_files.TINY_TYPES:
                path = same_files.write_tiny(name, kind, self.folder)
                ids = same_files.tiny_ids(name)
                read = same_files.readable_exactly(path)
                found = self.log_probabilities(read, ids, same_files.TINY_POSITIONS)
                self.keep(f"tiny/{name}/{kind}", path, {"logits": found.astype(np.float16)})

    def wide(self, out: Path) -> None:
        """Let llama.cpp write the wide model in every mixture; keep the files of one for each type."""
        whole, columns = self.folder / "wide.gguf", self.folder / "columns.npz"
        same_files.write_wide(whole)
        np.savez(columns, **same_files.wide_importance())
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for kind in MIXTURES:
                path = self.folder / f"{kind}.gguf"
                request = {"do": "quantize", "model": str(whole), "out": str(path), "type": kind}
                self.peer.ask({**request, "importance": str(columns)})
                self.found[f"wide/{kind}/weighed_perplexity"] = np.array(same_files.perplexity(path))
                self.peer.ask(request)
                values: dict[str, NDArray[np.generic]] = {}
                if kind in same_files.WIDE_MIXTURES:
                    entry = tarfile.TarInfo(path.name)
                    entry.size = path.stat().st_size
                    archive.addfile(entry, io.BytesIO(path.read_bytes()))
                    positions = range(len(same_files.WIDE_IDS))
                    found = self.log_probabilities(path, same_files.WIDE_IDS, positions)
                    values["logits"] = found.astype(np.float16)
                self.keep(f"wide/{kind}", path, values)
        out.write_bytes(lzma.compress(packed.getvalue(), preset=9 | lzma.PRESET_EXTREME))

    def smollm2(self, source: Path, kind: str) -> None:
        ids = np.array(load_tokenizer(native.GgufFile(str(source))).encode(STEAM), np.int32)
        self.found["smollm2/ids"] = ids
        path = self.folder / f"{kind}.gguf"
        quantize(source, path, MIXTURES[kind], requantize=True)
        kept = cut(self.log_probabilities(path, ids, same_files.SMOLLM2_POSITIONS), TOP_K, seed=0)
        values = {f.name: getattr(kept, f.name) for f in fields(CutDistributions)}
        self.keep(f"smollm2/{kind}", path, values)


def main(python: Path, smollm2: Path, parts: Sequence[str]) -> None:
    with (
        tempfile.TemporaryDirectory() as name,
        Worker(python, "tests.golden.llama_cpp_answers") as peer,
    ):
        maker = Maker(peer, Path(name))
        if parts and same_files.GOLDEN.exists():
            with np.load(same_files.GOLDEN) as stored:
                maker.found = {key: stored[key] for key in stored.files}
        for part in parts or ("tiny", "wide", *same_files.SMOLLM2_MIXTURES):
            if part == "tiny":
                maker.tiny()
            elif part == "wide":
                maker.wide(same_files.WIDE_MODELS)
            else:
                maker.smollm2(smollm2, part)
            np.savez_compressed(same_files.GOLDEN, **maker.found)
    for path in (same_files.GOLDEN, same_files.WIDE_MODELS):
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
