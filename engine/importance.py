"""Importance matrices: how much each column of a model's matrices matters, as llama.cpp's tools keep it.

Two forms: GGUF (NAME.in_sum2 and NAME.counts for each matrix) and the older .dat (little-endian: number of
entries; for each its name, number of calls, values; then number of calls in all, and the name of the text).
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from engine import _native
from engine.errors import UnsupportedModel
from engine.gguf_writer import TensorPlan, header, padding, text, texts, unsigned, written_whole

_SUMS, _COUNTS = ".in_sum2", ".counts"
_MAX_ENTRIES = 1 << 20
_MAX_NAME = 65535


@dataclass(frozen=True, slots=True)
class ImportanceMatrix:
    """Mean squares of the inputs of each matrix, by its name."""

    path: Path
    columns: Mapping[str, NDArray[np.float32]]
    """[width], or [experts * width], expert after expert."""

    def of(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
        """Give the weights of a tensor's columns, or None. Raises: UnsupportedModel for another width."""
        found = self.columns.get(name)
        if found is None:
            return None
        n_experts = shape[2] if len(shape) > 2 else 1
        if len(found) != shape[0] * n_experts:
            raise UnsupportedModel(
                f"{self.path} has {len(found)} columns for {name}, which has {shape[0] * n_experts}: "
                "it was made with another model"
            )
        return found


def read_importance(path: Path) -> ImportanceMatrix:
    """Read either form. Raises: UnsupportedModel naming what is odd; OSError."""
    with path.open("rb") as file:
        is_gguf = file.read(4) == b"GGUF"
    columns = _read_gguf(path) if is_gguf else _read_dat(path)
    if not columns:
        raise UnsupportedModel(f"{path} has no importance of any matrix")
    for name, values in columns.items():
        if not np.isfinite(values).all() or (values < 0).any():
            raise UnsupportedModel(f"{path} has values for {name} that are not finite or below 0")
    return ImportanceMatrix(path, columns)


def _read_gguf(path: Path) -> dict[str, NDArray[np.float32]]:
    try:
        file = _native.GgufFile(str(path))
        shapes = {tensor.name: tensor.shape for tensor in file.tensors()}
        columns: dict[str, NDArray[np.float32]] = {}
        for sums, shape in shapes.items():
            name = sums.removesuffix(_SUMS)
            if name == sums:
                continue
            if name + _COUNTS not in shapes:
                raise UnsupportedModel(f"{path} has {sums}, but not {name}{_COUNTS}")
            n_matrices = shape[1] if len(shape) > 1 else 1
            counts_shape = shapes[name + _COUNTS]
            if int(np.prod(counts_shape)) not in (1, n_matrices):
                raise UnsupportedModel(f"{path}: {name}{_COUNTS} has shape {counts_shape}")
            counts = np.concatenate(
                [file.row(name + _COUNTS, i) for i in range(int(np.prod(counts_shape)) // counts_shape[0])]
            )
            rows = [
                file.row(sums, i) / counts[i % len(counts)]
                if counts[i % len(counts)] > 0
                else np.ones(shape[0], np.float32)  # an expert that no token reached
                for i in range(n_matrices)
            ]
            columns[name] = np.concatenate(rows).astype(np.float32)
    except _native.GgufError as e:
        raise UnsupportedModel(f"{path} cannot be read: {e}") from e
    return columns


def _read_dat(path: Path) -> dict[str, NDArray[np.float32]]:
    columns: dict[str, NDArray[np.float32]] = {}
    size = path.stat().st_size
    with path.open("rb") as file:
        n_entries = _number(file, path)
        if not 0 < n_entries <= _MAX_ENTRIES:
            raise UnsupportedModel(
                f"{path} is no importance matrix: it is no GGUF file, and says it has {n_entries} entries"
            )
        for _ in range(n_entries):
            n_name = _number(file, path)
            if not 0 < n_name <= _MAX_NAME:
                raise UnsupportedModel(f"{path} has a name of {n_name} bytes; 1 to {_MAX_NAME} are possible")
            name = _bytes(file, n_name, path).decode("utf-8", "replace")
            n_calls, n_values = _number(file, path), _number(file, path)
            if not 0 <= 4 * n_values <= size - file.tell():
                raise UnsupportedModel(f"{path} says it has {n_values} values for {name}; it is too short")
            values = np.frombuffer(_bytes(file, 4 * n_values, path), "<f4")
            columns[name] = (values / max(n_calls, 1)).astype(np.float32)
    return columns


def _number(file: BinaryIO, path: Path) -> int:
    return int(struct.unpack("<i", _bytes(file, 4, path))[0])


def _bytes(file: BinaryIO, n: int, path: Path) -> bytes:
    raw = file.read(n)
    if len(raw) != n:
        raise UnsupportedModel(f"{path} ends in the middle of an entry")
    return raw


def write_importance(
    out: Path,
    sums: Mapping[str, NDArray[np.float64]],
    counts: Mapping[str, NDArray[np.int64]],
    *,
    text_name: str,
    n_chunks: int,
    chunk_tokens: int,
) -> None:
    """Write the GGUF form; `sums` are of squares, [experts, width]. Raises: DiskFull, OSError."""
    values = {
        "general.type": text("imatrix"),
        "imatrix.datasets": texts([text_name]),
        "imatrix.chunk_count": unsigned(n_chunks),
        "imatrix.chunk_size": unsigned(chunk_tokens),
    }
    tensors = []
    data = []
    for name in sorted(sums):
        n_experts, width = sums[name].shape
        tensors += [
            TensorPlan(name + _SUMS, (width, n_experts), "F32"),
            TensorPlan(name + _COUNTS, (1, n_experts), "F32"),
        ]
        data += [sums[name].astype("<f4").tobytes(), counts[name].astype("<f4").tobytes()]
    head = header(values, tensors)
    with written_whole(out, len(head) + sum(len(raw) + padding(len(raw)) for raw in data)) as file:
        file.write(head)
        for raw in data:
            file.write(raw + bytes(padding(len(raw))))
