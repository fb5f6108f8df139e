"""What `convert` needs to know of an architecture, and how its config.json is read."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import gguf
import numpy as np
from numpy.typing import NDArray

from engine.embedding_prompts import DOCUMENT_KEY, QUERY_KEY
from engine.errors import ConversionError
from engine.safetensors_folder import StoredTensor, read_json

T = TypeVar("T", int, float, str)
VocabKind = Literal["encoder", "causal"]
MAX_LAYERS = 1024
MAX_SIZE = 1 << 24
_MODULES = ("Transformer", "Pooling", "Normalize")
_PROMPTS = {
    QUERY_KEY: ("query", "search_query", "s2p_query"),
    DOCUMENT_KEY: ("document", "passage", "search_document"),
}
_POOLING = {
    "pooling_mode_mean_tokens": gguf.PoolingType.MEAN,
    "pooling_mode_cls_token": gguf.PoolingType.CLS,
    "pooling_mode_lasttoken": gguf.PoolingType.LAST,
}


class Conversion(Protocol):
    """One model to convert; `name` is the architecture as config.json says."""

    @property
    def name(self) -> str: ...
    @property
    def arch(self) -> gguf.MODEL_ARCH: ...
    @property
    def n_layers(self) -> int: ...
    @property
    def n_vocab(self) -> int: ...
    @property
    def vocab(self) -> VocabKind:
        """Which vocabulary the folder should hold."""

    def tensors(self, stored: StoredTensor) -> Iterable[tuple[str, StoredTensor]]:
        """Give what becomes of a tensor of the folder: nothing, itself, or some of its rows, under names that
        gguf's tensor map knows."""

    def part(self, name: str) -> int:
        """Return which expert a tensor of the folder belongs to; those of one name are joined in this order,
        and below it in the order of `tensors`."""

    def rearrange(self, name: str, rows: NDArray[Any]) -> NDArray[Any]:
        """Reorder the raw rows of a piece of the GGUF tensor `name`."""

    def adjust(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Change the values of the GGUF tensor `name`, each for itself."""

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a GGUF tensor, slowest dimension first, or None where any is taken."""

    def required(self) -> Iterator[str]:
        """List the GGUF tensors without which the model does not run."""

    def extra_tensors(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Make the tensors that GGUF has and the folder has not."""

    def write_hparams(self, writer: gguf.GGUFWriter, folder: Path) -> None:
        """Write the architecture's keys. Raises: ConversionError."""


class Unchanged:
    """What most architectures do to a tensor once it has its name: nothing."""

    __slots__ = ()

    def part(self, name: str) -> int:  # noqa: ARG002 - part of the protocol
        return 0

    def rearrange(self, name: str, rows: NDArray[Any]) -> NDArray[Any]:  # noqa: ARG002
        return rows

    def adjust(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:  # noqa: ARG002
        return values


@dataclass(frozen=True, slots=True)
class SizedConversion(Unchanged):
    """The sizes that all models have; `config` is config.json."""

    name: str
    arch: gguf.MODEL_ARCH
    config: Mapping[str, Any]
    n_layers: int
    n_embd: int
    n_ff: int
    n_heads: int
    n_vocab: int
    n_context: int

    def write_sizes(self, writer: gguf.GGUFWriter) -> None:
        """Write the keys of these sizes."""
        writer.add_block_count(self.n_layers)
        writer.add_context_length(self.n_context)
        writer.add_embedding_length(self.n_embd)
        writer.add_feed_forward_length(self.n_ff)
        writer.add_head_count(self.n_heads)


def rows_of(tensor: StoredTensor, first: int, n: int) -> StoredTensor:
    """Give rows [first, first + n) of a tensor. Raises: ConversionError where it has fewer."""
    if first + n > tensor.shape[0]:
        raise ConversionError(f"tensor {tensor.name} is {tensor.shape}; {first + n} rows are expected")
    row_bytes = tensor.itemsize * math.prod(tensor.shape[1:])
    return replace(tensor, offset=tensor.offset + first * row_bytes, shape=(n, *tensor.shape[1:]))


def read_size(config: Mapping[str, Any], key: str, limit: int, *, default: int | None = None) -> int:
    """Read a count from 1 to `limit`. Raises: ConversionError."""
    value = config.get(key)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= limit:
        raise ConversionError(f"config.json has {key} {value!r}; a number from 1 to {limit} is expected")
    return value


def read_number(values: Mapping[str, Any], key: str, kind: type[T], default: T | None = None) -> T:
    """Read a finite number. Raises: ConversionError."""
    value = values.get(key)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConversionError(f"config.json has {key} {value!r}; a number is expected")
    return kind(value)


def write_embedding_keys(writer: gguf.GGUFWriter, folder: Path) -> None:
    """Write what sentence-transformers' files say of pooling and prompts. Raises: ConversionError."""
    modules = folder / "modules.json"
    if modules.exists():
        kinds = re.findall(r'"type"\s*:\s*"[^"]*?(\w+)"', modules.read_text("utf-8", "replace"))
        for kind in kinds:
            if kind not in _MODULES:
                raise ConversionError(
                    f"{modules} has a module {kind}; supported are {', '.join(_MODULES)} (vectors are always "
                    "normalised)"
                )
    writer.add_pooling_type(_read_pooling(folder))
    path = folder / "config_sentence_transformers.json"
    prompts = read_json(path).get("prompts") if path.exists() else None
    if not isinstance(prompts, Mapping):
        return
    for key, names in _PROMPTS.items():
        prompt = next((prompts[name] for name in names if prompts.get(name)), None)
        if isinstance(prompt, str):
            writer.add_string(key, prompt)


def _read_pooling(folder: Path) -> gguf.PoolingType:
    """Return the pooling of sentence-transformers' folder; plain folders are pooled by mean."""
    path = folder / "1_Pooling" / "config.json"
    if not path.exists():
        return gguf.PoolingType.MEAN
    pooling = read_json(path)
    chosen = [kind for key, kind in _POOLING.items() if pooling.get(key) is True]
    if len(chosen) != 1:
        on = [key for key, value in pooling.items() if key.startswith("pooling_mode") and value]
        raise ConversionError(f"{path} asks for {on}; exactly one of {', '.join(_POOLING)} is expected")
    return chosen[0]
