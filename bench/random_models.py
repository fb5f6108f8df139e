"""Write GGUF files with random weights in the shapes of real models: for speed, not for sense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import gguf
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Shape:
    """The dimensions of a model."""

    architecture: str
    n_vocab: int
    width: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    n_feed_forward: int
    context_length: int
    rope_base: float = 0.0
    tied: bool = True


SHAPES = {
    "minilm": Shape("bert", 30522, 384, 6, 12, 12, 32, 1536, 512),
    "bge-small": Shape("bert", 30522, 384, 12, 12, 12, 32, 1536, 512),
    "bge-base": Shape("bert", 30522, 768, 12, 12, 12, 64, 3072, 512),
    "bge-large": Shape("bert", 30522, 1024, 24, 16, 16, 64, 4096, 512),
    "smollm2": Shape("llama", 49152, 576, 30, 9, 3, 64, 1536, 8192, 1e5),
    "llama-1b": Shape("llama", 128256, 2048, 16, 32, 8, 64, 8192, 8192, 5e5),
    "llama2-7b": Shape("llama", 32000, 4096, 32, 32, 32, 128, 11008, 4096, 1e4, tied=False),
    "qwen2-1.5b": Shape("qwen2", 151936, 1536, 28, 12, 2, 128, 8960, 32768, 1e6),
    "qwen3-0.6b": Shape("qwen3", 151936, 1024, 28, 16, 8, 128, 3072, 32768, 1e6),
    "qwen3-4b": Shape("qwen3", 151936, 2560, 36, 32, 8, 128, 9728, 32768, 1e6),
}


def write(path: Path, name: str) -> None:
    """Write shape `name` as F16 (norms and biases F32); the same bytes each time."""
    shape = SHAPES[name]
    writer = gguf.GGUFWriter(path, shape.architecture)
    writer.add_context_length(shape.context_length)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.n_layers)
    writer.add_feed_forward_length(shape.n_feed_forward)
    writer.add_head_count(shape.n_heads)
    writer.add_vocab_size(shape.n_vocab)
    _add_vocabulary(writer, shape)
    tensors = _Tensors(writer)
    (_add_encoder if shape.architecture == "bert" else _add_decoder)(writer, shape, tensors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class _Tensors:
    """Adds random tensors to a file."""

    def __init__(self, writer: gguf.GGUFWriter) -> None:
        self._writer = writer
        self._random = np.random.default_rng(0)

    def matrix(self, name: str, rows: int, columns: int, *, f32: bool = False) -> None:
        values = self._random.standard_normal((rows, columns), dtype=np.float32) * np.float32(columns**-0.5)
        self._writer.add_tensor(name, values if f32 else values.astype(np.float16))

    def bias(self, name: str, width: int) -> None:
        self._writer.add_tensor(
            name, self._random.standard_normal(width, dtype=np.float32) * np.float32(0.02)
        )

    def ones(self, name: str, width: int) -> None:
        self._writer.add_tensor(name, np.ones(width, np.float32))


def _add_vocabulary(writer: gguf.GGUFWriter, shape: Shape) -> None:
    """Add placeholder tokens of the kind that llama.cpp accepts; nothing is ever tokenized with them."""
    n = shape.n_vocab
    if shape.architecture == "bert":
        names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        writer.add_tokenizer_model("bert")
        writer.add_tokenizer_pre("default")
        writer.add_token_list([*names, *(f"\u2581t{i}" for i in range(len(names), n))])
        writer.add_token_types(
            [gguf.TokenType.CONTROL] * len(names) + [gguf.TokenType.NORMAL] * (n - len(names))
        )
        writer.add_token_type_count(2)
        writer.add_pad_token_id(0)
        writer.add_unk_token_id(1)
        writer.add_bos_token_id(2)
        writer.add_sep_token_id(3)
        writer.add_mask_token_id(4)
        return
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(["<|end|>", *(f"t{i}" for i in range(1, n))])
    writer.add_token_types([gguf.TokenType.CONTROL] + [gguf.TokenType.NORMAL] * (n - 1))
    writer.add_token_merges(["t 1"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)


def _add_encoder(writer: gguf.GGUFWriter, shape: Shape, tensors: _Tensors) -> None:
    width = shape.width
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    tensors.matrix("token_embd.weight", shape.n_vocab, width)
    tensors.matrix("position_embd.weight", shape.context_length, width, f32=True)
    tensors.matrix("token_types.weight", 2, width, f32=True)
    tensors.ones("token_embd_norm.weight", width)
    tensors.bias("token_embd_norm.bias", width)
    for i in range(shape.n_layers):
        sizes = {
            "attn_q": (width, width),
            "attn_k": (width, width),
            "attn_v": (width, width),
            "attn_output": (width, width),
            "ffn_up": (shape.n_feed_forward, width),
            "ffn_down": (width, shape.n_feed_forward),
        }
        for part, (rows, columns) in sizes.items():
            tensors.matrix(f"blk.{i}.{part}.weight", rows, columns)
            tensors.bias(f"blk.{i}.{part}.bias", rows)
        for part in ("attn_output_norm", "layer_output_norm"):
            tensors.ones(f"blk.{i}.{part}.weight", width)
            tensors.bias(f"blk.{i}.{part}.bias", width)


def _add_decoder(writer: gguf.GGUFWriter, shape: Shape, tensors: _Tensors) -> None:
    width, heads, kv = shape.width, shape.n_heads * shape.head_dim, shape.n_kv_heads * shape.head_dim
    writer.add_head_count_kv(shape.n_kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(1e-6)
    tensors.matrix("token_embd.weight", shape.n_vocab, width)
    tensors.ones("output_norm.weight", width)
    if not shape.tied:
        tensors.matrix("output.weight", shape.n_vocab, width)
    for i in range(shape.n_layers):
        block = f"blk.{i}."
        tensors.ones(block + "attn_norm.weight", width)
        tensors.ones(block + "ffn_norm.weight", width)
        for part, rows in (("attn_q", heads), ("attn_k", kv), ("attn_v", kv)):
            tensors.matrix(f"{block}{part}.weight", rows, width)
            if shape.architecture == "qwen2":
                tensors.bias(f"{block}{part}.bias", rows)
        if shape.architecture == "qwen3":
            tensors.ones(block + "attn_q_norm.weight", shape.head_dim)
            tensors.ones(block + "attn_k_norm.weight", shape.head_dim)
        tensors.matrix(block + "attn_output.weight", width, heads)
        tensors.matrix(block + "ffn_gate.weight", shape.n_feed_forward, width)
        tensors.matrix(block + "ffn_up.weight", shape.n_feed_forward, width)
        tensors.matrix(block + "ffn_down.weight", width, shape.n_feed_forward)
