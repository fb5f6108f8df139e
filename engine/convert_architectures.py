"""The architectures of config.json that can be converted."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf

from engine.conversion import Conversion
from engine.convert_causal import CausalConversion, Llama
from engine.convert_encoders import ENCODERS, find_encoder
from engine.convert_experts import Mixtral, Qwen2Moe, Qwen3Moe
from engine.convert_families import (
    ChatGlm,
    Gemma2,
    Gemma3,
    Glm,
    Glm4,
    InternLm2,
    MiniCpm,
    Phi3,
    Qwen1,
    Qwen2,
    Qwen3,
)
from engine.convert_qwen35 import Qwen35
from engine.convert_reranker import as_reranker, is_reranker
from engine.errors import ConversionError

_ARCH = gguf.MODEL_ARCH
_DECODERS: Mapping[str, tuple[gguf.MODEL_ARCH, type[CausalConversion]]] = {
    "LlamaForCausalLM": (_ARCH.LLAMA, Llama),
    "LLaMAForCausalLM": (_ARCH.LLAMA, Llama),
    "MistralForCausalLM": (_ARCH.LLAMA, Llama),
    "YiForCausalLM": (_ARCH.LLAMA, Llama),
    "MixtralForCausalLM": (_ARCH.LLAMA, Mixtral),
    "QWenLMHeadModel": (_ARCH.QWEN, Qwen1),
    "Qwen2ForCausalLM": (_ARCH.QWEN2, Qwen2),
    "Qwen2Model": (_ARCH.QWEN2, Qwen2),
    "Qwen2MoeForCausalLM": (_ARCH.QWEN2MOE, Qwen2Moe),
    "Qwen3ForCausalLM": (_ARCH.QWEN3, Qwen3),
    "Qwen3Model": (_ARCH.QWEN3, Qwen3),
    "Qwen3MoeForCausalLM": (_ARCH.QWEN3MOE, Qwen3Moe),
    "Qwen3_5ForCausalLM": (_ARCH.QWEN35, Qwen35),
    "Qwen3_5ForConditionalGeneration": (_ARCH.QWEN35, Qwen35),
    "Gemma2ForCausalLM": (_ARCH.GEMMA2, Gemma2),
    "Gemma3ForCausalLM": (_ARCH.GEMMA3, Gemma3),
    "Gemma3ForConditionalGeneration": (_ARCH.GEMMA3, Gemma3),
    "Phi3ForCausalLM": (_ARCH.PHI3, Phi3),
    "InternLM2ForCausalLM": (_ARCH.INTERNLM2, InternLm2),
    "MiniCPMForCausalLM": (_ARCH.MINICPM, MiniCpm),
    "ChatGLMModel": (_ARCH.CHATGLM, ChatGlm),
    "ChatGLMForConditionalGeneration": (_ARCH.CHATGLM, ChatGlm),
    "GlmForCausalLM": (_ARCH.CHATGLM, Glm),
    "Glm4ForCausalLM": (_ARCH.GLM4, Glm4),
}


def find_conversion(config: Mapping[str, Any], folder: Path) -> Conversion:
    """Read config.json's sizes, and in the folder what a language model is used for.

    Raises: ConversionError naming the key, its value and what is expected.
    """
    architectures = config.get("architectures")
    name = architectures[0] if isinstance(architectures, list) and architectures else None
    if not isinstance(name, str) or (name not in _DECODERS and name not in ENCODERS):
        known = ", ".join([*_DECODERS, *ENCODERS])
        raise ConversionError(f"config.json has architecture {name!r}; known are {known}")
    if config.get("quantization_config"):
        raise ConversionError("config.json has a quantization_config; only unquantised folders are converted")
    if name in ENCODERS:
        return find_encoder(name, config)
    arch, kind = _DECODERS[name]
    conversion = kind.read(name, arch, config)
    if kind is Qwen3 and is_reranker(folder):
        return as_reranker(conversion, folder)
    # One that makes vectors has no matrix that makes logits.
    return replace(conversion, tied=True) if (folder / "modules.json").exists() else conversion
