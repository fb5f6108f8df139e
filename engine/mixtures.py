"""Which type each tensor of a file gets: the plain types, and the mixtures that llama.cpp made common.

Facts from llama.cpp's src/llama-quant.cpp: mixtures spend more bits on attention values, feed-forward outputs
and the output matrix. Each tensor gets the type that llama.cpp's quantizer gives it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import gguf

from engine._native import TensorInfo

_BLOCK = 32
_NEVER = re.compile(
    r"_norm\.weight|ffn_gate_inp\.weight|^position_embd\.weight|^token_types\.weight|ssm_conv1d|shortconv\.conv"
    r"|attn_rel_b\.weight|altup|laurel|per_layer_model_proj|^cls"
)
_LAYER = re.compile(r"^blk\.(\d+)\.")
_FALLBACK = {
    "Q2_K": "Q4_0",
    "Q3_K": "Q4_0",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
    "IQ4_XS": "IQ4_NL",
}
"""For rows that blocks of 256 do not divide."""


@dataclass(frozen=True, slots=True)
class Model:
    """What the choice of types depends on."""

    architecture: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    n_experts: int
    has_importance: bool

    @property
    def n_sharing(self) -> int:
        """Query heads that share keys and values."""
        return self.n_heads // max(1, self.n_kv_heads)


@dataclass(frozen=True, slots=True)
class Place:
    """A matrix in its model: `layer` counts from 0, of `n_layers` that have such a matrix."""

    layer: int
    n_layers: int

    def among_first(self, share: int) -> bool:
        """Say whether it is in the first 1 / `share` of the layers."""
        return self.layer < self.n_layers // share

    @property
    def is_sensitive(self) -> bool:
        """Say whether it is in the first or last eighth, or every third between."""
        eighth = self.n_layers // 8
        return self.layer < eighth or self.layer >= 7 * self.n_layers // 8 or (self.layer - eighth) % 3 == 2


Choice = Callable[[Model, Place], str]


def _always(name: str) -> Choice:
    return lambda _model, _place: name


@dataclass(frozen=True, slots=True)
class Mixture:
    """A file type: the type of most matrices, and where others are chosen."""

    base: str
    file_type: gguf.LlamaFileType
    values: Choice | None = None
    down: Choice | None = None
    output: str | None = None
    """Of attention outputs, in models without experts."""


def _shared_values(model: Model, _: Place, *, shared: str, other: str) -> str:
    return shared if model.n_sharing >= 4 else other


def _sensitive(_: Model, place: Place, *, base: str) -> str:
    return "Q6_K" if place.is_sensitive else base


def _guarded(model: Model, place: Place, *, base: str, guard: str) -> str:
    return guard if model.has_importance and place.among_first(8) else base


_T = gguf.LlamaFileType
MIXTURES: Mapping[str, Mixture] = {
    "F32": Mixture("F32", _T.ALL_F32),
    "F16": Mixture("F16", _T.MOSTLY_F16),
    "BF16": Mixture("BF16", _T.MOSTLY_BF16),
    "Q8_0": Mixture("Q8_0", _T.MOSTLY_Q8_0),
    "Q4_0": Mixture("Q4_0", _T.MOSTLY_Q4_0, down=partial(_guarded, base="Q4_0", guard="Q4_1")),
    "Q4_1": Mixture("Q4_1", _T.MOSTLY_Q4_1),
    "Q5_0": Mixture("Q5_0", _T.MOSTLY_Q5_0, down=partial(_guarded, base="Q5_0", guard="Q5_1")),
    "Q5_1": Mixture("Q5_1", _T.MOSTLY_Q5_1),
    "Q2_K": Mixture(
        "Q2_K",
        _T.MOSTLY_Q2_K,
        values=partial(_shared_values, shared="Q4_K", other="Q3_K"),
        down=_always("Q3_K"),
        output="Q3_K",
    ),
    "Q3_K_S": Mixture("Q3_K", _T.MOSTLY_Q3_K_S),
    "Q3_K_M": Mixture(
        "Q3_K",
        _T.MOSTLY_Q3_K_M,
        values=lambda _, place: "Q5_K" if place.layer < 2 else "Q4_K",
        down=lambda _, place: "Q5_K" if place.among_first(16) else "Q4_K",
        output="Q4_K",
    ),
    "Q3_K_L": Mixture("Q3_K", _T.MOSTLY_Q3_K_L, values=_always("Q5_K"), down=_always("Q5_K"), output="Q5_K"),
    "Q4_K_S": Mixture(
        "Q4_K",
        _T.MOSTLY_Q4_K_S,
        values=lambda _, place: "Q5_K" if place.layer < 4 else "Q4_K",
        down=lambda _, place: "Q5_K" if place.among_first(8) else "Q4_K",
    ),
    "Q4_K_M": Mixture(
        "Q4_K",
        _T.MOSTLY_Q4_K_M,
        values=partial(_sensitive, base="Q4_K"),
        down=partial(_sensitive, base="Q4_K"),
    ),
    "Q5_K_S": Mixture("Q5_K", _T.MOSTLY_Q5_K_S),
    "Q5_K_M": Mixture(
        "Q5_K",
        _T.MOSTLY_Q5_K_M,
        values=partial(_sensitive, base="Q5_K"),
        down=partial(_sensitive, base="Q5_K"),
    ),
    "Q6_K": Mixture("Q6_K", _T.MOSTLY_Q6_K),
    "IQ4_NL": Mixture(
        "IQ4_NL",
        _T.MOSTLY_IQ4_NL,
        values=partial(_shared_values, shared="Q5_K", other="IQ4_NL"),
        down=lambda model, place: "Q5_K" if place.among_first(8) and not model.has_importance else "IQ4_NL",
    ),
    "IQ4_XS": Mixture(
        "IQ4_XS",
        _T.MOSTLY_IQ4_XS,
        values=partial(_shared_values, shared="Q5_K", other="IQ4_XS"),
        down=lambda model, place: "Q5_K" if place.among_first(8) and not model.has_importance else "IQ4_XS",
    ),
}
"""By name. Q3_K, Q4_K and Q5_K stand for their M mixtures, as in llama.cpp."""
ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
FLOATS = ("F32", "F16", "BF16")


@dataclass(frozen=True, slots=True)
class Chosen:
    """The type of a tensor."""

    type: str
    wished: str
    """Another where blocks of that type do not divide the rows."""


def choose_types(tensors: Sequence[TensorInfo], model: Model, mixture: Mixture) -> dict[str, Chosen]:
    """Give each tensor its type: matrices the mixture's, or what their rows allow; the rest keeps its own."""
    is_tied = all(tensor.name != "output.weight" for tensor in tensors)
    n_values = sum(_is_values(tensor.name) for tensor in tensors)
    values_seen = 0
    chosen: dict[str, Chosen] = {}
    for tensor in sorted(tensors, key=lambda tensor: (_layer(tensor.name), tensor.name)):
        if not is_matrix(tensor):
            chosen[tensor.name] = Chosen(tensor.type, tensor.type)
            continue
        kind = mixture.base
        if kind not in FLOATS:
            place = Place(_layer(tensor.name), model.n_layers)
            if _is_values(tensor.name):
                place = Place(values_seen, n_values)
                values_seen += 1
            kind = _mixed(tensor, place, model, mixture, is_tied=is_tied)
        chosen[tensor.name] = Chosen(fitting(kind, tensor.shape[0]), kind)
    return chosen


