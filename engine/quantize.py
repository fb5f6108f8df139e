"""Write a GGUF file anew with its matrices in another type, row by row, in little memory."""

import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import gguf
import numpy as np
from numpy.typing import NDArray

from engine import _native
from engine.errors import UnsupportedModel
from engine.gguf_writer import TensorPlan, header, padding, unsigned, written_whole
from engine.importance import ImportanceMatrix
from engine.mixtures import ALIASES, FLOATS, MIXTURES, Chosen, Mixture, Model, choose_types, is_matrix

_SLICE_WEIGHTS = 1 << 22
_SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")


class QuantizeProgress(Protocol):
    """Hears how far the writing is, in weights."""

    def __call__(self, done: int, total: int, label: str, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Quantized:
    """What was written."""

    n_bytes: int
    types: Counter[str]
    """Tensors of each type."""
    fallbacks: Counter[tuple[str, str]]
    """Matrices whose rows blocks of the wished type do not divide, by that type and the one that they got."""
    bits_per_weight: float
    without_importance: tuple[str, ...]
    """Matrices that the importance matrix does not have; empty where none was given."""


def mixture_named(name: str) -> Mixture:
    """Find a mixture; upper and lower case are the same. Raises: UnsupportedModel naming those there are."""
    upper = name.upper()
    mixture = MIXTURES.get(ALIASES.get(upper, upper))
    if mixture is None:
        known = ", ".join(known.lower() for known in MIXTURES)
        raise UnsupportedModel(f"type {name!r} cannot be written; those that can are {known}")
    return mixture


def quantize(
    source: Path,
    out: Path,
    mixture: Mixture,
    *,
    importance: ImportanceMatrix | None = None,
    requantize: bool = False,
    n_threads: int | None = None,
    progress: QuantizeProgress | None = None,
) -> Quantized:
    """Write `source` to `out`, which appears whole or not at all, with matrices as `mixture` has them.

    Weights that are quantised already lose more when they are quantised again; `requantize` allows it.
    Raises: UnsupportedModel (damaged or unreadable input, importance of another model), DiskFull, OSError.
    """
    if out.exists() and source.exists() and source.samefile(out):
        raise UnsupportedModel(f"{out} is the file that is read; name another")
    try:
        file = _native.GgufFile(str(source))
        chosen = _choose(file, source, mixture, importance is not None)
        if not requantize:
            _refuse_requantizing(file, source, chosen)
        return _write(file, out, mixture, chosen, importance, n_threads, progress)
    except _native.GgufError as e:
        raise UnsupportedModel(f"{source} cannot be quantised: {e}") from e


def _choose(
    file: _native.GgufFile, source: Path, mixture: Mixture, has_importance: bool
) -> dict[str, Chosen]:
    tensors = file.tensors()
    if not tensors or "general.architecture" not in set(file.keys()):
        raise UnsupportedModel(f"{source} is a GGUF file, but no model: it has no tensors or no architecture")
    return choose_types(tensors, _describe(file, has_importance), mixture)


def _describe(file: _native.GgufFile, has_importance: bool) -> Model:
    architecture = str(file.get("general.architecture"))
    known = set(file.keys())

    def number(key: str, absent: int) -> int:
        full = f"{architecture}.{key}"
        value: Any = file.get(full) if full in known else absent
        first = value[0] if isinstance(value, list) and value else value
        return first if isinstance(first, int) else absent

    n_heads = number("attention.head_count", 1)
    return Model(
        architecture=architecture,
        n_layers=number("block_count", 0),
        n_heads=n_heads,
        n_kv_heads=number("attention.head_count_kv", n_heads),
        n_experts=number("expert_count", 0),
        has_importance=has_importance,
    )


def _refuse_requantizing(file: _native.GgufFile, source: Path, chosen: dict[str, Chosen]) -> None:
    for tensor in file.tensors():
        kind = chosen[tensor.name].type
        if kind != tensor.type and kind not in FLOATS and tensor.type not in FLOATS:
            raise UnsupportedModel(
                f"{source} is quantised already ({tensor.name} is {tensor.type}), and rounding twice costs "
                "quality. Take the model's F16 file, or say --requantize"
            )


def _write(
    file: _native.GgufFile,
    out: Path,
    mixture: Mixture,
    chosen: dict[str, Chosen],
    importance: ImportanceMatrix | None,
    n_threads: int | None,
    progress: QuantizeProgress | None,
) -> Quantized:
    values = {key: raw for key, raw in file.raw_values() if key not in (*_SPLIT_KEYS, "general.alignment")}
    values["general.quantization_version"] = unsigned(gguf.GGML_QUANT_VERSION)
    values["general.file_type"] = unsigned(mixture.file_type)
    stored = {tensor.name: tensor for tensor in file.tensors()}
    plan = [TensorPlan(name, tensor.shape, chosen[name].type) for name, tensor in stored.items()]
    head = header(values, plan)
    n_bytes = len(head) + sum(tensor.n_bytes + padding(tensor.n_bytes) for tensor in plan)
    total = sum(math.prod(tensor.shape) for tensor in plan)
    quantizer = _native.Quantizer(file, n_threads or os.cpu_count() or 1)
    missing = []
    with written_whole(out, n_bytes) as target:
        target.write(head)
        done = 0
        for tensor in plan:
            columns = None
            if importance is not None and is_matrix(stored[tensor.name]):
                columns = importance.of(tensor.name, tensor.shape)
                if columns is None:
                    missing.append(tensor.name)
            for rows in _slices(tensor):
                if progress is not None:
                    progress(done, total, tensor.name)
                target.write(_encode(quantizer, stored[tensor.name], tensor, rows, columns))
                done += rows.n * tensor.shape[0]
            target.write(bytes(padding(tensor.n_bytes)))
    if progress is not None:
        progress(total, total, out.name)
    return Quantized(
        n_bytes=n_bytes,
        types=Counter(tensor.type for tensor in plan),
        fallbacks=Counter(
            (choice.wished, choice.type) for choice in chosen.values() if choice.wished != choice.type
        ),
        bits_per_weight=8 * sum(tensor.n_bytes for tensor in plan) / total,
        without_importance=tuple(missing),
    )


@dataclass(frozen=True, slots=True)
class _Rows:
    first: int
    n: int
    matrix: int
    """Which matrix of a stack of experts."""


def _slices(tensor: TensorPlan) -> Iterator[_Rows]:
    """Cut a tensor into rows that fit in memory, none across two experts."""
    width, *others = tensor.shape
    n_rows = others[0] if others else 1
    n_matrices = math.prod(others[1:]) if others else 1
    step = max(1, _SLICE_WEIGHTS // width)
    for matrix in range(n_matrices):
        for at in range(0, n_rows, step):
            yield _Rows(matrix * n_rows + at, min(step, n_rows - at), matrix)


def _encode(
    quantizer: _native.Quantizer,
    source: _native.TensorInfo,
    tensor: TensorPlan,
    rows: _Rows,
    columns: NDArray[np.float32] | None,
) -> bytes | memoryview:
    if source.type == tensor.type:
        return quantizer.copy(tensor.name, rows.first, rows.n)
    weights = None
    if columns is not None:
        width = tensor.shape[0]
        weights = np.ascontiguousarray(columns[rows.matrix * width : (rows.matrix + 1) * width])
    return quantizer.rows(tensor.name, rows.first, rows.n, tensor.type, weights).data
