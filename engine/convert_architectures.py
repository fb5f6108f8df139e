"""What config.json means for language models: hyperparameters, tensor names and shapes.

Those of encoders stand in convert_encoders.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from engine.conversion import (
    MAX_LAYERS,
    MAX_SIZE,
    Conversion,
    VocabKind,
    read_number,
    read_size,
    write_embedding_keys,
)
from engine.convert_encoders import ENCODERS, find_encoder
from engine.errors import ConversionError
from engine.safetensors_folder import StoredTensor

_ARCHS = {
    "LlamaForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "MistralForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "Qwen2ForCausalLM": gguf.MODEL_ARCH.QWEN2,
    "Qwen3ForCausalLM": gguf.MODEL_ARCH.QWEN3,
}


@dataclass(frozen=True, slots=True)
class CausalConversion:
    """A language model to convert; see `Conversion`."""

    name: str
    arch: gguf.MODEL_ARCH
    config: Mapping[str, Any]
    n_layers: int
    n_embd: int
    n_ff: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    n_vocab: int
    n_context: int
    tied: bool

    @property
    def vocab(self) -> VocabKind:
        return "causal"

    def tensors(self, stored: StoredTensor) -> Iterable[tuple[str, StoredTensor]]:
        if stored.name.endswith((".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq")):
            return
        if not (self.tied and stored.name == "lm_head.weight"):
            yield stored.name, stored

    def permute_heads(self, name: str) -> int | None:
        if self.arch is not gguf.MODEL_ARCH.LLAMA:
            return None
        if ".attn_q." in name:
            return self.n_heads
        return self.n_kv_heads if ".attn_k." in name else None

    def shape(self, name: str) -> tuple[int, ...] | None:
        q, kv = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        shapes = {
            "token_embd.weight": (self.n_vocab, self.n_embd),
            "output.weight": (self.n_vocab, self.n_embd),
            "attn_q.weight": (q, self.n_embd),
            "attn_k.weight": (kv, self.n_embd),
            "attn_v.weight": (kv, self.n_embd),
            "attn_output.weight": (self.n_embd, q),
            "attn_q.bias": (q,),
            "attn_k.bias": (kv,),
            "attn_v.bias": (kv,),
            "attn_norm.weight": (self.n_embd,),
            "ffn_norm.weight": (self.n_embd,),
            "attn_q_norm.weight": (self.head_dim,),
            "attn_k_norm.weight": (self.head_dim,),
            "ffn_gate.weight": (self.n_ff, self.n_embd),
            "ffn_up.weight": (self.n_ff, self.n_embd),
            "ffn_down.weight": (self.n_embd, self.n_ff),
            "output_norm.weight": (self.n_embd,),
        }
        if name.startswith("blk."):
            name = name.split(".", 2)[2]
        return shapes.get(name)

    def required(self) -> Iterator[str]:
        yield "token_embd.weight"
        layer = ["attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_output.weight"]
        layer += ["ffn_up.weight", "ffn_down.weight"]
        yield "output_norm.weight"
        if not self.tied:
            yield "output.weight"
        layer += ["attn_norm.weight", "ffn_norm.weight", "ffn_gate.weight"]
        if self.arch is gguf.MODEL_ARCH.QWEN2:
            layer += ["attn_q.bias", "attn_k.bias", "attn_v.bias"]
        if self.arch is gguf.MODEL_ARCH.QWEN3:
            layer += ["attn_q_norm.weight", "attn_k_norm.weight"]
        yield from (f"blk.{i}.{name}" for i in range(self.n_layers) for name in layer)

    def extra_tensors(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        rope = _rope(self.config)
        if rope.get("rope_type") == "llama3":
            yield "rope_freqs.weight", _llama3_factors(rope, self.head_dim)

    def write_hparams(self, writer: gguf.GGUFWriter, folder: Path) -> None:
        writer.add_block_count(self.n_layers)
        writer.add_context_length(self.n_context)
        writer.add_embedding_length(self.n_embd)
        writer.add_feed_forward_length(self.n_ff)
        writer.add_head_count(self.n_heads)
        writer.add_head_count_kv(self.n_kv_heads)
        writer.add_layer_norm_rms_eps(read_number(self.config, "rms_norm_eps", float, 1e-6))
        writer.add_key_length(self.head_dim)
        writer.add_value_length(self.head_dim)
        writer.add_vocab_size(self.n_vocab)
        writer.add_rope_dimension_count(self.head_dim)
        _write_rope(writer, self.config)
        if (folder / "modules.json").exists():
            write_embedding_keys(writer, folder)


def find_conversion(config: Mapping[str, Any]) -> Conversion:
    """Read config.json's sizes. Raises: ConversionError naming the key, its value and what is expected."""
    architectures = config.get("architectures")
    name = architectures[0] if isinstance(architectures, list) and architectures else None
    if name not in _ARCHS and name not in ENCODERS:
        known = ", ".join([*_ARCHS, *ENCODERS])
        raise ConversionError(f"config.json has architecture {name!r}; known are {known}")
    if config.get("quantization_config"):
        raise ConversionError("config.json has a quantization_config; only unquantised folders are converted")
    if name in ENCODERS:
        return find_encoder(name, config)
    activation = config.get("hidden_act", "silu")
    if activation != "silu":
        raise ConversionError(f"hidden_act is {activation!r}; 'silu' is expected")
    n_embd = read_size(config, "hidden_size", MAX_SIZE)
    n_heads = read_size(config, "num_attention_heads", MAX_SIZE)
    n_kv_heads = read_size(config, "num_key_value_heads", n_heads, default=n_heads)
    if n_heads % n_kv_heads:
        raise ConversionError(
            f"num_attention_heads {n_heads} is no multiple of num_key_value_heads {n_kv_heads}"
        )
    head_dim = read_size(config, "head_dim", MAX_SIZE, default=max(1, n_embd // n_heads))
    if head_dim % 2:
        raise ConversionError(f"head_dim is {head_dim}; rotary embeddings need an even number")
    return CausalConversion(
        name=str(name),
        arch=_ARCHS[name],
        config=config,
        n_layers=read_size(config, "num_hidden_layers", MAX_LAYERS),
        n_embd=n_embd,
        n_ff=read_size(config, "intermediate_size", MAX_SIZE),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        n_vocab=read_size(config, "vocab_size", MAX_SIZE),
        n_context=read_size(config, "max_position_embeddings", 1 << 30),
        tied=config.get("tie_word_embeddings") is True,
    )


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Join the places where versions of transformers write the rotary embedding."""
    rope: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        value = config.get(key)
        if isinstance(value, dict):
            rope.update(value)
    if "rope_type" not in rope and "type" in rope:
        rope["rope_type"] = rope["type"]
    if "rope_theta" not in rope:
        rope["rope_theta"] = config.get("rope_theta", 10000.0)
    if "original_max_position_embeddings" not in rope:
        rope["original_max_position_embeddings"] = config.get(
            "original_max_position_embeddings"
        ) or config.get("max_position_embeddings")
    return rope


def _write_rope(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    rope = _rope(config)
    writer.add_rope_freq_base(read_number(rope, "rope_theta", float))
    kind = rope.get("rope_type") or "default"
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(read_number(rope, "factor", float))
    elif kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(read_number(rope, "factor", float))
        writer.add_rope_scaling_orig_ctx_len(read_number(rope, "original_max_position_embeddings", int))
        if rope.get("attention_factor") is not None:
            writer.add_rope_scaling_yarn_attn_factor(read_number(rope, "attention_factor", float))
        if rope.get("beta_fast") is not None:
            writer.add_rope_scaling_yarn_beta_fast(read_number(rope, "beta_fast", float))
        if rope.get("beta_slow") is not None:
            writer.add_rope_scaling_yarn_beta_slow(read_number(rope, "beta_slow", float))
    elif kind not in ("default", "llama3"):
        raise ConversionError(f"rope_type is {kind!r}; known are default, linear, llama3, yarn")


def _llama3_factors(rope: Mapping[str, Any], head_dim: int) -> NDArray[np.float32]:
    """Return what each frequency is divided by, [head_dim / 2]: slow ones by `factor`, fast ones by 1."""
    base = read_number(rope, "rope_theta", float)
    factor = read_number(rope, "factor", float, 8.0)
    low = read_number(rope, "low_freq_factor", float, 1.0)
    high = read_number(rope, "high_freq_factor", float, 4.0)
    context = read_number(rope, "original_max_position_embeddings", int, 8192)
    if factor <= 0 or low <= 0 or high <= low:
        raise ConversionError(
            f"rope scaling has factor {factor}, low {low}, high {high}; 0 < low < high is needed"
        )
    wavelength = 2 * np.pi * base ** (np.arange(0, head_dim, 2) / head_dim)
    # The share that is not slowed falls from 1 to 0 between the two wavelengths.
    keep = np.clip((context / wavelength - low) / (high - low), 0.0, 1.0)
    return (1 / ((1 - keep) / factor + keep)).astype(np.float32)
