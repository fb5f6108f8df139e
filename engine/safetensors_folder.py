"""Read safetensors files, one tensor at a time, without torch.

Each file is an 8-byte little-endian header length, a JSON header, and the data. Headers are checked against
the file before anything is mapped.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConversionError

MAX_HEADER_BYTES = 100_000_000
_DTYPES: Mapping[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor lies: `data` in the file is `shape`, slowest dimension first, of `dtype`."""

    name: str
    path: Path
    offset: int
    dtype: str
    shape: tuple[int, ...]

    @property
    def itemsize(self) -> int:
        """Bytes of one value. Raises: ConversionError."""
        return self._numpy_dtype().itemsize

    def map(self) -> NDArray[Any]:
        """Return the raw values, memory-mapped; BF16 as uint16. Raises: ConversionError."""
        values: NDArray[Any] = np.memmap(self.path, self._numpy_dtype(), "r", self.offset, self.shape)
        return values

    def _numpy_dtype(self) -> np.dtype[Any]:
        if self.dtype not in _DTYPES:
            raise ConversionError(
                f"tensor {self.name} is of type {self.dtype}; known are {', '.join(_DTYPES)}"
            )
        return _DTYPES[self.dtype]

    def to_float(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Widen raw values, or some of their rows, to float32."""
        if self.dtype == "BF16":
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(np.float32)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises: ConversionError naming the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConversionError(f"{path.name} is missing in {path.parent}") from None
    except (OSError, ValueError) as e:
        raise ConversionError(f"{path} cannot be read: {e}") from e
    if not isinstance(value, dict):
        raise ConversionError(f"{path} holds a {type(value).__name__}; an object is expected")
    return value


def read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """List the tensors of one file. Raises: ConversionError naming the file and what is odd."""
    try:
        n_file = path.stat().st_size
        with path.open("rb") as file:
            n_header = int.from_bytes(file.read(8), "little")
            limit = min(MAX_HEADER_BYTES, n_file - 8)
            if n_header > limit:
                raise ConversionError(
                    f"{path} has a header of {n_header} bytes; at most {limit} are possible"
                )
            header = json.loads(file.read(n_header))
    except FileNotFoundError:
        raise ConversionError(f"{path.name} is missing in {path.parent}") from None
    except (OSError, ValueError) as e:
        raise ConversionError(f"{path} cannot be read: {e}") from e
    if not isinstance(header, dict):
        raise ConversionError(f"{path} has a header that is no JSON object")
    start = 8 + n_header
    return {
        name: _check_entry(name, path, entry, start, n_file - start)
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _check_entry(name: str, path: Path, entry: Any, start: int, n_data: int) -> StoredTensor:
    try:
        dtype = str(entry["dtype"])
        shape = tuple(int(n) for n in entry["shape"])
        begin, end = (int(n) for n in entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as e:
        raise ConversionError(f"{path}: the header of tensor {name} is odd: {e}") from e
    if not 0 <= begin <= end <= n_data or any(n < 0 for n in shape):
        raise ConversionError(f"{path}: tensor {name} lies at {begin} to {end}; the file has {n_data} bytes")
    if dtype in _DTYPES and end - begin != prod(shape) * _DTYPES[dtype].itemsize:
        raise ConversionError(f"{path}: tensor {name} has {end - begin} bytes; {dtype} {shape} needs others")
    return StoredTensor(name, path, start + begin, dtype, shape)
