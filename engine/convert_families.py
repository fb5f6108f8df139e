"""How further families of language models differ from the usual."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from engine.conversion import MAX_SIZE, read_number, read_size, rows_of
from engine.convert_causal import CausalConversion
from engine.errors import ConversionError
from engine.safetensors_folder import StoredTensor


class _Qwen(CausalConversion):
    def check(self) -> None:
        first = self.config.get("max_window_layers")
        windowed = not isinstance(first, int) or first < self.n_layers
        if self.config.get("use_sliding_window") is True and windowed:
            raise ConversionError(
                f"use_sliding_window is true with max_window_layers {first!r}, which a GGUF file cannot say; "
                "false would convert the model with full attention"
            )


class Qwen2(_Qwen):
    """Qwen 1.5, 2 and 2.5."""

    biases = ("attn_q", "attn_k", "attn_v")


class Qwen3(_Qwen):
    """Qwen 3."""

    norms_heads = True


class Qwen1(CausalConversion):
    """The first generation of Qwen (Qwen-1.8B-Chat)."""

    joins_attention = True
    biases = ("attn_qkv",)

    @staticmethod
    def normalize(config: Mapping[str, Any]) -> Mapping[str, Any]:
        # Beyond seq_length it needs scalings (use_dynamic_ntk, use_logn_attn) that GGUF does not know.
        return {
            **config,
            "max_position_embeddings": config.get("seq_length") or config.get("max_position_embeddings"),
            "rms_norm_eps": config.get("layer_norm_epsilon"),
            "rope_theta": config.get("rotary_emb_base"),
            "intermediate_size": read_size(config, "intermediate_size", MAX_SIZE) // 2,
            "head_dim": config.get("kv_channels"),
        }

    def check(self) -> None:
        if self.config.get("no_bias") is False:
            raise ConversionError("config.json has no_bias false; only true can be written to a GGUF file")

    def write_hparams(self, writer: gguf.GGUFWriter, folder: Path) -> None:
        # Files of this architecture count gate and up together.
        super(Qwen1, replace(self, n_ff=2 * self.n_ff)).write_hparams(writer, folder)


class _Gemma(CausalConversion):
    activation = "gelu_pytorch_tanh"
    norms_branches = True
    period = 1
    """Every how many layers one has no window."""
    n_layers_of_27b = 0

    @staticmethod
    def normalize(config: Mapping[str, Any]) -> Mapping[str, Any]:
        text = config.get("text_config")
        # hidden_act is a name that hidden_activation replaced; gemma-2's folders still carry it. Embeddings
        # are always the output, too.
        flat = {**config, **text} if isinstance(text, dict) else dict(config)
        return {
            "head_dim": 256,
            "vocab_size": 262208,
            **flat,
            "hidden_act": None,
            "tie_word_embeddings": True,
        }

    def adjust(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        return values + 1 if name.endswith("norm.weight") else values

    def windowed(self) -> list[bool]:
        """Say which layers have a window."""
        kinds = self.config.get("layer_types")
        if isinstance(kinds, list) and len(kinds) == self.n_layers:
            return [kind == "sliding_attention" for kind in kinds]
        period = read_size(self.config, "sliding_window_pattern", 1 << 20, default=self.period)
        return [i % period < period - 1 for i in range(self.n_layers)]

    def write_hparams(self, writer: gguf.GGUFWriter, folder: Path) -> None:
        super().write_hparams(writer, folder)
        writer.add_sliding_window(read_size(self.config, "sliding_window", 1 << 30, default=4096))
        windowed = self.windowed()
        if windowed != [i % self.period < self.period - 1 for i in range(self.n_layers)]:
            writer.add_sliding_window_pattern(windowed)
        for key, add in (
            ("attn_logit_softcapping", writer.add_attn_logit_softcapping),
            ("final_logit_softcapping", writer.add_final_logit_softcapping),
        ):
            if self.config.get(key) is not None:
                add(read_number(self.config, key, float))
        # Readers know what scores are divided by; another number is written down.
        divisor = read_number(self.config, "query_pre_attn_scalar", float, 256.0)
        known = self.n_embd // self.n_heads if self.n_layers == self.n_layers_of_27b else self.head_dim
        if divisor <= 0:
            raise ConversionError(
                f"config.json has query_pre_attn_scalar {divisor}; a positive number is expected"
            )
        if divisor != known:
            writer.add_attention_scale(1 / math.sqrt(divisor))


class Gemma2(_Gemma):
    """Gemma 2."""

    period = 2
    n_layers_of_27b = 46


class Gemma3(_Gemma):
    """Gemma 3; of a model of images, the part that reads text."""

    period = 6
    n_layers_of_27b = 62
    norms_heads = True

    def tensors(self, stored: StoredTensor) -> Iterable[tuple[str, StoredTensor]]:
        inner = stored.name.removeprefix("model.")
        if inner.startswith(("vision_tower.", "multi_modal_projector.")):
            return
        name = stored.name
        if inner.startswith("language_model."):
            inner = inner.removeprefix("language_model.").removeprefix("model.")
            name = inner if inner.startswith("lm_head.") else f"model.{inner}"
        yield from super().tensors(replace(stored, name=name))

    def write_hparams(self, writer: gguf.GGUFWriter, folder: Path) -> None:
        super().write_hparams(writer, folder)
        rope = self.config.get("rope_parameters")
        local = rope.get("sliding_attention") if isinstance(rope, dict) else None
        base = local.get("rope_theta") if isinstance(local, dict) else self.config.get("rope_local_base_freq")
        if base is not None and base != 10000:
            writer.add_rope_freq_base_swa(
                read_number({"rope_local_base_freq": base}, "rope_local_base_freq", float)
            )


class Phi3(CausalConversion):
    """Phi-3, Phi-3.5 and Phi-4-mini."""

    joins_attention = True
    joins_gate_and_up = True

    def write_hparams(self, writer: gguf.GGUFWriter, folder: Path) -> None:
        super().write_hparams(writer, folder)
        if self.config.get("sliding_window") is not None:
            writer.add_sliding_window(read_size(self.config, "sliding_window", 1 << 30))


class InternLm2(CausalConversion):
    """InternLM 2 and 2.5: each group of queries lies beside its key and value."""

    turns_pairs = True

    def tensors(self, stored: StoredTensor) -> Iterable[tuple[str, StoredTensor]]:
        before, joined, after = stored.name.partition(".attention.wqkv.")
        if not joined:
            yield from super().tensors(stored)
            return
        n_queries = self.n_heads // self.n_kv_heads
        for group in range(self.n_kv_heads):
            at = group * (n_queries + 2) * self.head_dim
            for part, n in (("wq", n_queries), ("wk", 1), ("wv", 1)):
                yield f"{before}.attention.{part}.{after}", rows_of(stored, at, n * self.head_dim)
                at += n * self.head_dim


class MiniCpm(CausalConversion):
    """MiniCPM 1, 2 and 4."""

    turns_pairs = True

    def write_hparams(self, writer: gguf.GGUFWriter, folder: Path) -> None:
        super().write_hparams(writer, folder)
        writer.add_embedding_scale(read_number(self.config, "scale_emb", float, 1.0))
        depth = read_number(self.config, "scale_depth", float, math.sqrt(self.n_layers))
        writer.add_residual_scale(depth / math.sqrt(self.n_layers))
        writer.add_logit_scale(
            self.n_embd / read_size(self.config, "dim_model_base", MAX_SIZE, default=self.n_embd)
        )


class Glm(CausalConversion):
    """GLM-4-9B as `transformers` writes it."""

    joins_gate_and_up = True


class Glm4(Glm):
    """GLM-4-0414."""

    norms_branches = True


class ChatGlm(CausalConversion):
    """ChatGLM 2 and 3, and GLM-4-9B as its makers wrote it."""

    joins_attention = True
    joins_gate_and_up = True

    @staticmethod
    def normalize(config: Mapping[str, Any]) -> Mapping[str, Any]:
        channels = read_size(config, "kv_channels", MAX_SIZE)
        ratio = read_number(config, "rope_ratio", float, 1.0)
        grouped = config.get("multi_query_attention") is True
        return {
            **config,
            "num_hidden_layers": config.get("num_layers"),
            "intermediate_size": config.get("ffn_hidden_size"),
            "num_key_value_heads": config.get("multi_query_group_num") if grouped else None,
            "head_dim": channels,
            "partial_rotary_factor": 0.5,
            "max_position_embeddings": config.get("seq_length"),
            "rms_norm_eps": config.get("layernorm_epsilon"),
            "vocab_size": config.get("padded_vocab_size", config.get("vocab_size")),
            "rope_theta": 10000.0 * ratio,
        }

    def check(self) -> None:
        for key, only in (
            ("add_bias_linear", False),
            ("rmsnorm", True),
            ("apply_residual_connection_post_layernorm", False),
            ("post_layer_norm", True),
        ):
            if self.config.get(key, only) is not only:
                raise ConversionError(f"config.json has {key} {self.config.get(key)!r}; {only} is expected")

    def tensors(self, stored: StoredTensor) -> Iterable[tuple[str, StoredTensor]]:
        for name, tensor in super().tensors(stored):
            yield name.removeprefix("transformer."), tensor

    def layer(self) -> Iterator[str]:
        yield from super().layer()
        if self.config.get("add_qkv_bias") is True:
            yield "attn_qkv.bias"
