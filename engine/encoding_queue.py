"""What encoders do between chat steps: queries at once, then rankings, documents where chat leaves time."""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineError, GenerationFailed

Vectors = NDArray[np.float32]
Encode = Callable[[int, int], Vectors]
"""Computes the rows of the sequences [first, end) of a request."""
Urgency = Literal["query", "ranking", "document"]

_TOKENS = 1024  # of one micro-batch while nobody chats
_TOKENS_BETWEEN = 256  # of one between two steps, until its speed is known
_SECONDS_BETWEEN = 0.06  # that one may take, for a running stream waits as long
_SHARE = 0.25  # of the time of the steps, for documents while somebody chats
_MOST_CREDIT = 0.15  # seconds
_WEIGHT = 0.3  # of the newest micro-batch in the measured speed

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Request:
    """The lengths of token sequences, and their rows so far."""

    lengths: Sequence[int]
    encode: Encode
    future: Future[Vectors] = field(default_factory=Future)
    parts: list[Vectors] = field(default_factory=list)
    n_done: int = 0


class _Lane:
    """Requests of one urgency, and how fast their encoder is."""

    def __init__(self) -> None:
        self.requests: deque[_Request] = deque()
        self._seconds_per_token = 0.0

    def run_between(self) -> float:
        """Run one micro-batch that a running stream can wait for; return its seconds."""
        n_tokens = _TOKENS_BETWEEN
        if self._seconds_per_token > 0:
            n_tokens = min(_TOKENS, int(_SECONDS_BETWEEN / self._seconds_per_token))
        return self.run(n_tokens)

    def run(self, n_most: int) -> float:
        """Run at most `n_most` tokens of the first request, but one sequence; return the seconds it took."""
        request = self.requests[0]
        end, n_tokens = request.n_done, 0
        while end < len(request.lengths) and (
            end == request.n_done or n_tokens + request.lengths[end] <= n_most
        ):
            n_tokens += request.lengths[end]
            end += 1
        started = time.perf_counter()
        try:
            request.parts.append(request.encode(request.n_done, end))
        except (ValueError, RuntimeError, MemoryError) as error:
            _log.exception("an encoding of %d sequences failed", len(request.lengths))
            self.requests.popleft()
            request.future.set_exception(GenerationFailed(f"the model could not encode: {error}"))
            return time.perf_counter() - started
        seconds = time.perf_counter() - started
        rate = seconds / max(1, n_tokens)
        self._seconds_per_token += (_WEIGHT if self._seconds_per_token else 1.0) * (
            rate - self._seconds_per_token
        )
        request.n_done = end
        if end == len(request.lengths):
            self.requests.popleft()
            request.future.set_result(np.concatenate(request.parts))
        return seconds


class EncodingQueue:
    """The requests of all encoders. `add` and `len` from any thread, the rest from the scheduler's."""

    def __init__(self) -> None:
        """Begin empty."""
        self._lanes: dict[Urgency, _Lane] = {"query": _Lane(), "ranking": _Lane(), "document": _Lane()}
        self._credit = 0.0

    def __len__(self) -> int:
        """Count the requests that are not done."""
        return sum(len(lane.requests) for lane in self._lanes.values())

    def add(self, lengths: Sequence[int], encode: Encode, *, urgency: Urgency) -> Future[Vectors]:
        """Queue sequences of `lengths` tokens; `encode` is called for some of them after the other."""
        request = _Request(lengths, encode)
        self._lanes[urgency].requests.append(request)
        return request.future

    def run(self, *, chat_seconds: float | None) -> None:
        """Run some. `chat_seconds` None: nobody chats; else how long the step before took.

        While somebody chats one micro-batch runs at most: of queries or rankings, for which somebody waits,
        else of documents, if they have credit.
        """
        queries, rankings, documents = self._lanes.values()
        if chat_seconds is None:
            while queries.requests:
                queries.run(_TOKENS)
            waiting = rankings if rankings.requests else documents
            if waiting.requests:
                waiting.run(_TOKENS)
            return
        self._credit = min(self._credit + _SHARE * chat_seconds, _MOST_CREDIT)
        awaited = queries if queries.requests else rankings
        if awaited.requests:
            awaited.run_between()
        elif documents.requests and self._credit > 0:
            self._credit -= documents.run_between()

    def fail(self, error: EngineError) -> None:
        """End all requests."""
        for lane in self._lanes.values():
            while lane.requests:
                lane.requests.popleft().future.set_exception(error)
