"""Read OpenAI token ids: LangChain's embeddings client sends them instead of text.

The table (cl100k_base) is used where it lies already, and never fetched: in the models folder, or in
tiktoken's cache.
"""

import base64
import binascii
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from rag.errors import InvalidRequest

_FILE = "cl100k_base.tiktoken"
# The sha1 of the table's address is its name in tiktoken's cache.
_CACHED = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
_SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"


@dataclass(frozen=True, slots=True)
class TokenTable:
    """The bytes of each token."""

    tokens: Mapping[int, bytes]

    def decode(self, ids: Sequence[int]) -> str:
        """Give the text of token ids. Raises: InvalidRequest, naming an unknown one."""
        try:
            return b"".join(self.tokens[i] for i in ids).decode("utf-8", "replace")
        except KeyError as error:
            raise InvalidRequest(
                f"input: {error.args[0]} is no token of cl100k_base", param="input"
            ) from error


def find_table(models_dir: Path) -> TokenTable | None:
    """Give the table where this machine has it, or None."""
    places = [models_dir / _FILE]
    if cache := os.environ.get("TIKTOKEN_CACHE_DIR"):
        places.append(Path(cache) / _CACHED)
    return next((table for place in places if place.is_file() and (table := _load(place))), None)


@lru_cache(maxsize=2)
def _load(path: Path) -> TokenTable | None:
    raw = path.read_bytes()
    if hashlib.sha256(raw).hexdigest() != _SHA256:
        return None  # another file under that name would decode to garbage
    try:
        pairs = (line.split() for line in raw.splitlines() if line)
        return TokenTable({int(rank): base64.b64decode(token) for token, rank in pairs})
    except (ValueError, binascii.Error):
        return None
