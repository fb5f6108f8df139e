"""Texts to vectors through the native encoder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.errors import ContextTooLong
from engine.scheduler import Scheduler
from engine.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class EmbedderFingerprint:
    """What makes two vectors comparable: they are when all of this is equal."""

    gguf_sha256: str
    pooling: str
    document_prefix: str
    query_prefix: str
    dimension: int
    normalized: bool = True


class TextEncoder(Protocol):
    """A native model that turns token sequences into vectors."""

    def encode(self, batch: Sequence[NDArray[np.int32]], normalize: bool = True) -> NDArray[np.float32]: ...


class Embedder:
    """An embedding model; thread-safe and blocking."""

    def __init__(
        self,
        name: str,
        tokenizer: Tokenizer,
        encoder: TextEncoder,
        scheduler: Scheduler,
        fingerprint: EmbedderFingerprint,
        *,
        max_tokens: int,
    ) -> None:
        """Join the parts; see `Engine.open`. `max_tokens` counts special tokens."""
        self.name = name
        self.dimension = fingerprint.dimension
        self.max_tokens = max_tokens
        self.fingerprint = fingerprint
        self._tokenizer = tokenizer
        self._encoder = encoder
        self._scheduler = scheduler

    def count_tokens(self, text: str) -> int:
        """Count tokens without special ones."""
        return len(self._tokenizer.encode(text, add_special=False))

    @property
    def token_counter(self) -> Callable[[Sequence[str]], list[int]]:
        """Count the tokens of many texts, without special ones; may be pickled into another process."""
        return self._tokenizer.count

    def embed(self, texts: Sequence[str], *, kind: Literal["document", "query"]) -> NDArray[np.float32]:
        """Return L2-normalised vectors [len(texts), dimension], order kept; queries go before documents.

        Raises: ContextTooLong naming the text's index, its tokens and the limit; EngineClosed.
        """
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        is_query = kind == "query"
        prefix = self.fingerprint.query_prefix if is_query else self.fingerprint.document_prefix
        batch = [np.array(self._tokenizer.encode(prefix + text), np.int32) for text in texts]
        for index, tokens in enumerate(batch):
            if len(tokens) > self.max_tokens:
                raise ContextTooLong(
                    f"text {index} has {len(tokens)} tokens; {self.name} reads at most {self.max_tokens}"
                )
        return self._scheduler.encode(
            [len(tokens) for tokens in batch],
            lambda first, end: self._encoder.encode(batch[first:end]),
            urgency=kind,
        ).result()
