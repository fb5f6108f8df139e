"""A plain JinaBERT v2 in torch, for golden values: `transformers` fetches its code from the hub.

Names of parameters are those of the model's own files. Facts: the model's config.json and modeling code
(jinaai/jina-bert-implementation and jinaai/jina-bert-v2-qk-post-norm); ALiBi, arXiv 2108.12409.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import gelu


class Layer(nn.ModuleDict):
    """One layer; `is_code` for the variant of the code model: norms of queries and keys, a second norm."""

    def __init__(self, width: int, feed_forward: int, n_heads: int, *, is_code: bool) -> None:
        super().__init__()
        self.n_heads, self.is_code = n_heads, is_code
        own = {name: nn.Linear(width, width) for name in ("query", "key", "value")}
        if is_code:
            own |= {"layer_norm_q": nn.LayerNorm(width), "layer_norm_k": nn.LayerNorm(width)}
        output = nn.ModuleDict({"dense": nn.Linear(width, width), "LayerNorm": nn.LayerNorm(width)})
        self["attention"] = nn.ModuleDict({"self": nn.ModuleDict(own), "output": output})
        joined = nn.Linear(width, 2 * feed_forward, bias=False)
        down = nn.Linear(feed_forward, width)
        if is_code:
            self["mlp"] = nn.ModuleDict({"up_gated_layer": joined, "down_layer": down})
            self["layer_norm_1"], self["layer_norm_2"] = nn.LayerNorm(width), nn.LayerNorm(width)
        else:
            self["mlp"] = nn.ModuleDict(
                {"gated_layers": joined, "wo": down, "layernorm": nn.LayerNorm(width)}
            )

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """[n, width] to [n, width]; `bias` [heads, n, n] is added to the scores."""
        own, output, mlp = self["attention"]["self"], self["attention"]["output"], self["mlp"]
        query, key = own["query"](x), own["key"](x)
        if self.is_code:
            query, key = own["layer_norm_q"](query), own["layer_norm_k"](key)
        heads = [t.unflatten(1, (self.n_heads, -1)).transpose(0, 1) for t in (query, key, own["value"](x))]
        scores = heads[0] @ heads[1].transpose(1, 2) / heads[0].shape[-1] ** 0.5 + bias
        attended = (scores.softmax(-1) @ heads[2]).transpose(0, 1).flatten(1)
        attended = output["LayerNorm"](output["dense"](attended) + x)
        if not self.is_code:
            gate, up = mlp["gated_layers"](attended).chunk(2, -1)
            return mlp["layernorm"](attended + mlp["wo"](gelu(gate) * up))
        attended = self["layer_norm_1"](attended + x)
        up, gate = mlp["up_gated_layer"](attended).chunk(2, -1)
        return self["layer_norm_2"](attended + mlp["down_layer"](up * gelu(gate)))


class JinaBert(nn.Module):
    """Embeddings and layers; sizes as config.json names them."""

    def __init__(self, *, is_code: bool = False, **sizes: int) -> None:
        super().__init__()
        self.sizes = sizes
        width = sizes["hidden_size"]
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(sizes["vocab_size"], width),
                "token_type_embeddings": nn.Embedding(2, width),
                "LayerNorm": nn.LayerNorm(width),
            }
        )
        shape = (width, sizes["intermediate_size"], sizes["num_attention_heads"])
        layers = [Layer(*shape, is_code=is_code) for _ in range(sizes["num_hidden_layers"])]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """[n] ids to hidden states [n, width]."""
        e = self.embeddings
        x = e["LayerNorm"](e["word_embeddings"](ids) + e["token_type_embeddings"].weight[0])
        places = torch.arange(len(ids))
        distances = (places[:, None] - places[None]).abs()
        bias = -torch.tensor(slopes(self.sizes["num_attention_heads"]))[:, None, None] * distances
        for layer in self.encoder["layer"]:
            x = layer(x, bias)
        return x

    def save(self, folder: Path) -> None:
        """Write config.json and the weights as BF16."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        config = self.sizes | {
            "architectures": ["JinaBertForMaskedLM"],
            "position_embedding_type": "alibi",
            "feed_forward_type": "geglu",
            "layer_norm_eps": 1e-5,
            "max_position_embeddings": 128,
            "type_vocab_size": 2,
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        tensors = {name: value.to(torch.bfloat16) for name, value in self.state_dict().items()}
        save_file(tensors, folder / "model.safetensors")


def slopes(n_heads: int) -> list[float]:
    """Give each head its slope: 2^(-8/n), 2^(-16/n), ...; those beyond a power of two lie in between."""
    n = 1 << (n_heads.bit_length() - 1)
    first = [2 ** (-8 * (i + 1) / n) for i in range(n)]
    return first + [2 ** (-4 * (2 * i + 1) / n) for i in range(n_heads - n)]
