"""Make tiny random models of further decoders, and golden logits for tests/engine/test_exactness.py.

    python -m tests.golden.make_tiny_decoders [NAME ...]

Needs: transformers, torch, safetensors, tokenizers. Writes tests/data/tiny/NAME/ as make_tiny_models does.
What `transformers` does not have stands in tiny_references.py.
"""

import copy
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

from tests.golden import tiny_references
from tests.golden.make_tiny_models import N_KEPT, N_TOKENS, N_VOCAB, OUT, rope, write_byte_level_tokenizer

SIZES = {
    "vocab_size": N_VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "attn_implementation": "eager",
}
EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
DELTA = {
    "num_hidden_layers": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_conv_kernel_dim": 4,
    "rope_parameters": rope(
        "default", partial_rotary_factor=0.5, mrope_section=[2, 1, 1], mrope_interleaved=True
    ),
    "layer_types": ["linear_attention"] * 3 + ["full_attention"],
}
LONG = rope(
    "longrope",
    short_factor=[1.0, 1.1, 1.3, 1.6],
    long_factor=[1.0, 1.5, 3.0, 8.0],
    original_max_position_embeddings=64,
)
TRANSFORMERS = {
    "llama-window": ("Mistral", {"sliding_window": 12}),
    "mixtral": ("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2moe": ("Qwen2Moe", EXPERTS | {"shared_expert_intermediate_size": 64, "norm_topk_prob": False}),
    "qwen3moe": ("Qwen3Moe", EXPERTS | {"norm_topk_prob": True}),
    "qwen35": ("Qwen3_5", DELTA),
    "qwen35-grouped": ("Qwen3_5", DELTA | {"linear_num_value_heads": 4, "tie_word_embeddings": True}),
    "gemma2": ("Gemma2", {"sliding_window": 12, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 5.0}),
    "gemma2-scale": (
        "Gemma2",
        {"sliding_window": 20, "query_pre_attn_scalar": 24, "final_logit_softcapping": 4.0},
    ),
    "gemma3": ("Gemma3", {"sliding_window": 10, "query_pre_attn_scalar": 16, "num_hidden_layers": 6}),
    "phi-window": ("Phi3", {"sliding_window": 14}),
    "phi-longrope-short": (
        "Phi3",
        {"rope_parameters": LONG, "original_max_position_embeddings": 64, "max_position_embeddings": 256},
    ),
    "phi-longrope-long": (
        "Phi3",
        {
            "rope_parameters": LONG | {"original_max_position_embeddings": 24},
            "original_max_position_embeddings": 24,
            "max_position_embeddings": 48,
        },
    ),
    "phi-partial": ("Phi3", {"partial_rotary_factor": 0.75, "tie_word_embeddings": True}),
    "chatglm-hf": ("Glm", {"partial_rotary_factor": 0.5, "attention_bias": True}),
    "glm4": ("Glm4", {"partial_rotary_factor": 0.5, "attention_bias": True}),
}
CAUSAL_CLASS = {
    "Gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM"),
    "Qwen3_5": ("Qwen3_5TextConfig", "Qwen3_5ForCausalLM"),
}
NORMS_ADD_ONE = ("Gemma2", "Gemma3", "Qwen3_5")


def make(kind: str, changes: dict[str, object]) -> transformers.PreTrainedModel:
    """A model of `transformers` with `changes` to its configuration."""
    config_class, model_class = CAUSAL_CLASS.get(kind, (f"{kind}Config", f"{kind}ForCausalLM"))
    values = SIZES | ({"head_dim": 8} if kind in ("Phi3", "Qwen2Moe", "Glm") else {}) | changes
    config = getattr(transformers, config_class)(**values)
    config._attn_implementation = "eager"
    return getattr(transformers, model_class)(config)


def spread(model: torch.nn.Module, *, norms_add_one: bool) -> None:
    """Draw weights whose every part changes the logits, rounded to BF16, as saved."""
    for name, parameter in model.named_parameters():
        if "norm" in name.lower() or ".ln_" in name:
            torch.nn.init.normal_(parameter, 0.0 if norms_add_one else 1.0, 0.2)
        elif parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, 0.0, 1.0 / parameter.shape[-1] ** 0.5)
        else:
            torch.nn.init.normal_(parameter, 0.0, 0.3)
        parameter.data = parameter.data.to(torch.bfloat16).to(torch.float32)


def write_golden(model: torch.nn.Module, ids: torch.Tensor, folder: Path) -> None:
    """Write the logits of the last positions: each depends on all before it."""
    with torch.no_grad():
        output = model(ids)
    logits = (output if isinstance(output, torch.Tensor) else output.logits)[0, -N_KEPT:].float().numpy()
    np.savez_compressed(folder / "golden.npz", token_ids=ids[0].numpy().astype(np.int32), logits=logits)


def main(names: list[str]) -> None:
    """Write the models called `names`, or every one, with their golden values."""
    for name, (kind, changes) in TRANSFORMERS.items():
        if names and name not in names:
            continue
        torch.manual_seed(20260102)
        ids = torch.randint(5, N_VOCAB - 40, (1, N_TOKENS))
        model = make(kind, changes).eval()
        spread(model, norms_add_one=kind in NORMS_ADD_ONE)
        folder = OUT / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        # A copy: rotary frequencies rounded to BF16 would not come back.
        copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        write_byte_level_tokenizer(folder)
        write_golden(model, ids, folder)
    for name, (model_class, config) in tiny_references.MODELS.items():
        if names and name not in names:
            continue
        torch.manual_seed(20260103)
        ids = torch.randint(5, N_VOCAB - 40, (1, N_TOKENS))
        reference = model_class(config).eval()
        spread(reference, norms_add_one=False)
        folder = OUT / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        save_file(
            {key: value.to(torch.bfloat16).contiguous() for key, value in reference.state_dict().items()},
            folder / "model.safetensors",
        )
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        write_byte_level_tokenizer(folder)
        write_golden(reference, ids, folder)


if __name__ == "__main__":
    main(sys.argv[1:])
