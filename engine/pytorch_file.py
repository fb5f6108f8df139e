"""List the tensors of a PyTorch checkpoint without unpickling it.

A checkpoint is a zip archive: `data.pkl` says which tensor lies where in the stored files `data/N`. A pickle
is a program that may call anything; here a small interpreter follows only the instructions that tables of
tensors are made of, calls nothing, and refuses all others by name. The values stay in the file, to be mapped.
"""

import pickletools
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from engine.errors import ConversionError
from engine.safetensors_folder import StoredTensor

MAX_PICKLE_BYTES = 16 << 20
_MAX_DIMENSIONS = 8
_LOCAL_HEADER = 30
# By the class that a checkpoint names: how safetensors calls the values, and their size.
_STORAGES = {
    "FloatStorage": ("F32", 4),
    "HalfStorage": ("F16", 2),
    "BFloat16Storage": ("BF16", 2),
    "DoubleStorage": ("F64", 8),
    "LongStorage": ("I64", 8),
    "IntStorage": ("I32", 4),
    "ShortStorage": ("I16", 2),
    "CharStorage": ("I8", 1),
    "ByteStorage": ("U8", 1),
    "BoolStorage": ("BOOL", 1),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_WITH_ARGUMENT = (
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
)


class _Mark:
    """Where a tuple or a row of items begins."""


@dataclass(frozen=True, slots=True)
class _Name:
    """What a pickle calls by name; never looked up."""

    text: str


@dataclass(frozen=True, slots=True)
class _Storage:
    dtype: str
    itemsize: int
    offset: int
    n_items: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage
    first: int
    shape: tuple[int, ...]


def read_pytorch(path: Path) -> Mapping[str, StoredTensor]:
    """List the tensors of one file. Raises: ConversionError naming the file and what is odd."""
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            pickles = [info for info in archive.infolist() if info.filename.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise ConversionError(f"{path} holds {len(pickles)} data.pkl; one is expected")
            if pickles[0].file_size > MAX_PICKLE_BYTES:
                raise ConversionError(
                    f"{path}: data.pkl has {pickles[0].file_size} bytes; at most {MAX_PICKLE_BYTES} are read"
                )
            folder = pickles[0].filename.removesuffix("data.pkl") + "data/"
            stored = {
                info.filename.removeprefix(folder): (_data_offset(file, info, path), info.file_size)
                for info in archive.infolist()
                if info.filename.startswith(folder)
            }
            table = _Interpreter(path, stored).run(archive.read(pickles[0]))
    except zipfile.BadZipFile:
        raise ConversionError(
            f"{path} is no zip archive: files of PyTorch before 1.6 are not read; save it as safetensors"
        ) from None
    except FileNotFoundError:
        raise ConversionError(f"{path.name} is missing in {path.parent}") from None
    except ConversionError:
        raise
    # zipfile trusts its input; RuntimeError is its word for encryption.
    except (OSError, RuntimeError, ValueError, EOFError, IndexError, struct.error) as e:
        raise ConversionError(f"{path} cannot be read: {e}") from e
    tensors = {}
    for name, tensor in table.items():
        if isinstance(name, str) and isinstance(tensor, _Tensor):
            storage = tensor.storage
            offset = storage.offset + tensor.first * storage.itemsize
            tensors[name] = StoredTensor(name, path, offset, storage.dtype, tensor.shape)
    return tensors


def _data_offset(file: Any, info: zipfile.ZipInfo, path: Path) -> int:
    """Return where an entry's bytes begin: behind its local header, whose lengths are its own."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise ConversionError(f"{path}: {info.filename:.80} is compressed or encrypted; it cannot be mapped")
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER)
    if len(header) < _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
        raise ConversionError(f"{path}: the header of {info.filename:.80} is odd")
    begin: int = (
        info.header_offset
        + _LOCAL_HEADER
        + int.from_bytes(header[26:28], "little")
        + int.from_bytes(header[28:30], "little")
    )
    if begin + info.file_size > path.stat().st_size:
        raise ConversionError(f"{path}: {info.filename:.80} ends behind the file")
    return begin


class _Interpreter:
    """Follows a pickle's instructions. `stored`: where the values lie, by key: offset and bytes."""

    def __init__(self, path: Path, stored: Mapping[str, tuple[int, int]]) -> None:
        self._path = path
        self._stored = stored
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, program: bytes) -> dict[Any, Any]:
        """Return the table that the pickle makes. Raises: ConversionError."""
        try:
            for opcode, argument, _ in pickletools.genops(program):
                if opcode.name == "STOP":
                    break
                self._follow(opcode.name, argument)
            result = self._stack.pop()
        except (IndexError, KeyError, TypeError, ValueError, AttributeError) as e:
            raise self._odd(f"its instructions do not fit together ({type(e).__name__})") from e
        if not isinstance(result, dict):
            raise self._odd(f"it makes a {type(result).__name__}, not a table of tensors")
        return result

    def _odd(self, what: str) -> ConversionError:
        return ConversionError(f"{self._path}: data.pkl is not one of a model: {what}")

    def _follow(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in ("PROTO", "FRAME"):
            return
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _WITH_ARGUMENT:
            stack.append(argument)
        elif name == "MARK":
            stack.append(_Mark())
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            stack.append({} if name == "EMPTY_DICT" else [])
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name == "TUPLE":
            stack.append(tuple(self._since_mark()))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            n = int(name[-1])
            items = tuple(stack[-n:])
            del stack[-n:]
            stack.append(items)
        else:
            self._follow_table(name, argument)

    def _follow_table(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name == "GLOBAL":
            stack.append(_Name(argument.replace(" ", ".")))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(_Name(f"{module}.{attribute}"))
        elif name == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif name == "REDUCE":
            arguments, called = stack.pop(), stack.pop()
            stack.append(self._make(called, arguments))
        elif name == "BUILD":
            stack.pop()  # attributes of a table, such as the versions of modules
        elif name in ("SETITEM", "SETITEMS"):
            items = self._since_mark() if name == "SETITEMS" else [stack.pop(), stack.pop()][::-1]
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif name in ("APPEND", "APPENDS"):
            items = self._since_mark() if name == "APPENDS" else [stack.pop()]
            stack[-1].extend(items)
        else:
            raise self._odd(f"it has the instruction {name}")

    def _since_mark(self) -> list[Any]:
        items: list[Any] = []
        while not isinstance(item := self._stack.pop(), _Mark):
            items.append(item)
        return items[::-1]

    def _storage(self, reference: Any) -> _Storage:
        _, kind, key, _, n_items = reference
        found = _STORAGES.get(kind.text.removeprefix("torch."))
        if found is None:
            raise self._odd(f"it has values of type {kind.text[:80]}")
        dtype, itemsize = found
        offset, n_bytes = self._stored[key]
        if not isinstance(n_items, int) or not 0 <= n_items * itemsize <= n_bytes:
            raise self._odd(f"storage {key} is said to have {n_items} values in {n_bytes} bytes")
        return _Storage(dtype, itemsize, offset, n_items)

    def _make(self, called: Any, arguments: Any) -> Any:
        name = called.text if isinstance(called, _Name) else type(called).__name__
        if name == "collections.OrderedDict" and arguments == ():
            return {}
        if name == "torch._utils._rebuild_parameter":
            return arguments[0]
        if name != "torch._utils._rebuild_tensor_v2":
            raise self._odd(f"it calls {name[:80]}")
        storage, first, shape, strides = arguments[:4]
        if not isinstance(storage, _Storage) or len(shape) > _MAX_DIMENSIONS:
            raise self._odd("a tensor has no values, or too many dimensions")
        if not all(type(n) is int and n >= 0 for n in (first, *shape, *strides)):
            raise self._odd("a tensor has a size that is no number")
        if first + prod(shape) > storage.n_items:
            raise self._odd(f"a tensor of {prod(shape)} values begins at {first} of {storage.n_items}")
        step = 1
        for n, stride in zip(reversed(shape), reversed(strides), strict=True):
            if n != 1 and stride != step:
                raise self._odd("a tensor's values do not lie in order; save the model as safetensors")
            step *= n
        return _Tensor(storage, first, tuple(shape))
