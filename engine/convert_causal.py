"""What config.json means for a language model as most are built; others say how they differ."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import gguf
import numpy as np
from numpy.typing import NDArray

from engine.conversion import (
    MAX_LAYERS,
    MAX_SIZE,
    SizedConversion,
    VocabKind,
    read_number,
    read_size,
    write_embedding_keys,
)
from engine.convert_rope import rope_tensors, write_rope
from engine.errors import ConversionError
from engine.safetensors_folder import StoredTensor

_UNUSED = (".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq", "rotary_pos_emb.inv_freq")


@dataclass(frozen=True, slots=True)
class CausalConversion(SizedConversion):
    """A language model to convert; see `Conversion`. Its class attributes are what kinds differ in."""

    n_kv_heads: int
    head_dim: int
    n_rotated: int
    tied: bool

    activation: ClassVar[str] = "silu"
    norms_heads: ClassVar[bool] = False
    norms_branches: ClassVar[bool] = False
    biases: ClassVar[tuple[str, ...]] = ()
    """Parts of a layer whose bias must be there."""
    turns_pairs: ClassVar[bool] = False
    """Whether llama.cpp turns neighbours where the folder's rows turn halves: they are reordered."""
    joins_attention: ClassVar[bool] = False
    joins_gate_and_up: ClassVar[bool] = False

    @staticmethod
    def normalize(config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the configuration under the names that most models use."""
        return config

    @classmethod
    def read(cls, name: str, arch: gguf.MODEL_ARCH, config: Mapping[str, Any]) -> Self:
        """Read the sizes. Raises: ConversionError naming the key, its value and what is expected."""
        config = cls.normalize(config)
        _check_activation(config, cls.activation)
        n_embd = read_size(config, "hidden_size", MAX_SIZE)
        n_heads = read_size(config, "num_attention_heads", MAX_SIZE)
        n_kv_heads = read_size(config, "num_key_value_heads", n_heads, default=n_heads)
        if n_heads % n_kv_heads:
            raise ConversionError(
                f"num_attention_heads {n_heads} is no multiple of num_key_value_heads {n_kv_heads}"
            )
        head_dim = read_size(config, "head_dim", MAX_SIZE, default=max(1, n_embd // n_heads))
        rope = config.get("rope_parameters")
        share = config.get("partial_rotary_factor")
        if share is None and isinstance(rope, dict):
            share = rope.get("partial_rotary_factor")
        n_rotated = int(
            head_dim * read_number({"partial_rotary_factor": share}, "partial_rotary_factor", float, 1.0)
        )
        if n_rotated % 2 or not 0 < n_rotated <= head_dim:
            raise ConversionError(
                f"{n_rotated} of head_dim {head_dim} are turned; rotary embeddings need an even number"
            )
        conversion = cls(
            name=name,
            arch=arch,
            config=config,
            n_layers=read_size(config, "num_hidden_layers", MAX_LAYERS),
            n_embd=n_embd,
            n_ff=read_size(config, "intermediate_size", MAX_SIZE),
            n_heads=n_heads,
            n_kv_heads=n_kv_heads,
            head_dim=head_dim,
            n_rotated=n_rotated,
            n_vocab=read_size(config, "vocab_size", MAX_SIZE),
            n_context=read_size(config, "max_position_embeddings", 1 << 30),
            tied=config.get("tie_word_embeddings") is True,
        )
        conversion.check()
        return conversion

    def check(self) -> None:
        """Refuse what cannot be written. Raises: ConversionError."""

    @property
    def vocab(self) -> VocabKind:
        return "causal"

    def tensors(self, stored: StoredTensor) -> Iterable[tuple[str, StoredTensor]]:
        if not stored.name.endswith(_UNUSED) and not (self.tied and stored.name == "lm_head.weight"):
            yield stored.name, stored

    def rearrange(self, name: str, rows: NDArray[Any]) -> NDArray[Any]:
        if not self.turns_pairs or not (".attn_q." in name or ".attn_k." in name):
            return rows
        # Each head: first all cosines, then all sines, to pairs.
        halves = rows.reshape(-1, 2, self.head_dim // 2, *rows.shape[1:])
        return halves.swapaxes(1, 2).reshape(rows.shape)

    def shape(self, name: str) -> tuple[int, ...] | None:
        if name.startswith("blk."):
            name = name.split(".", 2)[2]
        return self.shapes().get(name)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of tensors by name, those of a layer without its number."""
        q, kv = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        gate = 2 * self.n_ff if self.joins_gate_and_up else self.n_ff
        return {
            "token_embd.weight": (self.n_vocab, self.n_embd),
            "output.weight": (self.n_vocab, self.n_embd),
            "output_norm.weight": (self.n_embd,),
            "attn_q.weight": (q, self.n_embd),
            "attn_k.weight": (kv, self.n_embd),
            "attn_v.weight": (kv, self.n_embd),
            "attn_qkv.weight": (q + 2 * kv, self.n_embd),
            "attn_output.weight": (self.n_embd, q),
            "attn_q.bias": (q,),
            "attn_k.bias": (kv,),
            "attn_v.bias": (kv,),
            "attn_qkv.bias": (q + 2 * kv,),
            "attn_norm.weight": (self.n_embd,),
            "ffn_norm.weight": (self.n_embd,),
            "post_attention_norm.weight": (self.n_embd,),
            "post_ffw_norm.weight": (self.n_embd,),
            "attn_q_norm.weight": (self.head_dim,),
            "attn_k_norm.weight": (self.head_dim,),
            "ffn_gate.weight": (self.n_ff, self.n_embd),
            "ffn_up.weight": (gate, self.n_embd),
            "ffn_down.weight": (self.n_embd, self.n_ff),
        }

    def required(self) -> Iterator[str]:
        yield from ("token_embd.weight", "output_norm.weight")
        if not self.tied:
            yield "output.weight"
        yield from (f"blk.{i}.{name}" for i in range(self.n_layers) for name in self.layer())

    def layer(self) -> Iterator[str]:
        """List the tensors without which a layer does not run."""
        yield from ("attn_norm.weight", "ffn_norm.weight", "attn_output.weight")
        if self.joins_attention:
            yield "attn_qkv.weight"
        else:
            yield from ("attn_q.weight", "attn_k.weight", "attn_v.weight")
        yield from (f"{name}.bias" for name in self.biases)
        if self.norms_heads:
            yield from ("attn_q_norm.weight", "attn_k_norm.weight")
        if self.norms_branches:
            yield from ("post_attention_norm.weight", "post_ffw_norm.weight")
        yield from self.feed_forward()

    def feed_forward(self) -> Iterator[str]:
        """List those of its feed-forward network."""
        yield from ("ffn_up.weight", "ffn_down.weight")
        if not self.joins_gate_and_up:
            yield "ffn_gate.weight"

    def extra_tensors(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        return rope_tensors(self.config, self.n_rotated)

    def write_hparams(self, writer: gguf.GGUFWriter, folder: Path) -> None:
        self.write_sizes(writer)
        writer.add_head_count_kv(self.n_kv_heads)
        writer.add_layer_norm_rms_eps(read_number(self.config, "rms_norm_eps", float, 1e-6))
        writer.add_key_length(self.head_dim)
        writer.add_value_length(self.head_dim)
        writer.add_vocab_size(self.n_vocab)
        writer.add_rope_dimension_count(self.n_rotated)
        write_rope(writer, self.config)
        if (folder / "modules.json").exists():
            write_embedding_keys(writer, folder)


class Llama(CausalConversion):
    """Llama, and what is built like it."""

    turns_pairs = True

    def write_hparams(self, writer: gguf.GGUFWriter, folder: Path) -> None:
        super().write_hparams(writer, folder)
        if self.config.get("sliding_window") is not None:
            writer.add_sliding_window(read_size(self.config, "sliding_window", 1 << 30))


def _check_activation(config: Mapping[str, Any], expected: str) -> None:
    for key in ("hidden_act", "hidden_activation"):
        activation = config.get(key)
        if activation is not None and activation != expected:
            raise ConversionError(f"{key} is {activation!r}; {expected!r} is expected")
