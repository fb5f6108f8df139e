"""Write quantized.npz: rows of random weights as llama.cpp's quantizer writes them, in every type.

Usage, from the repository root, in the peers' environment (requirements/peers.txt):
    .venv-peers/bin/python -m tests.golden.make_quantized
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import llama_cpp
import numpy as np

OUT = Path(__file__).with_name("quantized.npz")
N_ROWS, WIDTH = 12, 256
TYPES = {
    "F16": 1,
    "Q4_0": 2,
    "Q4_1": 3,
    "Q5_0": 6,
    "Q5_1": 7,
    "Q8_0": 8,
    "Q2_K": 10,
    "Q3_K": 11,
    "Q4_K": 12,
    "Q5_K": 13,
    "Q6_K": 14,
    "IQ4_NL": 20,
    "IQ4_XS": 23,
    "BF16": 30,
}


def rows() -> tuple[np.ndarray, np.ndarray]:
    """Return weights [N_ROWS, WIDTH] and the importance of columns [WIDTH]; some rows are odd ones."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((N_ROWS, WIDTH)) * rng.gamma(2, 0.02, (N_ROWS, 1))
    weights[0] = 0
    weights[1, :48] = 0
    weights[2] = np.abs(weights[2])
    weights[3] = 1
    weights[4, 100] = 1
    return weights.astype(np.float32), rng.gamma(1, 1, WIDTH).astype(np.float32)


def main() -> None:
    library = ctypes.CDLL(str(Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"))
    quantize = library.ggml_quantize_chunk
    quantize.restype = ctypes.c_size_t
    pointer, whole = ctypes.c_void_p, ctypes.c_int64
    quantize.argtypes = [ctypes.c_int, pointer, pointer, whole, whole, whole, pointer]
    weights, importance = rows()
    found = {"weights": weights, "importance": importance}
    for name, number in TYPES.items():
        for kind, given in (("plain", None), ("weighed", importance.ctypes.data)):
            out = np.zeros(4 * weights.size, np.uint8)
            n = quantize(number, weights.ctypes.data, out.ctypes.data, 0, N_ROWS, WIDTH, given)
            found[f"{name}_{kind}"] = out[:n]
    np.savez_compressed(OUT, **found)
    print(f"{OUT.name}: {OUT.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
