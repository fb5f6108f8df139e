"""Make tiny random models with `transformers`, and golden values for tests/engine/test_exactness.py.

    python tests/golden/make_tiny_models.py

Needs: transformers, torch, safetensors, tokenizers. Writes tests/data/tiny/NAME/ (a Hugging Face folder with
golden.npz beside the weights). Weights are saved as BF16 and computed with as F32, to stay small and exact.
"""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

OUT = Path(__file__).parents[1] / "data" / "tiny"
N_VOCAB = 288
N_TOKENS = 40
N_KEPT = 10
"""Logits of the last positions are kept: each depends on all before it."""


def llama(**changes: object) -> LlamaForCausalLM:
    """A Llama of two layers, with `changes` to its configuration."""
    sizes: dict[str, object] = {
        "vocab_size": N_VOCAB,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
    }
    return LlamaForCausalLM(LlamaConfig(**(sizes | changes)))


def qwen2() -> Qwen2ForCausalLM:
    """A Qwen2: biases on q, k and v."""
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=N_VOCAB,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=True,
        )
    )
    for layer in model.model.layers:
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
            torch.nn.init.normal_(projection.bias, std=0.3)
    return model


def qwen3() -> Qwen3ForCausalLM:
    """A Qwen3: norms on q and k, heads wider than hidden_size / heads."""
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=N_VOCAB,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=256,
            tie_word_embeddings=True,
        )
    )
    for layer in model.model.layers:
        torch.nn.init.normal_(layer.self_attn.q_norm.weight, 1.0, 0.2)
        torch.nn.init.normal_(layer.self_attn.k_norm.weight, 1.0, 0.2)
    return model


def bert() -> BertModel:
    """A BERT of two layers whose head_dim is 24."""
    return BertModel(
        BertConfig(
            vocab_size=N_VOCAB,
            hidden_size=48,
            intermediate_size=80,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=128,
        )
    )


def rope(kind: str, **values: object) -> dict[str, object]:
    """A rope_parameters value."""
    return {"rope_type": kind, "rope_theta": 10000.0, **values}


LLAMA3 = rope(
    "llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)
YARN = rope("yarn", factor=4.0, original_max_position_embeddings=16)
CAUSAL = {
    "llama-gqa-untied": llama,
    "llama-tied": lambda: llama(tie_word_embeddings=True),
    "llama-head24": lambda: llama(hidden_size=96, num_attention_heads=4, num_key_value_heads=1),
    "llama-head40-odd": lambda: llama(
        hidden_size=80, intermediate_size=112, num_attention_heads=2, num_key_value_heads=2, head_dim=40
    ),
    "llama-odd-width": lambda: llama(
        hidden_size=84, intermediate_size=100, num_attention_heads=7, head_dim=12, num_key_value_heads=7
    ),
    "llama-rope-linear": lambda: llama(rope_parameters=rope("linear", factor=4.0)),
    "llama-rope-llama3": lambda: llama(rope_parameters=LLAMA3),
    "llama-rope-yarn": lambda: llama(rope_parameters=YARN),
    "qwen2": qwen2,
    "qwen3": qwen3,
}
POOLINGS = {"bert-mean": "pooling_mode_mean_tokens", "bert-cls": "pooling_mode_cls_token"}


def spread_weights(model: torch.nn.Module) -> None:
    """Scale the weights up, so that logits differ clearly, and round them to BF16, as saved."""
    for name, parameter in model.named_parameters():
        if "norm" in name.lower():
            torch.nn.init.normal_(parameter, 0.0 if name.endswith("bias") else 1.0, 0.1)
        elif parameter.ndim == 2:
            torch.nn.init.normal_(parameter, 0.0, 1.0 / parameter.shape[1] ** 0.5)
        parameter.data = parameter.data.to(torch.bfloat16).to(torch.float32)


def write_byte_level_tokenizer(folder: Path) -> None:
    """Write a GPT-2 tokenizer of the 256 bytes, one merge and an end token."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: i for i, letter in enumerate(letters)} | {"he": 256}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[("h", "e")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>", "add_bos_token": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_wordpiece_vocab(folder: Path) -> None:
    """Write a vocab.txt of special tokens, letters and what continues them."""
    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")


def save(model: PreTrainedModel, folder: Path) -> None:
    """Save configuration and BF16 weights, without what the versions of libraries add."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # A copy: rotary frequencies rounded to BF16 would not come back.
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)


def main() -> None:
    """Write every model and its golden values."""
    torch.manual_seed(20260101)
    ids = torch.randint(5, N_VOCAB - 40, (1, N_TOKENS))
    for name, make in CAUSAL.items():
        model = make().eval()
        spread_weights(model)
        save(model, OUT / name)
        write_byte_level_tokenizer(OUT / name)
        with torch.no_grad():
            logits = model(ids).logits[0, -N_KEPT:].float().numpy()
        np.savez_compressed(
            OUT / name / "golden.npz", token_ids=ids[0].numpy().astype(np.int32), logits=logits
        )
    encoder = bert().eval()
    spread_weights(encoder)
    for name, key in POOLINGS.items():
        save(encoder, OUT / name)
        write_wordpiece_vocab(OUT / name)
        (OUT / name / "1_Pooling").mkdir()
        (OUT / name / "1_Pooling" / "config.json").write_text(json.dumps({key: True}))
        with torch.no_grad():
            states = encoder(ids).last_hidden_state[0].float()
        vector = states.mean(0) if name == "bert-mean" else states[0]
        vector = torch.nn.functional.normalize(vector, dim=0).numpy()
        np.savez_compressed(
            OUT / name / "golden.npz", token_ids=ids[0].numpy().astype(np.int32), vector=vector
        )
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    (OUT / "versions.json").write_text(json.dumps(versions) + "\n")


if __name__ == "__main__":
    main()
