"""Every tensor type that the kernels multiply by, against the `gguf` package reading the same bytes."""

import re
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from numpy.typing import NDArray

from engine import _native

WIDTH, FEED_FORWARD, N_TOKENS = 256, 512, 64
COARSE_WIDTH = 1024
"""From here on the decoder multiplies most matrices by inputs of 8 bits, below by 15."""
QUANTIZED = [
    *("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"),
]

# Where a block of the type keeps f16 scales: random bytes are a valid block but for these.
SCALES = {
    "IQ2_XS": [0],
    "Q8_0": [0],
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
    "IQ4_NL": [0],
    "IQ4_XS": [0],
}
# How far the integers reach that multiply a block's scale.
SPREADS = {
    "Q8_0": 128,
    "Q2_K": 15 * 3,
    "Q3_K": 32 * 4,
    "Q4_K": 63 * 15,
    "Q5_K": 63 * 31,
    "Q6_K": 128 * 32,
    "IQ4_NL": 127,
    "IQ4_XS": 32 * 127,
}

# Minima are the scale times this: weights that are all on one side of zero would hide what the rest does.
MINIMA = {"Q4_1": -7.5, "Q5_1": -15.5, "Q2_K": 1.5, "Q4_K": 7.5, "Q5_K": 15.5}


def random_blocks(type_name: str, n_rows: int, width: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return rows of random blocks, [n_rows, bytes of a row], with scales that keep the weights near 1."""
    block_weights, block_bytes = gguf.GGML_QUANT_SIZES[Type[type_name]]
    blocks = rng.integers(0, 256, (n_rows, width // block_weights, block_bytes), np.uint8)
    spread = SPREADS.get(type_name, 16)
    drawn = rng.uniform(0.1, 1, blocks.shape[:2]) / spread / np.sqrt(width)
    for i, at in enumerate(SCALES[type_name]):
        scales = drawn * (MINIMA[type_name] if i == 1 else 1)
        blocks[..., at : at + 2] = scales.astype(np.float16).view(np.uint8).reshape(*blocks.shape[:2], 2)
    return blocks.reshape(n_rows, -1)


def write_model(path: Path, type_name: str, *, dequantized: bool = False, width: int = WIDTH) -> None:
    """Write a one-layer llama whose matrices have the type, or the same weights as F32."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    shapes = {
        "token_embd": (N_TOKENS, width),
        "output": (N_TOKENS, width),
        "blk.0.attn_q": (width, width),
        "blk.0.attn_k": (width // 2, width),
        "blk.0.attn_v": (width // 2, width),
        "blk.0.attn_output": (width, width),
        "blk.0.ffn_gate": (FEED_FORWARD, width),
        "blk.0.ffn_up": (FEED_FORWARD, width),
        "blk.0.ffn_down": (width, FEED_FORWARD),
    }
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))
    for name, (rows, columns) in shapes.items():
        blocks = random_blocks(type_name, rows, columns, rng)
        if dequantized:
            writer.add_tensor(f"{name}.weight", gguf.quants.dequantize(blocks, Type[type_name]))
        else:
            writer.add_tensor(f"{name}.weight", blocks, raw_dtype=Type[type_name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("type_name", QUANTIZED)
def test_rows_read_as_gguf_reads_them(type_name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_model(path, type_name)
    file = _native.GgufFile(str(path))
    for tensor in gguf.GGUFReader(path).tensors:
        if tensor.name.endswith("norm.weight"):
            continue
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        for index in (0, 1, len(expected) - 1):
            np.testing.assert_allclose(file.row(tensor.name, index), expected[index], rtol=1e-6, atol=1e-7)


def error_of_logits(type_name: str, instruction_set: str, folder: Path, *, width: int) -> float:
    """Return how far logits are from those of the same weights in F32, relative to their norm."""
    pool = _native.ThreadPool(1, instruction_set)
    ids = np.random.default_rng(1).integers(0, N_TOKENS, 40).astype(np.int32)
    logits = []
    for dequantized in (False, True):
        path = folder / f"{dequantized}.gguf"
        write_model(path, type_name, dequantized=dequantized, width=width)
        logits.append(_native.Decoder(_native.GgufFile(str(path)), pool, cache_tokens=64).logits(ids))
    return float(np.linalg.norm(logits[0] - logits[1]) / np.linalg.norm(logits[1]))


@pytest.mark.parametrize("instruction_set", _native.instruction_sets())
@pytest.mark.parametrize("type_name", QUANTIZED)
def test_logits_follow_the_dequantized_weights(type_name: str, instruction_set: str, tmp_path: Path) -> None:
    """Only the rounding of activations to 15 bits may differ."""
    assert error_of_logits(type_name, instruction_set, tmp_path, width=WIDTH) < 1e-3


@pytest.mark.parametrize("instruction_set", _native.instruction_sets())
@pytest.mark.parametrize("type_name", ["Q8_0", "Q5_1", "Q2_K", "Q4_K", "IQ4_XS"])
def test_logits_of_wide_models(type_name: str, instruction_set: str, tmp_path: Path) -> None:
    """Rounding to 8 bits differs by a few thousandths, but not by nothing."""
    assert 1e-4 < error_of_logits(type_name, instruction_set, tmp_path, width=COARSE_WIDTH) < 0.02


def test_all_readable_types_are_tested() -> None:
    assert set(_native.type_names) == {"F32", "F16", "BF16", *QUANTIZED}


def test_an_unreadable_type_is_named_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_model(path, "IQ2_XS")
    with pytest.raises(_native.GgufError) as caught:
        _native.Decoder(_native.GgufFile(str(path)), _native.ThreadPool(1), cache_tokens=64)
    assert re.search(
        r"tensor 'token_embd.weight' has type IQ2_XS.*IQ4_XS.*quarry quantize", str(caught.value)
    )
