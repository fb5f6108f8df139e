"""Read the vocabulary of a SentencePiece model file without its library.

The file is a protobuf message: field 1 repeats pieces {1: text, 2: score as float, 3: type}, field 2 holds
the trainer's settings {3: model type}, field 3 the normalizer's {2: precompiled_charsmap,
3: add_dummy_prefix, 4: remove_extra_whitespaces}.
Source: sentencepiece_model.proto.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.errors import ConversionError
from engine.vocabulary import TokenType

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MODEL_KINDS: dict[int, Literal["unigram", "bpe"]] = {1: "unigram", 2: "bpe"}
Field = tuple[int, int | bytes]


@dataclass(frozen=True, slots=True)
class Piece:
    """One entry; its id is its place."""

    text: str
    score: float
    type: TokenType


@dataclass(frozen=True, slots=True)
class SentencePieceModel:
    """What a GGUF file needs of a SentencePiece model."""

    pieces: tuple[Piece, ...]
    kind: Literal["unigram", "bpe"]
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    charsmap: bytes


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Read a model. Raises: ConversionError for another kind than these, or a file that is no such model."""
    try:
        data = path.read_bytes()
        pieces: list[Piece] = []
        model_type, normalizer = 1, b""
        for number, value in _fields(data):
            if number == 1:
                pieces.append(_piece(value))
            elif number == 2:
                model_type = _last_int(value, 3, 1)
            elif number == 3:
                normalizer = _bytes(value)
        charsmap = b"".join(_bytes(inner) for number, inner in _fields(normalizer) if number == 2)
        prefix = _last_int(normalizer, 3, 1)
        remove_spaces = _last_int(normalizer, 4, 1)
    except (OSError, ValueError, TypeError, struct.error) as e:
        raise ConversionError(f"{path} is no SentencePiece model: {e}") from e
    if not pieces:
        raise ConversionError(f"{path} is no SentencePiece model: it has no pieces")
    if model_type not in _MODEL_KINDS:
        raise ConversionError(
            f"{path} is a SentencePiece model of type {model_type}; unigram (1) or BPE (2) is expected"
        )
    return SentencePieceModel(
        tuple(pieces), _MODEL_KINDS[model_type], bool(prefix), bool(remove_spaces), charsmap
    )


def _piece(value: int | bytes) -> Piece:
    text, score, kind = "", 0.0, TokenType.NORMAL
    for number, inner in _fields(value):
        if number == 1 and isinstance(inner, bytes):
            text = inner.decode("utf-8")
        elif number == 2 and isinstance(inner, bytes):
            score = struct.unpack("<f", inner)[0]
        elif number == 3 and isinstance(inner, int):
            kind = TokenType(inner)
    return Piece(text, score, kind)


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where a message is expected")
    return value


def _last_int(value: int | bytes, wanted: int, default: int) -> int:
    found = default
    for number, inner in _fields(value):
        if number == wanted and isinstance(inner, int):
            found = inner
    return found


def _fields(data: int | bytes) -> Iterator[Field]:
    """Walk a message: numbers as int, everything else as bytes. Raises: ValueError when it is cut off."""
    if isinstance(data, int):
        raise ValueError("a number where a message is expected")
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == _BYTES:
            length, at = _varint(data, at)
        elif wire in (_FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if length > len(data) - at:
            raise ValueError(f"a field of {length} bytes at byte {at} of {len(data)}")
        yield number, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(data):
            raise ValueError("the file ends inside a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f"a number of more than 64 bits at byte {at}")
