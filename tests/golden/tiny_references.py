"""Architectures that `transformers` does not have, written from what their makers published.

Modules have the names of the makers' folders, so that state_dict() is such a folder.

Sources, each the modelling file and config.json beside the weights on the hub:
Qwen/Qwen-1_8B-Chat, internlm/internlm2-chat-7b, openbmb/MiniCPM-2B-sft-bf16, THUDM/chatglm3-6b.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

N_VOCAB = 288


class RmsNorm(nn.Module):
    """x / rms(x) * weight."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon) * self.weight


def angles(n: int, n_rotated: int, base: float) -> Tensor:
    """Return the angle of each position and pair, [n, n_rotated / 2]."""
    frequencies = base ** (-torch.arange(0, n_rotated, 2, dtype=torch.float64) / n_rotated)
    return torch.outer(torch.arange(n, dtype=torch.float64), frequencies).float()


def turn_halves(x: Tensor, base: float) -> Tensor:
    """Turn (x[i], x[i + dim / 2]) of [heads, n, dim]."""
    turned = angles(x.shape[1], x.shape[2], base)
    a, b = x.chunk(2, -1)
    cosines, sines = turned.cos(), turned.sin()
    return torch.cat([a * cosines - b * sines, a * sines + b * cosines], -1)


def turn_pairs(x: Tensor, n_rotated: int, base: float) -> Tensor:
    """Turn (x[2i], x[2i + 1]) of the first n_rotated dimensions of [heads, n, dim]."""
    turned = angles(x.shape[1], n_rotated, base)
    a, b = x[..., 0:n_rotated:2], x[..., 1:n_rotated:2]
    cosines, sines = turned.cos(), turned.sin()
    pairs = torch.stack([a * cosines - b * sines, a * sines + b * cosines], -1).flatten(-2)
    return torch.cat([pairs, x[..., n_rotated:]], -1)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention of [heads, n, dim], keys repeated for groups of queries; returns [n, heads * dim]."""
    groups = query.shape[0] // key.shape[0]
    key, value = key.repeat_interleave(groups, 0), value.repeat_interleave(groups, 0)
    scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
    hidden = torch.full(scores.shape[1:], float("-inf")).triu(1)
    return ((scores + hidden).softmax(-1) @ value).transpose(0, 1).flatten(1)


def heads(x: Tensor, dim: int) -> Tensor:
    """Cut [n, heads * dim] to [heads, n, dim]."""
    return x.unflatten(-1, (-1, dim)).transpose(0, 1)


class QwenBlock(nn.Module):
    """One layer of Qwen-1.8B: joined q, k, v with biases; gate is w2, up is w1."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, half = config["hidden_size"], config["intermediate_size"] // 2
        self.dim, self.base = config["kv_channels"], config["rotary_emb_base"]
        self.ln_1 = RmsNorm(width, config["layer_norm_epsilon"])
        self.ln_2 = RmsNorm(width, config["layer_norm_epsilon"])
        self.attn = nn.ModuleDict(
            {"c_attn": nn.Linear(width, 3 * width), "c_proj": nn.Linear(width, width, bias=False)}
        )
        self.mlp = nn.ModuleDict(
            {
                "w1": nn.Linear(width, half, bias=False),
                "w2": nn.Linear(width, half, bias=False),
                "c_proj": nn.Linear(half, width, bias=False),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (heads(part, self.dim) for part in self.attn["c_attn"](self.ln_1(x)).chunk(3, -1))
        query, key = turn_halves(query, self.base), turn_halves(key, self.base)
        x = x + self.attn["c_proj"](attend(query, key, value))
        normed = self.ln_2(x)
        return x + self.mlp["c_proj"](self.mlp["w1"](normed) * functional.silu(self.mlp["w2"](normed)))


class Qwen(nn.Module):
    """QWenLMHeadModel."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width = config["hidden_size"]
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config["vocab_size"], width),
                "h": nn.ModuleList(QwenBlock(config) for _ in range(config["num_hidden_layers"])),
                "ln_f": RmsNorm(width, config["layer_norm_epsilon"]),
            }
        )
        self.lm_head = nn.Linear(width, config["vocab_size"], bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.transformer["wte"](ids[0])
        for block in self.transformer["h"]:
            x = block(x)
        return self.lm_head(self.transformer["ln_f"](x))[None]


class InternLm2Block(nn.Module):
    """One layer of InternLM2: wqkv holds, group by group, the queries, the key and the value."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, n_ff = config["hidden_size"], config["intermediate_size"]
        self.n_heads, self.n_kv = config["num_attention_heads"], config["num_key_value_heads"]
        self.dim, self.base = width // self.n_heads, config["rope_theta"]
        self.attention_norm = RmsNorm(width, config["rms_norm_eps"])
        self.ffn_norm = RmsNorm(width, config["rms_norm_eps"])
        self.attention = nn.ModuleDict(
            {
                "wqkv": nn.Linear(width, (self.n_heads + 2 * self.n_kv) * self.dim, bias=False),
                "wo": nn.Linear(width, width, bias=False),
            }
        )
        self.feed_forward = nn.ModuleDict(
            {
                "w1": nn.Linear(width, n_ff, bias=False),
                "w2": nn.Linear(n_ff, width, bias=False),
                "w3": nn.Linear(width, n_ff, bias=False),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        groups = self.n_heads // self.n_kv
        joined = self.attention["wqkv"](self.attention_norm(x)).unflatten(
            -1, (self.n_kv, groups + 2, self.dim)
        )
        query = joined[:, :, :groups].flatten(1, 2).transpose(0, 1)
        key, value = joined[:, :, groups].transpose(0, 1), joined[:, :, groups + 1].transpose(0, 1)
        query, key = turn_halves(query, self.base), turn_halves(key, self.base)
        x = x + self.attention["wo"](attend(query, key, value))
        normed, mlp = self.ffn_norm(x), self.feed_forward
        return x + mlp["w2"](functional.silu(mlp["w1"](normed)) * mlp["w3"](normed))


class InternLm2(nn.Module):
    """InternLM2ForCausalLM."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width = config["hidden_size"]
        self.model = nn.ModuleDict(
            {
                "tok_embeddings": nn.Embedding(config["vocab_size"], width),
                "layers": nn.ModuleList(InternLm2Block(config) for _ in range(config["num_hidden_layers"])),
                "norm": RmsNorm(width, config["rms_norm_eps"]),
            }
        )
        self.output = nn.Linear(width, config["vocab_size"], bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.model["tok_embeddings"](ids[0])
        for layer in self.model["layers"]:
            x = layer(x)
        return self.output(self.model["norm"](x))[None]


class MiniCpmBlock(nn.Module):
    """One layer of MiniCPM: a Llama whose branches are scaled."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, n_ff = config["hidden_size"], config["intermediate_size"]
        self.dim = width // config["num_attention_heads"]
        kv = config["num_key_value_heads"] * self.dim
        self.scale = config["scale_depth"] / config["num_hidden_layers"] ** 0.5
        self.input_layernorm = RmsNorm(width, config["rms_norm_eps"])
        self.post_attention_layernorm = RmsNorm(width, config["rms_norm_eps"])
        self.self_attn = nn.ModuleDict(
            {
                "q_proj": nn.Linear(width, width, bias=False),
                "k_proj": nn.Linear(width, kv, bias=False),
                "v_proj": nn.Linear(width, kv, bias=False),
                "o_proj": nn.Linear(width, width, bias=False),
            }
        )
        self.mlp = nn.ModuleDict(
            {
                "gate_proj": nn.Linear(width, n_ff, bias=False),
                "up_proj": nn.Linear(width, n_ff, bias=False),
                "down_proj": nn.Linear(n_ff, width, bias=False),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        normed = self.input_layernorm(x)
        query, key, value = (heads(self.self_attn[f"{p}_proj"](normed), self.dim) for p in "qkv")
        query, key = turn_halves(query, 10000.0), turn_halves(key, 10000.0)
        x = x + self.scale * self.self_attn["o_proj"](attend(query, key, value))
        normed, mlp = self.post_attention_layernorm(x), self.mlp
        gated = functional.silu(mlp["gate_proj"](normed)) * mlp["up_proj"](normed)
        return x + self.scale * mlp["down_proj"](gated)


class MiniCpm(nn.Module):
    """MiniCPMForCausalLM, embeddings tied."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width = config["hidden_size"]
        self.scale, self.divisor = config["scale_emb"], width / config["dim_model_base"]
        self.model = nn.ModuleDict(
            {
                "embed_tokens": nn.Embedding(config["vocab_size"], width),
                "layers": nn.ModuleList(MiniCpmBlock(config) for _ in range(config["num_hidden_layers"])),
                "norm": RmsNorm(width, config["rms_norm_eps"]),
            }
        )

    def forward(self, ids: Tensor) -> Tensor:
        x = self.model["embed_tokens"](ids[0]) * self.scale
        for layer in self.model["layers"]:
            x = layer(x)
        return (self.model["norm"](x) / self.divisor @ self.model["embed_tokens"].weight.T)[None]


class ChatGlmBlock(nn.Module):
    """One layer of ChatGLM3: pairs of half the dimensions turned; gate and up in one matrix."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, n_ff = config["hidden_size"], config["ffn_hidden_size"]
        self.dim, self.base = config["kv_channels"], 10000.0 * config["rope_ratio"]
        self.sizes = [
            config["num_attention_heads"] * self.dim,
            *2 * [config["multi_query_group_num"] * self.dim],
        ]
        self.input_layernorm = RmsNorm(width, config["layernorm_epsilon"])
        self.post_attention_layernorm = RmsNorm(width, config["layernorm_epsilon"])
        self.self_attention = nn.ModuleDict(
            {
                "query_key_value": nn.Linear(width, sum(self.sizes)),
                "dense": nn.Linear(self.sizes[0], width, bias=False),
            }
        )
        self.mlp = nn.ModuleDict(
            {
                "dense_h_to_4h": nn.Linear(width, 2 * n_ff, bias=False),
                "dense_4h_to_h": nn.Linear(n_ff, width, bias=False),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        joined = self.self_attention["query_key_value"](self.input_layernorm(x))
        query, key, value = (heads(part, self.dim) for part in joined.split(self.sizes, -1))
        query, key = (turn_pairs(part, self.dim // 2, self.base) for part in (query, key))
        x = x + self.self_attention["dense"](attend(query, key, value))
        gate, up = self.mlp["dense_h_to_4h"](self.post_attention_layernorm(x)).chunk(2, -1)
        return x + self.mlp["dense_4h_to_h"](functional.silu(gate) * up)


class ChatGlm(nn.Module):
    """ChatGLMModel."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, n_vocab = config["hidden_size"], config["padded_vocab_size"]
        self.transformer = nn.ModuleDict(
            {
                "embedding": nn.ModuleDict({"word_embeddings": nn.Embedding(n_vocab, width)}),
                "encoder": nn.ModuleDict(
                    {
                        "layers": nn.ModuleList(ChatGlmBlock(config) for _ in range(config["num_layers"])),
                        "final_layernorm": RmsNorm(width, config["layernorm_epsilon"]),
                    }
                ),
                "output_layer": nn.Linear(width, n_vocab, bias=False),
            }
        )

    def forward(self, ids: Tensor) -> Tensor:
        x = self.transformer["embedding"]["word_embeddings"](ids[0])
        for layer in self.transformer["encoder"]["layers"]:
            x = layer(x)
        return self.transformer["output_layer"](self.transformer["encoder"]["final_layernorm"](x))[None]


_SIZES = {"vocab_size": N_VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_USUAL = _SIZES | {"intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 256}
MODELS: Mapping[str, tuple[type[nn.Module], Mapping[str, Any]]] = {
    "qwen": (
        Qwen,
        _SIZES
        | {
            "architectures": ["QWenLMHeadModel"],
            "intermediate_size": 96,
            "kv_channels": 8,
            "layer_norm_epsilon": 1e-6,
            "rotary_emb_base": 10000,
            "seq_length": 256,
            "max_position_embeddings": 256,
            "no_bias": True,
            "tie_word_embeddings": False,
            "use_dynamic_ntk": True,
            "use_logn_attn": True,
        },
    ),
    "internlm2": (
        InternLm2,
        _USUAL
        | {
            "architectures": ["InternLM2ForCausalLM"],
            "bias": False,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "rope_scaling": {"type": "dynamic", "factor": 2.0},
            "rope_theta": 1000000,
        },
    ),
    "minicpm": (
        MiniCpm,
        _USUAL
        | {
            "architectures": ["MiniCPMForCausalLM"],
            "dim_model_base": 8,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "scale_depth": 1.4,
            "scale_emb": 12,
            "tie_word_embeddings": True,
        },
    ),
    "chatglm": (
        ChatGlm,
        {
            "architectures": ["ChatGLMModel"],
            "add_bias_linear": False,
            "add_qkv_bias": True,
            "ffn_hidden_size": 48,
            "hidden_size": 32,
            "kv_channels": 8,
            "layernorm_epsilon": 1e-5,
            "multi_query_attention": True,
            "multi_query_group_num": 2,
            "num_attention_heads": 4,
            "num_layers": 2,
            "padded_vocab_size": N_VOCAB,
            "rmsnorm": True,
            "rope_ratio": 50,
            "seq_length": 256,
            "tie_word_embeddings": False,
        },
    ),
}
