"""Check the table by which Unigram vocabularies normalise text, before a library walks it unchecked.

The table is 4 bytes of length n, n bytes of a double-array trie (32-bit units), and the replacements, each
ended by a zero byte. From unit u at place p, the child for byte c lies at (p ^ offset(u)) ^ c, if its
label is c; where a prefix ends, the unit at its own offset holds the replacement's place.
Source: SentencePiece, normalizer.cc, and Darts-clone.
"""

import numpy as np
from numpy.typing import NDArray

from engine.errors import UnsupportedModel

_KEY = "tokenizer.ggml.precompiled_charsmap"
_MOST_BYTES = 16 << 20


def check_charsmap(table: bytes) -> None:
    """Refuse a table that a walk could leave. Raises: UnsupportedModel."""
    n_trie = int.from_bytes(table[:4], "little")
    if len(table) > _MOST_BYTES:
        raise UnsupportedModel(f"{_KEY} has {len(table)} bytes; at most {_MOST_BYTES} are read")
    if len(table) < 4 or n_trie % 4 or not 1024 <= n_trie <= len(table) - 4:
        raise UnsupportedModel(f"{_KEY} has {len(table)} bytes, of which {n_trie} are said to be its trie")
    units = np.frombuffer(table, "<u4", n_trie // 4, 4)
    replacements = table[4 + n_trie :]
    try:
        replacements.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnsupportedModel(f"{_KEY} holds a replacement that is no UTF-8: {error}") from error
    if not replacements.endswith(b"\0"):
        raise UnsupportedModel(f"{_KEY} ends within a replacement")
    _check_places(_leaves(units), replacements)


def _leaves(units: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Walk every path; return the values of the leaves."""
    bases = np.array([_offsets(units[:1])[0]])
    seen = np.zeros(len(units), bool)
    values = []
    while len(bases):
        # All children of a base lie in its block of 256 units.
        if bases.max() | 255 >= len(units):
            raise UnsupportedModel(f"{_KEY} points to unit {bases.max() | 255} of {len(units)}")
        places = (bases[:, None] ^ np.arange(1, 256)).ravel()
        labels = np.tile(np.arange(1, 256), len(bases))
        places = np.unique(places[(units[places] & 0x800000FF) == labels])
        places = places[~seen[places]]
        seen[places] = True
        bases = places ^ _offsets(units[places])
        ending = bases[(units[places] >> 8) & 1 == 1]
        if len(ending) and ending.max() >= len(units):
            raise UnsupportedModel(f"{_KEY} points to unit {ending.max()} of {len(units)}")
        values.append(units[ending] & 0x7FFFFFFF)
    return np.concatenate(values) if values else np.empty(0, np.uint32)


def _offsets(units: NDArray[np.uint32]) -> NDArray[np.int64]:
    wide = units.astype(np.int64)
    return (wide >> 10) << ((wide & (1 << 9)) >> 6)


def _check_places(places: NDArray[np.uint32], replacements: bytes) -> None:
    if len(places) and places.max() >= len(replacements):
        raise UnsupportedModel(f"{_KEY} names a replacement at byte {places.max()} of {len(replacements)}")
    data = np.frombuffer(replacements, np.uint8)
    if np.any((data[places] & 0xC0) == 0x80):
        raise UnsupportedModel(f"{_KEY} names a replacement that begins within a character")
