"""A real, if humble, second embedder: hashed bags of words, L2-normalised."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

_TOKEN = re.compile(r"[\u3400-\u9fff]|[^\W_]+|[^\w\s]")


@dataclass(frozen=True)
class HashingFingerprint:
    salt: str
    dimension: int


def count_tokens(texts: Sequence[str]) -> list[int]:
    """Count words and marks; stands in a module, so that it can be pickled."""
    return [len(_TOKEN.findall(text)) for text in texts]


class HashingEmbedder:
    """Embed by hashing every word to a signed axis; counts what it embedded."""

    def __init__(self, *, salt: str = "a", dimension: int = 64, max_tokens: int = 256) -> None:
        self.dimension = dimension
        self.max_tokens = max_tokens
        self.fingerprint = HashingFingerprint(salt, dimension)
        self.n_embedded = 0
        self.longest = 0

    def count_tokens(self, text: str) -> int:
        return len(_TOKEN.findall(text))

    @property
    def token_counter(self) -> Callable[[Sequence[str]], list[int]]:
        return count_tokens

    def embed(self, texts: Sequence[str], *, kind: Literal["document", "query"]) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for n, text in enumerate(texts):
            row = vectors[n]
            for token in _TOKEN.findall(text.lower()):
                digest = hashlib.blake2b(f"{self.fingerprint.salt}{token}".encode(), digest_size=8).digest()
                row[int.from_bytes(digest[:4], "big") % self.dimension] += 1 if digest[4] & 1 else -1
            norm = float(np.linalg.norm(row))
            if norm:
                vectors[n] /= norm
            self.longest = max(self.longest, self.count_tokens(text))
        if kind == "document":
            self.n_embedded += len(texts)
        return vectors
