"""Write a GGUF file piece by piece: keys as another file has them, tensors as they come."""

import contextlib
import os
import shutil
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import gguf

from engine.errors import DiskFull

_VERSION = 3
_ALIGNMENT = 32


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """A tensor to be written."""

    name: str
    shape: tuple[int, ...]
    """Fastest dimension first."""
    type: str

    @property
    def n_bytes(self) -> int:
        """What its data takes, without padding."""
        block, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[self.type]]
        n = 1
        for length in self.shape:
            n *= length
        return n // block * block_bytes


def unsigned(value: int) -> bytes:
    """Give a 32-bit unsigned value as it stands behind its key: type, then bytes."""
    return struct.pack("<II", gguf.GGUFValueType.UINT32, value)


def text(value: str) -> bytes:
    """Give a string as it stands behind its key."""
    raw = value.encode()
    return struct.pack("<IQ", gguf.GGUFValueType.STRING, len(raw)) + raw


def texts(values: Sequence[str]) -> bytes:
    """Give an array of strings as it stands behind its key."""
    head = struct.pack("<IIQ", gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.STRING, len(values))
    return head + b"".join(struct.pack("<Q", len(raw)) + raw for raw in (v.encode() for v in values))


def padding(n_bytes: int) -> int:
    """Count the zeros that follow a tensor's data."""
    return -n_bytes % _ALIGNMENT


def header(values: Mapping[str, bytes], tensors: Sequence[TensorPlan]) -> bytes:
    """Give all that comes before the data; tensors lie one after the other, each padded."""
    parts = [b"GGUF", struct.pack("<IQQ", _VERSION, len(tensors), len(values))]
    for key, raw in values.items():
        name = key.encode("utf-8", "surrogateescape")
        parts += [struct.pack("<Q", len(name)), name, raw]
    offset = 0
    for tensor in tensors:
        name = tensor.name.encode()
        parts += [struct.pack("<Q", len(name)), name, struct.pack("<I", len(tensor.shape))]
        parts += [struct.pack("<Q", length) for length in tensor.shape]
        parts.append(struct.pack("<IQ", gguf.GGMLQuantizationType[tensor.type], offset))
        offset += tensor.n_bytes + padding(tensor.n_bytes)
    raw_header = b"".join(parts)
    return raw_header + bytes(padding(len(raw_header)))


@contextmanager
def written_whole(out: Path, n_bytes: int) -> Iterator[BinaryIO]:
    """Open a file that appears as `out` when the block ends, whole, or not at all.

    Raises: DiskFull when fewer than `n_bytes` are free; OSError when it cannot be written.
    """
    free = shutil.disk_usage(out.parent).free
    if n_bytes > free:
        raise DiskFull(
            f"{out} needs {n_bytes / 1e6:,.1f} MB, but {out.parent.resolve()} has {free / 1e6:,.1f} MB left"
        )
    part = out.with_name(f"{out.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(out)
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
