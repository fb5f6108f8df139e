"""Convert a Hugging Face folder (config.json, weights, tokenizer) to one GGUF file.

Names and keys are those of llama.cpp's converter, so that its programs read our files too. Tensors go
through one by one.
"""

import contextlib
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import gguf
import numpy as np
from numpy.typing import NDArray

from engine.conversion import Conversion
from engine.convert_architectures import find_conversion
from engine.convert_vocab import write_vocab
from engine.errors import ConversionError
from engine.model_folder import read_tensors
from engine.safetensors_folder import StoredTensor, read_json

TensorType = Literal["F32", "F16", "BF16", "Q8_0"]
_BLOCK = 32
_SLICE_BYTES = 64 << 20
# llama.cpp keeps these in F32 whatever the file type: they are small, and added or decide much.
_ALWAYS_F32 = ("position_embd.weight", "token_types.weight", "ffn_gate_inp.weight", "ssm_conv1d.weight")
_FILE_TYPES = {
    "F32": gguf.LlamaFileType.ALL_F32,
    "F16": gguf.LlamaFileType.MOSTLY_F16,
    "BF16": gguf.LlamaFileType.MOSTLY_BF16,
    "Q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}


class ConvertProgress(Protocol):
    """Hears how far a conversion is, in tensors."""

    def __call__(self, done: int, total: int, label: str, /) -> None: ...


@dataclass(frozen=True, slots=True)
class _OutTensor:
    name: str
    shape: tuple[int, ...]
    type: gguf.GGMLQuantizationType
    source: NDArray[np.float32] | tuple[StoredTensor, ...]
    """Values, or the pieces of the folder that are joined."""


def convert(
    folder: Path,
    out: Path,
    *,
    tensor_type: TensorType = "F16",
    progress: ConvertProgress | None = None,
) -> None:
    """Convert the model in `folder` to the GGUF file `out`, which appears whole or not at all.

    Matrices become `tensor_type`; norms, biases and other vectors stay F32. Rows that Q8_0 blocks of 32 do
    not divide become F16. Raises: ConversionError naming what is missing or odd; OSError when `out` cannot
    be written.
    """
    if tensor_type not in get_args(TensorType):
        known = ", ".join(get_args(TensorType))
        raise ConversionError(f"tensor type {tensor_type!r} cannot be written; known are {known}")
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "is not there"
        raise ConversionError(f"{folder} {what}; a Hugging Face folder with a config.json is expected")
    config = read_json(folder / "config.json")
    conversion = find_conversion(config, folder)
    tensors = _plan(conversion, read_tensors(folder).values(), tensor_type)
    writer = gguf.GGUFWriter(None, gguf.MODEL_ARCH_NAMES[conversion.arch])
    writer.add_type("model")
    writer.add_name(folder.resolve().name)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_file_type(_FILE_TYPES[tensor_type])
    conversion.write_hparams(writer, folder)
    write_vocab(writer, folder, kind=conversion.vocab, n_vocab=conversion.n_vocab)
    part = out.with_name(out.name + ".part")
    try:
        _write(writer, conversion, tensors, part, progress)
        part.replace(out)
    finally:
        writer.close()
        with contextlib.suppress(FileNotFoundError):
            part.unlink()


def _plan(
    conversion: Conversion, stored: Iterable[StoredTensor], tensor_type: TensorType
) -> list[_OutTensor]:
    names = gguf.get_tensor_name_map(conversion.arch, conversion.n_layers)
    planned: dict[str, _OutTensor] = {}
    for extra, values in conversion.extra_tensors():
        planned[extra] = _OutTensor(extra, values.shape, gguf.GGMLQuantizationType.F32, values)
    pieces: dict[str, list[tuple[int, StoredTensor]]] = {}
    for whole in stored:
        for source_name, tensor in conversion.tensors(whole):
            is_head = source_name.startswith("cls.")  # gguf's map has it for some architectures only
            name = source_name if is_head else names.get_name(source_name, (".weight", ".bias"))
            if name is None:
                raise ConversionError(f"tensor {whole.name} is not one of a {conversion.name}")
            pieces.setdefault(name, []).append((conversion.part(whole.name), tensor))
    for name, found in pieces.items():
        tensors = tuple(tensor for _, tensor in sorted(found, key=lambda entry: entry[0]))
        shape = _joined_shape(conversion, name, tensors)
        planned[name] = _OutTensor(name, shape, _type_of(name, shape, tensor_type), tensors)
    for name in conversion.required():
        if name not in planned:
            raise ConversionError(f"the tensor for {name} is missing in the folder")
    return list(planned.values())


def _joined_shape(conversion: Conversion, name: str, pieces: tuple[StoredTensor, ...]) -> tuple[int, ...]:
    """Return the shape of what the pieces become. Raises: ConversionError where config.json has another."""
    first = pieces[0]
    expected = conversion.shape(name)
    if len(pieces) == 1:
        shape = first.shape
        if expected is not None and shape != expected and math.prod(shape) == math.prod(expected):
            shape = tuple(n for n in shape if n != 1)  # dimensions of one row or column tell nothing
    else:
        shape = (sum(piece.shape[0] for piece in pieces), *first.shape[1:])
        if expected is not None and len(expected) == len(shape) + 1:  # experts
            shape = (len(pieces), *first.shape)
    odd = next((piece for piece in pieces if piece.shape[1:] != first.shape[1:]), None)
    if odd is not None or (expected is not None and expected != shape):
        odd = odd or first
        raise ConversionError(
            f"tensor {odd.name} is {odd.shape}; config.json makes it {expected}"
            if len(pieces) == 1
            else f"{len(pieces)} tensors such as {odd.name} make {shape}; config.json makes them {expected}"
        )
    return shape


def _type_of(name: str, shape: tuple[int, ...], wanted: TensorType) -> gguf.GGMLQuantizationType:
    if len(shape) < 2 or name.endswith(_ALWAYS_F32):
        return gguf.GGMLQuantizationType.F32
    if wanted == "Q8_0" and shape[-1] % _BLOCK:
        return gguf.GGMLQuantizationType.F16
    return gguf.GGMLQuantizationType[wanted]


def _write(
    writer: gguf.GGUFWriter,
    conversion: Conversion,
    tensors: list[_OutTensor],
    part: Path,
    progress: ConvertProgress | None,
) -> None:
    for tensor in tensors:
        block, block_bytes = gguf.GGML_QUANT_SIZES[tensor.type]
        n_bytes = int(np.prod(tensor.shape, dtype=np.int64)) // block * block_bytes
        writer.add_tensor_info(
            tensor.name, tensor.shape, np.dtype(np.float32), n_bytes, raw_dtype=tensor.type
        )
    writer.write_header_to_file(part)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for i, tensor in enumerate(tensors):
        if progress is not None:
            progress(i, len(tensors), tensor.name)
        writer.write_tensor_data(_encode(conversion, tensor))
    writer.flush()
    for file in writer.fout or ():
        os.fsync(file.fileno())
    if progress is not None:
        progress(len(tensors), len(tensors), part.name)


def _encode(conversion: Conversion, tensor: _OutTensor) -> NDArray[Any]:
    """Return the tensor's values as the file holds them; only a slice of it is ever wide."""
    if not isinstance(tensor.source, tuple):
        return tensor.source
    encoded = []
    for piece in tensor.source:
        raw = conversion.rearrange(tensor.name, piece.map())
        # What joins several pieces or dimensions keeps its rows.
        raw = raw.reshape(-1, tensor.shape[-1]) if len(tensor.shape) > 1 else raw.reshape(-1)
        row_values = tensor.shape[-1] if raw.ndim > 1 else 1
        rows = max(1, _SLICE_BYTES // (4 * max(1, row_values)))
        for at in range(0, raw.shape[0], rows):
            values = conversion.adjust(tensor.name, piece.to_float(raw[at : at + rows]))
            encoded.append(gguf.quants.quantize(values, tensor.type))
    return np.concatenate(encoded)
