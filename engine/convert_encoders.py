"""What config.json means for models that turn a text into a vector or, with a head, into a score.

Bert, RoBERTa and XLM-RoBERTa are one architecture to GGUF, `bert`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    rows_of,
    write_embedding_keys,
)
from engine.errors import ConversionError
from engine.safetensors_folder import StoredTensor

_BERT, _NOMIC = gguf.MODEL_ARCH.BERT, gguf.MODEL_ARCH.NOMIC_BERT
_JINA, _MODERN = gguf.MODEL_ARCH.JINA_BERT_V2, gguf.MODEL_ARCH.MODERN_BERT
_HEADED = "ForSequenceClassification"
ENCODERS = {
    **dict.fromkeys(("BertModel", "BertForMaskedLM", f"Bert{_HEADED}"), _BERT),
    **dict.fromkeys(("RobertaModel", "RobertaForMaskedLM", f"Roberta{_HEADED}"), _BERT),
    **dict.fromkeys(("XLMRobertaModel", "XLMRobertaForMaskedLM", f"XLMRoberta{_HEADED}"), _BERT),
    "NomicBertModel": _NOMIC,
    **dict.fromkeys(("JinaBertModel", "JinaBertForMaskedLM"), _JINA),
    **dict.fromkeys(("ModernBertModel", "ModernBertForMaskedLM", f"ModernBert{_HEADED}"), _MODERN),
}
_UNUSED = ("cls.", "lm_head.", "decoder.", "embeddings.position_ids")
_PREFIXES = ("bert.", "roberta.", "model.")
# The heads of Bert and RoBERTa are one thing under two names: a matrix, a tangent, a matrix.
_HEAD = {
    "pooler.dense": "cls",
    "classifier.dense": "cls",
    "classifier.out_proj": "cls.output",
    "classifier": "cls.output",
    "head.dense": "cls",
    "head.norm": "cls.norm",
}
# Matrices that hold gate and up, in this order.
_JOINED = {"mlp.gated_layers": ("gated_layers_w", "gated_layers_v")}
_JOINED["mlp.up_gated_layer"] = _JOINED["mlp.gated_layers"][::-1]


@dataclass(frozen=True, slots=True)
class EncoderConversion(SizedConversion):
    """An encoder to convert; see `Conversion`."""

    epsilon: float
    first_position: int
    """Rows of the position table before that of a text's first token: RoBERTa counts from its padding on."""

    @property
    def vocab(self) -> VocabKind:
        return "encoder"

    @property
    def has_head(self) -> bool:
        """Whether the model scores instead of giving vectors."""
        return self.name.endswith(_HEADED)

    def tensors(self, stored: StoredTensor) -> Iterable[tuple[str, StoredTensor]]:
        name = stored.name
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        if name.startswith(_UNUSED) or name.endswith((".attention.masked_bias", ".attention.bias")):
            return
        name = name.replace(".gamma", ".weight").replace(".beta", ".bias")
        module, _, part = name.rpartition(".")
        if module in _HEAD:
            if self.has_head:
                yield f"{_HEAD[module]}.{part}", stored
        elif name == "embeddings.position_embeddings.weight":
            yield name, rows_of(stored, self.first_position, self.n_context)
        elif joined := next((names for end, names in _JOINED.items() if module.endswith(end)), None):
            for i, half in enumerate(joined):
                renamed = f"{module.rpartition('.')[0]}.{half}.{part}"
                yield renamed, rows_of(stored, i * self.n_ff, self.n_ff)
        else:
            yield name, stored

    def shape(self, name: str) -> tuple[int, ...] | None:
        square = (self.n_embd, self.n_embd)
        shapes = {
            "token_embd.weight": (self.n_vocab, self.n_embd),
            "position_embd.weight": (self.n_context, self.n_embd),
            "attn_qkv.weight": (3 * self.n_embd, self.n_embd),
            "attn_q.weight": square,
            "attn_k.weight": square,
            "attn_v.weight": square,
            "attn_output.weight": square,
            "attn_q.bias": (self.n_embd,),
            "attn_k.bias": (self.n_embd,),
            "attn_v.bias": (self.n_embd,),
            "ffn_gate.weight": (self.n_ff, self.n_embd),
            "ffn_up.weight": ((2 if self.arch is _MODERN else 1) * self.n_ff, self.n_embd),
            "ffn_down.weight": (self.n_embd, self.n_ff),
            "cls.weight": square,
        }
        return shapes.get(re.sub(r"^blk\.\d+\.", "", name))

    def required(self) -> Iterator[str]:
        yield from ("token_embd.weight", "token_embd_norm.weight")
        if self.has_head:
            yield from ("cls.weight", "cls.output.weight")
        if self.arch is _MODERN:
            yield "output_norm.weight"
            layer = ["attn_qkv", "attn_output", "ffn_norm", "ffn_up", "ffn_down"]
            yield from (f"blk.{i}.attn_norm.weight" for i in range(1, self.n_layers))
        else:
            layer = ["attn_output", "attn_output_norm", "ffn_up", "ffn_down", "layer_output_norm"]
            layer += ["attn_qkv"] if self.arch is _NOMIC else ["attn_q", "attn_k", "attn_v"]
            layer += [] if self.arch is _BERT else ["ffn_gate"]
            yield "token_embd_norm.bias"
        if self.arch is _BERT:
            yield from ("position_embd.weight", "token_types.weight")
            yield from (f"blk.{i}.{name}.bias" for i in range(self.n_layers) for name in layer)
        yield from (f"blk.{i}.{name}.weight" for i in range(self.n_layers) for name in layer)

    def extra_tensors(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        return iter(())

    def write_hparams(self, writer: gguf.GGUFWriter, folder: Path) -> None:
        self.write_sizes(writer)
        writer.add_layer_norm_eps(self.epsilon)
        writer.add_causal_attention(False)
        writer.add_token_type_count(read_number(self.config, "type_vocab_size", int, 1))
        if self.arch is _NOMIC:
            writer.add_rope_freq_base(_rotary_base(self.config, "rotary_emb_base", 1000.0))
        if self.arch is _MODERN:
            writer.add_sliding_window(read_size(self.config, "local_attention", MAX_SIZE, default=128))
            writer.add_sliding_window_pattern(_global_period(self.config))
            writer.add_rope_freq_base(_rotary_base(self.config, "global_rope_theta", 160000.0))
            writer.add_rope_freq_base_swa(_rotary_base(self.config, "local_rope_theta", 10000.0))
            writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
            writer.add_vocab_size(self.n_vocab)
        if self.has_head:
            writer.add_pooling_type(gguf.PoolingType.RANK)
            if self.arch is _MODERN:
                pooling = str(self.config.get("classifier_pooling", "cls"))
                writer.add_string("quarry.classifier.pooling", pooling)
            labels = self.config.get("id2label")
            if isinstance(labels, Mapping) and labels:
                writer.add_classifier_output_labels([str(labels[key]) for key in sorted(labels, key=str)])
        else:
            write_embedding_keys(writer, folder)


def find_encoder(name: str, config: Mapping[str, Any]) -> EncoderConversion:
    """Read an encoder's sizes; `name` is one of ENCODERS. Raises: ConversionError."""
    arch = ENCODERS[name]
    names = _NOMIC_NAMES if arch is _NOMIC and "n_embd" in config else _NAMES
    _check(arch, config)
    n_context = read_size(config, names["context"], 1 << 30)
    first = 0
    if "Roberta" in name:
        first = 1 + read_number(config, "pad_token_id", int, 1)
        if not 0 < first < n_context:
            raise ConversionError(f"config.json has pad_token_id {first - 1} and {n_context} positions")
    if arch is _NOMIC and n_context == 8192:
        # nomic-embed-text is trained for 2048; beyond it needs scaled positions, which its file leaves out.
        n_context = read_number(config, "max_trained_positions", int, 2048)
    epsilon = "norm_eps" if arch is _MODERN else names["epsilon"]
    return EncoderConversion(
        name=name,
        arch=arch,
        config=config,
        n_layers=read_size(config, names["layers"], MAX_LAYERS),
        n_embd=read_size(config, names["width"], MAX_SIZE),
        n_ff=read_size(config, names["feed_forward"], MAX_SIZE),
        n_heads=read_size(config, names["heads"], MAX_SIZE),
        n_vocab=read_size(config, "vocab_size", MAX_SIZE),
        n_context=n_context - first,
        epsilon=read_number(config, epsilon, float, 1e-5 if arch is _MODERN else 1e-12),
        first_position=first,
    )


_NAMES = {
    "context": "max_position_embeddings",
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "feed_forward": "intermediate_size",
    "heads": "num_attention_heads",
    "epsilon": "layer_norm_eps",
}
# As Nomic's own code writes it; the library's own class uses the common names.
_NOMIC_NAMES = {
    "context": "n_positions",
    "layers": "n_layer",
    "width": "n_embd",
    "feed_forward": "n_inner",
    "heads": "n_head",
    "epsilon": "layer_norm_epsilon",
}


def _check(arch: gguf.MODEL_ARCH, config: Mapping[str, Any]) -> None:
    expected: dict[str, tuple[object, ...]] = {
        "hidden_act": ("gelu",),
        "position_embedding_type": ("absolute",),
    }
    if arch is _NOMIC:
        expected = {
            "hidden_act": ("silu", "swiglu"),
            "activation_function": ("swiglu",),
            "moe_every_n_layers": (0,),
            "prenorm": (False,),
            "rotary_emb_fraction": (1, 1.0),
            "rotary_emb_interleaved": (False,),
        }
    if arch is _JINA:
        expected = {
            "hidden_act": ("gelu",),
            "position_embedding_type": ("alibi",),
            "feed_forward_type": ("geglu",),
        }
    if arch is _MODERN:
        expected = {
            "hidden_activation": ("gelu",),
            "classifier_activation": ("gelu",),
            "classifier_pooling": ("cls", "mean"),
            "norm_bias": (False,),
        }
    for key, allowed in expected.items():
        value = config.get(key)
        if value is not None and value not in allowed:
            raise ConversionError(f"{key} is {value!r}; {' or '.join(map(repr, allowed))} is expected")


def _rotary_base(config: Mapping[str, Any], key: str, default: float) -> float:
    """Return the base of rotary positions: `key`, or where the library's own classes write it."""
    rope = config.get("rope_parameters")
    if isinstance(rope, Mapping) and "rope_type" not in rope:
        rope = rope.get("sliding_attention" if key.startswith("local") else "full_attention")
    if not isinstance(rope, Mapping):
        return read_number(config, key, float, default)
    if rope.get("rope_type", "default") != "default":
        raise ConversionError(f"rope_type is {rope.get('rope_type')!r}; 'default' is expected")
    return read_number(rope, "rope_theta", float, default)


def _global_period(config: Mapping[str, Any]) -> int:
    """Return how many layers lie from one that sees everything to the next. Raises: ConversionError."""
    kinds = config.get("layer_types")
    if not isinstance(kinds, list) or not kinds:
        return read_size(config, "global_attn_every_n_layers", MAX_LAYERS, default=3)
    places = [i for i, kind in enumerate(kinds) if kind == "full_attention"]
    period = places[1] if len(places) > 1 else len(kinds)
    if places != list(range(0, len(kinds), period)):
        raise ConversionError(f"layer_types is {kinds!r:.200}; every n-th full_attention is expected")
    return period
