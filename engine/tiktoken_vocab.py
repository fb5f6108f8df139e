"""Read byte-pair vocabularies in tiktoken's form, a line for each token: its bytes in base64, and its rank.

The first Qwen and GLM-4 come with such files. GGUF wants the pairs that are merged; a token's pair is what
its bytes have become when only lower ranks are merged.
"""

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ConversionError

MAX_BYTES = 64 << 20
_MAX_TOKEN_BYTES = 4096


@dataclass(frozen=True, slots=True)
class RankedVocabulary:
    """Tokens by rank, and merges in their order, written in the letters of byte-level BPE."""

    tokens: tuple[str, ...]
    merges: tuple[tuple[str, str], ...]


def looks_like_tiktoken(path: Path) -> bool:
    """Say whether a file begins with a line of base64 and a number."""
    try:
        with path.open("rb") as file:
            line = file.readline(200).split()
            return len(line) == 2 and line[1].isdigit() and bool(base64.b64decode(line[0], validate=True))
    except (OSError, binascii.Error, ValueError):
        return False


def read_tiktoken(path: Path) -> RankedVocabulary:
    """Read the file. Raises: ConversionError naming it and the line."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConversionError(f"{path} has {path.stat().st_size} bytes; at most {MAX_BYTES} are read")
        lines = path.read_bytes().split(b"\n")
    except OSError as e:
        raise ConversionError(f"{path} cannot be read: {e}") from e
    ranks: dict[bytes, int] = {}
    for i, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            text, number = line.split()
            token, rank = base64.b64decode(text, validate=True), int(number)
        except (ValueError, binascii.Error):
            raise ConversionError(f"{path}: line {i} is not base64 and a rank") from None
        if rank != len(ranks) or token in ranks or not 0 < len(token) <= _MAX_TOKEN_BYTES:
            raise ConversionError(f"{path}: line {i} has rank {rank}; new tokens in order are expected")
        ranks[token] = rank
    letters = _byte_letters()
    written = {token: "".join(letters[byte] for byte in token) for token in ranks}
    merges = []
    for token, rank in ranks.items():
        if len(token) < 2:
            continue
        parts = _merged_below(token, rank, ranks)
        if len(parts) == 2 and all(part in written for part in parts):
            merges.append((written[parts[0]], written[parts[1]]))
    return RankedVocabulary(tuple(written.values()), tuple(merges))


def _merged_below(token: bytes, limit: int, ranks: dict[bytes, int]) -> list[bytes]:
    """Merge the bytes of `token` by ranks below `limit`, lowest first."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        best, at = min((ranks.get(parts[i] + parts[i + 1], limit), i) for i in range(len(parts) - 1))
        if best >= limit:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def _byte_letters() -> list[str]:
    """Return the letter that byte-level BPE writes for each byte: itself, or one from 256 on."""
    plain = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]
