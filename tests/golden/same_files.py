"""The files whose logits make_same_files.py asks of llama.cpp and test_same_files.py of us.

Three kinds: the tiny decoders of tests/data/tiny, a llama with rows of 256 weights that llama.cpp's own
quantizer wrote, and SmolLM2.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import gguf
import numpy as np

from engine import _native as native
from engine.convert import convert
from engine.mixtures import MIXTURES
from engine.quantize import quantize

if TYPE_CHECKING:
    from numpy.typing import NDArray

HERE = Path(__file__).parent
GOLDEN, WIDE_MODELS = HERE / "same_files.npz", HERE / "wide_models.xz"
TINY = HERE.parent / "data" / "tiny"
LEAVES_OUT = ("llama-window", "phi-window", "gemma2-scale")
"""Models whose window or scale of attention llama.cpp does not read."""
TINY_TYPES = ("F16", "Q8_0", "Q4_0", "Q5_1")
"""Rows of tiny models are no whole blocks of 256."""
TINY_POSITIONS = (24, 39)
LEAST_ROWS = 32
WIDE_WIDTH, WIDE_VOCAB = 256, 64
WIDE_MIXTURES = tuple(
    name for name in MIXTURES if name not in ("F32", "Q3_K_S", "Q3_K_L", "Q4_K_S", "Q5_K_S")
)
"""One for each type."""
SCORED_IDS = np.random.default_rng(9).integers(0, WIDE_VOCAB, 120).astype(np.int32)
"""What the perplexity of wide models is measured on."""
WIDE_IDS = np.random.default_rng(3).integers(0, WIDE_VOCAB, 40).astype(np.int32)
SMOLLM2_MIXTURES = WIDE_MIXTURES
SMOLLM2_POSITIONS = tuple(range(1, 138, 6))


def tiny_decoders() -> list[str]:
    """Name the decoders that llama.cpp computes whole."""
    folders = sorted(path for path in TINY.iterdir() if path.is_dir())
    return [
        path.name
        for path in folders
        if "logits" in np.load(path / "golden.npz") and path.name not in LEAVES_OUT
    ]


def is_exact_by_blas(path: Path) -> bool:
    """Say whether llama.cpp's BLAS backend takes every product: of no experts, and of at least 32 rows."""
    tensors = native.GgufFile(str(path)).tensors()
    quantised = [tensor.shape for tensor in tensors if tensor.type != "F32" and len(tensor.shape) > 1]
    return all(len(shape) == 2 and shape[1] >= LEAST_ROWS for shape in quantised)


def readable_exactly(path: Path) -> Path:
    """Return a file of the same weights of which llama.cpp rounds no product: itself, or expanded to F32."""
    if is_exact_by_blas(path):
        return path
    expanded = path.with_suffix(".expanded.gguf")
    quantize(path, expanded, MIXTURES["F32"])
    return expanded


def write_tiny(name: str, kind: str, folder: Path) -> Path:
    """Convert a tiny model and quantise it."""
    whole, out = folder / f"{name}-F32.gguf", folder / f"{name}-{kind}.gguf"
    if not whole.exists():
        convert(TINY / name, whole, tensor_type="F32")
    quantize(whole, out, MIXTURES[kind])
    return out


def tiny_ids(name: str) -> NDArray[np.int32]:
    return np.asarray(np.load(TINY / name / "golden.npz")["token_ids"], np.int32)


def fingerprint(path: Path) -> str:
    """Hash what a file's tensors hold: another build of a package may change its keys."""
    file = native.GgufFile(str(path))
    quantizer = native.Quantizer(file, 1)
    digest = hashlib.sha256()
    for tensor in sorted(file.tensors(), key=lambda tensor: tensor.name):
        n_rows = int(np.prod(tensor.shape[1:], dtype=np.int64))
        digest.update(f"{tensor.name} {tensor.type} {list(tensor.shape)}\n".encode())
        digest.update(quantizer.copy(tensor.name, 0, n_rows))
    return digest.hexdigest()


def write_wide(path: Path) -> None:
    """Write a llama of one layer in F32 whose matrices are made of the same 24 rows, so that it compresses.

    24, because tiles have 16: a tile in the wrong place is seen.
    """
    rng = np.random.default_rng(4)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(WIDE_WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(WIDE_WIDTH)
    writer.add_head_count(8)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(WIDE_VOCAB)
    shapes = {
        "token_embd": WIDE_VOCAB,
        "output": WIDE_VOCAB,
        "blk.0.attn_q": WIDE_WIDTH,
        "blk.0.attn_k": WIDE_WIDTH // 4,
        "blk.0.attn_v": WIDE_WIDTH // 4,
        "blk.0.attn_output": WIDE_WIDTH,
        "blk.0.ffn_gate": WIDE_WIDTH,
        "blk.0.ffn_up": WIDE_WIDTH,
        "blk.0.ffn_down": WIDE_WIDTH,
    }
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDE_WIDTH, np.float32))
    rows = rng.standard_normal((24, WIDE_WIDTH), np.float32) * np.float32(WIDE_WIDTH**-0.5)
    for name, n_rows in shapes.items():
        writer.add_tensor(f"{name}.weight", rows[(np.arange(n_rows) * 7 + rng.integers(24)) % 24])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def wide_importance() -> dict[str, NDArray[np.float32]]:
    """Draw how much each column of the wide model's matrices matters."""
    rng = np.random.default_rng(5)
    parts = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    return {f"blk.0.{part}.weight": rng.gamma(1, 1, WIDE_WIDTH).astype(np.float32) for part in parts}


def perplexity(path: Path) -> float:
    """Measure a wide model."""
    decoder = native.Decoder(native.GgufFile(str(path)), native.ThreadPool(1), cache_tokens=128)
    return float(np.exp(-decoder.next_logprobs(SCORED_IDS, 0).astype(np.float64).mean()))