def is_matrix(tensor: TensorInfo) -> bool:
    """Say whether a tensor's type is to be changed at all: norms, biases and routers are small and matter."""
    return (
        sum(n > 1 for n in tensor.shape[1:]) >= 1
        and tensor.name.endswith("weight")
        and not _NEVER.search(tensor.name)
    )


def fitting(kind: str, width: int) -> str:
    """Give the type itself, or the one that llama.cpp takes for rows that its blocks do not divide."""
    block: int = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][0]
    if width % block == 0:
        return kind
    return _FALLBACK[kind] if kind in _FALLBACK and width % _BLOCK == 0 else "F16"


def _mixed(tensor: TensorInfo, place: Place, model: Model, mixture: Mixture, *, is_tied: bool) -> str:
    name, base = tensor.name, mixture.base
    if name == "output.weight" or (name == "token_embd.weight" and is_tied):
        block: int = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[base]][0]
        return "Q8_0" if base == "Q8_0" or tensor.shape[0] % block else "Q6_K"
    if _is_values(name):
        kind = mixture.values(model, place) if mixture.values else base
        if model.architecture == "llama" and model.n_layers == 80 and model.n_sharing > 1:
            kind = "Q5_K" if kind in ("Q3_K", "Q4_K") else kind  # small beside the rest of a 70 B model
        return "Q8_0" if model.n_experts == 8 else kind
    if "attn_k.weight" in name and model.n_experts == 8:
        return "Q8_0"
    if "ffn_down" in name and mixture.down:
        return mixture.down(model, place)
    if "attn_output.weight" in name:
        if model.n_experts == 8:
            return "Q5_K" if base in ("Q2_K", "Q3_K", "Q4_K", "IQ4_NL", "IQ4_XS") else base
        return mixture.output or base
    return base


def _is_values(name: str) -> bool:
    return any(part in name for part in ("attn_v.weight", "attn_qkv.weight", "attn_kv_b.weight"))


def _layer(name: str) -> int:
    found = _LAYER.match(name)
    return int(found[1]) if found else -1
