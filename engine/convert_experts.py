"""Models with experts: Qwen's and Mixtral."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import gguf

from engine.conversion import MAX_SIZE, read_size
from engine.convert_causal import CausalConversion, Llama
from engine.errors import ConversionError
from engine.safetensors_folder import StoredTensor

_MAX_EXPERTS = 1024
_EXPERT = re.compile(r"(?P<before>.*\.experts)\.(?P<expert>\d{1,4})\.(?P<after>.*)")


class _Experts(CausalConversion):
    """Of a folder, each expert is tensors of its own; of a GGUF file, they are rows of one."""

    @property
    def n_experts(self) -> int:
        key = "num_local_experts" if "num_local_experts" in self.config else "num_experts"
        return read_size(self.config, key, _MAX_EXPERTS)

    @property
    def n_expert_ff(self) -> int:
        return read_size(self.config, "moe_intermediate_size", MAX_SIZE, default=self.n_ff)

    def part(self, name: str) -> int:
        found = _EXPERT.fullmatch(name)
        return int(found["expert"]) if found else 0

    def tensors(self, stored: StoredTensor) -> Iterable[tuple[str, StoredTensor]]:
        found = _EXPERT.fullmatch(stored.name)
        if found:
            yield f"{found['before']}.{found['after']}", stored
        else:
            yield from super().tensors(stored)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        n, n_ff = self.n_experts, self.n_expert_ff
        return super().shapes() | {
            "ffn_gate_inp.weight": (n, self.n_embd),
            "ffn_gate_exps.weight": (n, n_ff, self.n_embd),
            "ffn_up_exps.weight": (n, n_ff, self.n_embd),
            "ffn_down_exps.weight": (n, self.n_embd, n_ff),
        }

    def feed_forward(self) -> Iterator[str]:
        yield from (f"ffn_{name}.weight" for name in ("gate_inp", "gate_exps", "up_exps", "down_exps"))

    def write_hparams(self, writer: gguf.GGUFWriter, folder: Path) -> None:
        super().write_hparams(writer, folder)
        writer.add_expert_count(self.n_experts)
        writer.add_expert_used_count(read_size(self.config, "num_experts_per_tok", self.n_experts))


class _QwenMoe(_Experts):
    def check(self) -> None:
        dense = self.config.get("mlp_only_layers")
        if dense or self.config.get("decoder_sparse_step", 1) != 1:
            raise ConversionError(
                f"config.json has mlp_only_layers {dense!r} and decoder_sparse_step "
                f"{self.config.get('decoder_sparse_step')!r}; only models with experts in every layer can be "
                "written to a GGUF file"
            )
        normalizes = self.config.get("norm_topk_prob", self.norms_heads)
        if normalizes is not self.norms_heads:
            raise ConversionError(
                f"config.json has norm_topk_prob {normalizes!r}; GGUF files mean {self.norms_heads}"
            )

    def write_hparams(self, writer: gguf.GGUFWriter, folder: Path) -> None:
        super().write_hparams(writer, folder)
        writer.add_expert_feed_forward_length(self.n_expert_ff)


class Qwen2Moe(_QwenMoe):
    """Qwen1.5-MoE and Qwen2-57B: one more expert serves every token."""

    biases = ("attn_q", "attn_k", "attn_v")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        n_ff = read_size(self.config, "shared_expert_intermediate_size", MAX_SIZE)
        return super().shapes() | {
            "ffn_gate_inp_shexp.weight": (self.n_embd,),
            "ffn_gate_shexp.weight": (n_ff, self.n_embd),
            "ffn_up_shexp.weight": (n_ff, self.n_embd),
            "ffn_down_shexp.weight": (self.n_embd, n_ff),
        }

    def feed_forward(self) -> Iterator[str]:
        yield from super().feed_forward()
        yield from (f"ffn_{name}_shexp.weight" for name in ("gate_inp", "gate", "up", "down"))

    def write_hparams(self, writer: gguf.GGUFWriter, folder: Path) -> None:
        super().write_hparams(writer, folder)
        writer.add_expert_shared_feed_forward_length(
            read_size(self.config, "shared_expert_intermediate_size", MAX_SIZE)
        )


class Qwen3Moe(_QwenMoe):
    """Qwen3-30B-A3B and its like."""

    norms_heads = True


class Mixtral(_Experts, Llama):
    """Mixtral: a Llama to GGUF, with experts."""
