"""How well passages answer a question, by a model that reads both together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine import _native
from engine.errors import ContextTooLong, UnsupportedModel
from engine.scheduler import Scheduler
from engine.tokenizer import Tokenizer

WINDOW_TOKENS = 1024
"""Longer pairs are read in windows: rerankers are trained on passages, not on documents."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A question with a passage or a part of one, as the model reads them."""

    token_ids: NDArray[np.int32]
    second_text: int
    """Where the passage begins."""


class PairScorer(Protocol):
    """A model that scores pairs. `score` is called on the engine's thread."""

    @property
    def max_tokens(self) -> int: ...
    @property
    def weight_bytes(self) -> int: ...
    def pairs(self, query: str, passage: str) -> list[Pair]:
        """Put a question and a passage together, more than once where the passage is too long for one time.

        Raises: ContextTooLong where the question leaves no room.
        """

    def score(self, pairs: Sequence[Pair]) -> NDArray[np.float32]:
        """Return how likely each passage answers its question, from 0 to 1."""


class Reranker:
    """A reranking model; thread-safe and blocking."""

    def __init__(self, name: str, scorer: PairScorer, scheduler: Scheduler) -> None:
        """Join the parts; see `Engine.open`."""
        self.name = name
        self.max_tokens = scorer.max_tokens
        self._scorer = scorer
        self._scheduler = scheduler

    def rerank(self, query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        """Return how likely each passage answers the question, [len(passages)], from 0 to 1, order kept.

        A passage that the model cannot read at once counts as its best part.

        Raises: ContextTooLong naming the question's tokens and the limit; EngineClosed.
        """
        cut = [self._scorer.pairs(query, passage) for passage in passages]
        pairs = [pair for parts in cut for pair in parts]
        if not pairs:
            return np.empty(0, np.float32)
        scores = self._scheduler.encode(
            [len(pair.token_ids) for pair in pairs],
            lambda first, end: self._scorer.score(pairs[first:end]),
            urgency="ranking",
        ).result()
        ends = np.cumsum([len(parts) for parts in cut])
        return np.maximum.reduceat(scores, ends - [len(parts) for parts in cut])


class CrossEncoder:
    """An encoder whose head scores the pair, e.g. bge-reranker."""

    def __init__(self, tokenizer: Tokenizer, encoder: _native.Encoder) -> None:
        """Raises: UnsupportedModel for a head that does not say relevant or not."""
        if encoder.n_scores not in (1, 2):
            raise UnsupportedModel(
                "the model is no reranker: it has no head that scores (tensor cls.output.weight)"
                if encoder.n_scores == 0
                else f"the head gives {encoder.n_scores} scores; a reranker's gives 1 or 2"
            )
        self.max_tokens = min(encoder.context_length, WINDOW_TOKENS)
        self.weight_bytes = encoder.weight_bytes
        self._tokenizer = tokenizer
        self._encoder = encoder

    def pairs(self, query: str, passage: str) -> list[Pair]:
        asked = self._tokenizer.encode(query, add_special=False)
        ids = self._tokenizer.encode(passage, add_special=False)
        n_special = len(self._tokenizer.join_pair([], [])[0])
        room = room_beside(len(asked), self.max_tokens - n_special)
        return [
            Pair(np.array(joined, np.int32), second)
            for joined, second in (self._tokenizer.join_pair(asked, part) for part in windows(ids, room))
        ]

    def score(self, pairs: Sequence[Pair]) -> NDArray[np.float32]:
        logits = self._encoder.score([(pair.token_ids, pair.second_text) for pair in pairs])
        # Of two labels the second is the one for relevant.
        return sigmoid(logits[:, -1] - (logits[:, 0] if logits.shape[1] == 2 else 0.0))


def room_beside(n_query: int, n_most: int) -> int:
    """Return the tokens left for a passage. Raises: ContextTooLong where that is less than a quarter."""
    limit = n_most - n_most // 4
    if n_query > limit:
        raise ContextTooLong(
            f"the question has {n_query} tokens; the reranker reads at most {limit} of one beside a passage"
        )
    return n_most - n_query


def windows(token_ids: list[int], room: int) -> list[list[int]]:
    """Cut a passage into parts of `room` tokens that overlap by at least an eighth."""
    if len(token_ids) <= room:
        return [token_ids]
    step = room - room // 8
    starts = [*range(0, len(token_ids) - room, step), len(token_ids) - room]
    return [token_ids[start : start + room] for start in starts]


def sigmoid(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 1 / (1 + e^-x), without overflow."""
    return (0.5 * (1.0 + np.tanh(0.5 * x.astype(np.float64)))).astype(np.float32)
