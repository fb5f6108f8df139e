"""What config.json means for models that turn a text into a vector: bert."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from engine.conversion import MAX_LAYERS, MAX_SIZE, VocabKind, read_number, read_pooling, read_size
from engine.errors import ConversionError
from engine.safetensors_folder import StoredTensor

ENCODERS = {
    "BertModel": gguf.MODEL_ARCH.BERT,
    "BertForMaskedLM": gguf.MODEL_ARCH.BERT,
}
_UNUSED = ("pooler.", "cls.", "embeddings.position_ids")


@dataclass(frozen=True, slots=True)
class EncoderConversion:
    """An encoder to convert; see `Conversion`."""

    name: str
    arch: gguf.MODEL_ARCH
    config: Mapping[str, Any]
    n_layers: int
    n_embd: int
    n_ff: int
    n_heads: int
    n_vocab: int
    n_context: int

    @property
    def vocab(self) -> VocabKind:
        return "bert"

    def tensors(self, stored: StoredTensor) -> Iterable[tuple[str, StoredTensor]]:
        name = stored.name.removeprefix("bert.")
        if name.startswith(_UNUSED) or name.endswith((".attention.masked_bias", ".attention.bias")):
            return
        yield name.replace(".gamma", ".weight").replace(".beta", ".bias"), stored

    def permute_heads(self, name: str) -> int | None:  # noqa: ARG002 - part of the protocol
        return None

    def shape(self, name: str) -> tuple[int, ...] | None:
        square = (self.n_embd, self.n_embd)
        shapes = {
            "token_embd.weight": (self.n_vocab, self.n_embd),
            "position_embd.weight": (self.n_context, self.n_embd),
            "attn_q.weight": square,
            "attn_k.weight": square,
            "attn_v.weight": square,
            "attn_output.weight": square,
            "attn_q.bias": (self.n_embd,),
            "attn_k.bias": (self.n_embd,),
            "attn_v.bias": (self.n_embd,),
            "ffn_up.weight": (self.n_ff, self.n_embd),
            "ffn_down.weight": (self.n_embd, self.n_ff),
        }
        if name.startswith("blk."):
            name = name.split(".", 2)[2]
        return shapes.get(name)

    def required(self) -> Iterator[str]:
        yield "token_embd.weight"
        yield from ("position_embd.weight", "token_types.weight")
        yield from ("token_embd_norm.weight", "token_embd_norm.bias")
        names = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down")
        layer = [f"{name}.{part}" for name in names for part in ("weight", "bias")]
        layer += ["attn_output_norm.weight", "attn_output_norm.bias"]
        layer += ["layer_output_norm.weight", "layer_output_norm.bias"]
        yield from (f"blk.{i}.{name}" for i in range(self.n_layers) for name in layer)

    def extra_tensors(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        return iter(())

    def write_hparams(self, writer: gguf.GGUFWriter, folder: Path) -> None:
        writer.add_block_count(self.n_layers)
        writer.add_context_length(self.n_context)
        writer.add_embedding_length(self.n_embd)
        writer.add_feed_forward_length(self.n_ff)
        writer.add_head_count(self.n_heads)
        writer.add_layer_norm_eps(read_number(self.config, "layer_norm_eps", float, 1e-12))
        writer.add_causal_attention(False)
        writer.add_token_type_count(read_number(self.config, "type_vocab_size", int, 1))
        writer.add_pooling_type(read_pooling(folder))


def find_encoder(name: str, config: Mapping[str, Any]) -> EncoderConversion:
    """Read an encoder's sizes; `name` is one of ENCODERS. Raises: ConversionError."""
    activation = config.get("hidden_act", "gelu")
    if activation != "gelu":
        raise ConversionError(f"hidden_act is {activation!r}; 'gelu' is expected")
    positions = config.get("position_embedding_type", "absolute")
    if positions != "absolute":
        raise ConversionError(f"position_embedding_type is {positions!r}; 'absolute' is expected")
    return EncoderConversion(
        name=name,
        arch=ENCODERS[name],
        config=config,
        n_layers=read_size(config, "num_hidden_layers", MAX_LAYERS),
        n_embd=read_size(config, "hidden_size", MAX_SIZE),
        n_ff=read_size(config, "intermediate_size", MAX_SIZE),
        n_heads=read_size(config, "num_attention_heads", MAX_SIZE),
        n_vocab=read_size(config, "vocab_size", MAX_SIZE),
        n_context=read_size(config, "max_position_embeddings", 1 << 30),
    )
