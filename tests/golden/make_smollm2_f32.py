"""Add to smollm2.npz what llama.cpp computes from the same file in F32 arithmetic, with its BLAS backend.

Usage, after make_smollm2.py, in an environment whose llama-cpp-python was built with
CMAKE_ARGS="-DGGML_BLAS=ON -DGGML_BLAS_VENDOR=OpenBLAS":
    python -m tests.golden.make_smollm2_f32 SmolLM2-135M-Instruct.Q4_1.gguf

The backend takes products of at least 32 rows; shorter prompts are filled up behind their end, which no
position before it sees, and a prompt is read in one batch so that no short rest is left to other kernels.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench import llama
from tests.golden.distributions import cut, log_softmax
from tests.golden.make_smollm2 import N_THREADS, OUT, TOP_K, columns_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

LEAST_ROWS = 32
FILLER = 0


def prompts(stored: dict[str, NDArray[np.generic]]) -> Iterator[tuple[list[int], list[int]]]:
    """Give the token ids and the compared positions of each prompt in the file."""
    tokens = np.split(stored["ids"], np.cumsum(stored["n_tokens"])[:-1])
    positions = np.split(stored["positions"], np.cumsum(stored["n_positions"])[:-1])
    for ids, places in zip(tokens, positions, strict=True):
        yield ids.tolist(), places.tolist()


def log_probabilities(model: llama.Llama, ids: list[int], positions: list[int]) -> NDArray[np.float64]:
    """Return the distributions after the tokens at `positions`, [len(positions), n_vocab]."""
    filled = ids + [FILLER] * (LEAST_ROWS - len(ids))
    computed = positions if len(positions) >= LEAST_ROWS else list(range(len(filled)))
    logits = model.logits(filled, computed)
    return log_softmax(logits[[computed.index(position) for position in positions]])


def main(path: Path) -> None:
    if not llama.has_blas():
        sys.exit("this build of llama.cpp has no BLAS backend")
    llama.start()
    with np.load(OUT) as file:
        stored = {name: file[name] for name in file.files}
    model = llama.Llama(
        path,
        llama.Settings(
            n_threads=N_THREADS, n_ubatch=2048, flash_attention=False, f32_cache=True, repack=False
        ),
    )
    columns: dict[str, list[NDArray[np.generic]]] = {}
    for number, (ids, positions) in enumerate(prompts(stored)):
        kept = cut(log_probabilities(model, ids, positions), TOP_K, seed=number)
        for name, column in columns_of(kept, "f32").items():
            columns.setdefault(name, []).append(column)
    model.close()
    stored.update({name: np.concatenate(values) for name, values in columns.items()})
    np.savez_compressed(OUT, **stored)
    print(f"{OUT.name}: {OUT.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
