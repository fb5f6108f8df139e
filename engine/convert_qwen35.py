"""Qwen 3.5: three of four layers follow the gated delta rule, and the fourth has gated attention."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from engine.conversion import MAX_SIZE, read_size
from engine.convert_causal import CausalConversion
from engine.errors import ConversionError
from engine.safetensors_folder import StoredTensor

_MAX_TAPS = 64
_UNUSED = ("visual.", "mtp.")


class Qwen35(CausalConversion):
    """Qwen 3.5; of a model of images, the part that reads text."""

    norms_heads = True

    @staticmethod
    def normalize(config: Mapping[str, Any]) -> Mapping[str, Any]:
        text = config.get("text_config")
        flat = {**config, **text} if isinstance(text, dict) else dict(config)
        rope = flat.get("rope_parameters")
        given = rope.get("partial_rotary_factor") if isinstance(rope, dict) else None
        return {"head_dim": 256, "partial_rotary_factor": 0.25 if given is None else given, **flat}

    @property
    def n_key_heads(self) -> int:
        return read_size(self.config, "linear_num_key_heads", MAX_SIZE)

    @property
    def n_value_heads(self) -> int:
        return read_size(self.config, "linear_num_value_heads", MAX_SIZE)

    @property
    def key_dim(self) -> int:
        return read_size(self.config, "linear_key_head_dim", MAX_SIZE)

    @property
    def value_dim(self) -> int:
        return read_size(self.config, "linear_value_head_dim", MAX_SIZE)

    @property
    def n_taps(self) -> int:
        return read_size(self.config, "linear_conv_kernel_dim", _MAX_TAPS)

    @property
    def period(self) -> int:
        """Every how many layers one has attention."""
        return read_size(self.config, "full_attention_interval", 1 << 20, default=4)

    def check(self) -> None:
        kinds = self.config.get("layer_types")
        expected = [
            "full_attention" if self.has_attention(i) else "linear_attention" for i in range(self.n_layers)
        ]
        if kinds is not None and kinds != expected:
            raise ConversionError(
                f"config.json has layer_types with attention in other layers than every {self.period}th"
            )
        if self.n_value_heads % self.n_key_heads:
            raise ConversionError(
                f"linear_num_value_heads {self.n_value_heads} is no multiple of linear_num_key_heads "
                f"{self.n_key_heads}"
            )

    def has_attention(self, layer: int) -> bool:
        """Say whether a layer attends to what is cached."""
        return (layer + 1) % self.period == 0

    def tensors(self, stored: StoredTensor) -> Iterable[tuple[str, StoredTensor]]:
        inner = stored.name.removeprefix("model.").removeprefix("language_model.").removeprefix("model.")
        if inner.startswith(_UNUSED):
            return
        name = inner if inner.startswith("lm_head.") else f"model.{inner}"
        name = name.replace(".linear_attn.dt_bias", ".linear_attn.dt_proj.bias")
        for renamed, tensor in super().tensors(replace(stored, name=name)):
            # The convolution has a dimension of one channel.
            shape = tuple(n for n in tensor.shape if n != 1) if "conv1d" in renamed else tensor.shape
            yield renamed, replace(tensor, shape=shape)

    def rearrange(self, name: str, rows: NDArray[Any]) -> NDArray[Any]:
        """Put value heads in turns: a folder has those of one key head side by side."""
        part = name.split(".", 2)[-1]
        if part in ("ssm_alpha.weight", "ssm_beta.weight", "ssm_a", "ssm_dt.bias"):
            return self._take_turns(rows, 1)
        if part == "attn_gate.weight":
            return self._take_turns(rows, self.value_dim)
        if part == "ssm_out.weight":
            return self._take_turns(rows.T, self.value_dim).T
        # Where the layer has attention, its queries, keys and values are tensors of their own.
        if part in ("attn_qkv.weight", "ssm_conv1d.weight"):
            n_keys = 2 * self.n_key_heads * self.key_dim
            return np.concatenate([rows[:n_keys], self._take_turns(rows[n_keys:], self.value_dim)])
        return rows

    def _take_turns(self, rows: NDArray[Any], n_each: int) -> NDArray[Any]:
        grouped = rows.reshape(self.n_key_heads, -1, n_each, *rows.shape[1:])
        return grouped.swapaxes(0, 1).reshape(rows.shape)

    def adjust(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        if name.endswith(".ssm_a"):
            return -np.exp(values)
        if name.endswith("norm.weight") and not name.endswith(".ssm_norm.weight"):
            return values + 1
        return values

    def shapes(self) -> dict[str, tuple[int, ...]]:
        values = self.n_value_heads * self.value_dim
        mixed = 2 * self.n_key_heads * self.key_dim + values
        return super().shapes() | {
            "attn_q.weight": (2 * self.n_heads * self.head_dim, self.n_embd),
            "attn_qkv.weight": (mixed, self.n_embd),
            "attn_gate.weight": (values, self.n_embd),
            "ssm_conv1d.weight": (mixed, self.n_taps),
            "ssm_alpha.weight": (self.n_value_heads, self.n_embd),
            "ssm_beta.weight": (self.n_value_heads, self.n_embd),
            "ssm_a": (self.n_value_heads,),
            "ssm_dt.bias": (self.n_value_heads,),
            "ssm_norm.weight": (self.value_dim,),
            "ssm_out.weight": (self.n_embd, values),
        }

    def required(self) -> Iterator[str]:
        yield from ("token_embd.weight", "output_norm.weight")
        if not self.tied:
            yield "output.weight"
        both = ("attn_norm", "post_attention_norm", "ffn_gate", "ffn_up", "ffn_down")
        attention = ("attn_q", "attn_k", "attn_v", "attn_output", "attn_q_norm", "attn_k_norm")
        delta = ("attn_qkv", "attn_gate", "ssm_conv1d", "ssm_alpha", "ssm_beta", "ssm_norm", "ssm_out")
        for i in range(self.n_layers):
            for part in (*both, *(attention if self.has_attention(i) else delta)):
                yield f"blk.{i}.{part}.weight"
            if not self.has_attention(i):
                yield from (f"blk.{i}.ssm_a", f"blk.{i}.ssm_dt.bias")

    def write_hparams(self, writer: gguf.GGUFWriter, folder: Path) -> None:
        super().write_hparams(writer, folder)
        writer.add_ssm_conv_kernel(self.n_taps)
        writer.add_ssm_state_size(self.key_dim)
        writer.add_ssm_group_count(self.n_key_heads)
        writer.add_ssm_time_step_rank(self.n_value_heads)
        writer.add_ssm_inner_size(self.n_value_heads * self.value_dim)
        writer.add_full_attention_interval(self.period)
        # How rotary pairs divide among time, height and width; for text all three are the position.
        rope = self.config.get("rope_parameters")
        sections = rope.get("mrope_section") if isinstance(rope, dict) else None
        sections = sections or [self.n_rotated // 2, 0, 0]
        writer.add_rope_dimension_sections([*sections[:4], 0, 0, 0, 0][:4])
