"""What ingestion asks of an embedding model; `engine.embedder.Embedder` is the real one."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray


class Embedder(Protocol):
    """Turn texts into L2-normalised vectors; thread-safe and blocking."""

    @property
    def dimension(self) -> int: ...

    @property
    def max_tokens(self) -> int:
        """Longest input in tokens, special tokens included."""

    @property
    def fingerprint(self) -> Any:
        """Frozen dataclass that differs whenever vectors would differ."""

    def count_tokens(self, text: str) -> int:
        """Count tokens without special ones."""

    @property
    def token_counter(self) -> Callable[[Sequence[str]], Sequence[int]]:
        """Count the tokens of many texts, without special ones; can be pickled for the readers' processes."""

    def embed(self, texts: Sequence[str], *, kind: Literal["document", "query"]) -> NDArray[np.float32]:
        """Return [n, dimension], order kept."""


def fingerprint_key(embedder: Embedder) -> str:
    """Return the embedder's fingerprint as canonical JSON: equal strings, equal vectors."""
    return json.dumps(dataclasses.asdict(embedder.fingerprint), sort_keys=True, ensure_ascii=False)
