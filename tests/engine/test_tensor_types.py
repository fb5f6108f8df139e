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


def random_blocks(type_name: str, n_rows: int, width: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return rows of random blocks, [n_rows, bytes of a row], with scales that keep the weights near 1."""
    block_weights, block_bytes = gguf.GGML_QUANT_SIZES[Type[type_name]]
    blocks = rng.integers(0, 256, (n_rows, width // block_weights, block_bytes), np.uint8)
    spread = SPREADS.get(type_name, 16)
    for at in SCALES[type_name]:
        scales = rng.uniform(0.1, 1, blocks.shape[:2]) / spread / np.sqrt(width)
        blocks[..., at : at + 2] = scales.astype(np.float16).view(np.uint8).reshape(*blocks.shape[:2], 2)
    return blocks.reshape(n_rows, -1)


def write_model(path: Path, type_name: str, *, dequantized: bool = False) -> None:
    """Write a one-layer llama whose matrices have the type, or the same weights as F32."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    shapes = {
        "token_embd": (N_TOKENS, WIDTH),
        "output": (N_TOKENS, WIDTH),
        "blk.0.attn_q": (WIDTH, WIDTH),
        "blk.0.attn_k": (WIDTH // 2, WIDTH),
        "blk.0.attn_v": (WIDTH // 2, WIDTH),
        "blk.0.attn_output": (WIDTH, WIDTH),
        "blk.0.ffn_gate": (FEED_FORWARD, WIDTH),
        "blk.0.ffn_up": (FEED_FORWARD, WIDTH),
        "blk.0.ffn_down": (WIDTH, FEED_FORWARD),
    }
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    for name, (rows, width) in shapes.items():
        blocks = random_blocks(type_name, rows, width, rng)
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


@pytest.mark.parametrize("instruction_set", _native.instruction_sets())
@pytest.mark.parametrize("type_name", QUANTIZED)
def test_logits_follow_the_dequantized_weights(type_name: str, instruction_set: str, tmp_path: Path) -> None:
    """Only the rounding of activations to 8 bits may differ: a few thousandths of the logits' spread."""
    pool = _native.ThreadPool(1, instruction_set)
    ids = np.random.default_rng(1).integers(0, N_TOKENS, 40).astype(np.int32)
    logits = []
    for dequantized in (False, True):
        path = tmp_path / f"{dequantized}.gguf"
        write_model(path, type_name, dequantized=dequantized)
        logits.append(_native.Decoder(_native.GgufFile(str(path)), pool, cache_tokens=64).logits(ids))
    error = np.linalg.norm(logits[0] - logits[1]) / np.linalg.norm(logits[1])
    assert error < 0.02


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
