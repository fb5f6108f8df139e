"""What a caller asks of a generation, and the channel through which it comes back."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal

from engine.errors import EngineError
from engine.grammar import Grammar

FinishReason = Literal["stop", "length", "cancelled"]
_PACE_S = 0.025
TopToken = tuple[str, bytes, float]  # as it reads, its bytes, its logprob


@dataclass(frozen=True, slots=True)
class GenerationParams:
    """How to continue a prompt. Raises ValueError naming the field, its value and its range.

    `max_tokens` None: as many as fit. `temperature` 0: greedy; `top_k` 0, `top_p` 1, `min_p` 0: off. `seed`
    None: another one each time. `stop`: the text ends before the first of these. `logit_bias`: added to the
    logits of these token ids. `n_logprobs` None: none; n: of the drawn and the n <= 20 most likely tokens.
    `grammar`: the form that the answer is held to; it ends when the form is complete. `tenant`: whose prompt
    this is; what was computed for its beginning is kept for other prompts of the same tenant, and for nobody
    else; None keeps nothing.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    n_logprobs: int | None = None
    grammar: Grammar | None = None
    tenant: str | None = None

    def __post_init__(self) -> None:
        ranges: tuple[tuple[str, float | None, float, float], ...] = (
            ("max_tokens", self.max_tokens, 1, 2**31 - 1),
            ("temperature", self.temperature, 0, 100),
            ("top_k", self.top_k, 0, 1_000_000),
            ("top_p", self.top_p, 0, 1),
            ("min_p", self.min_p, 0, 1),
            ("repetition_penalty", self.repetition_penalty, 0.01, 100),
            ("frequency_penalty", self.frequency_penalty, -100, 100),
            ("presence_penalty", self.presence_penalty, -100, 100),
            ("seed", self.seed, -(2**63), 2**64 - 1),
            ("n_logprobs", self.n_logprobs, 0, 20),
        )
        for name, value, low, high in ranges:
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name} is {value}; allowed are {low} to {high}")
        if "" in self.stop:
            raise ValueError("stop holds an empty string; each must have at least one character")


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token, its bytes and its natural-logarithm probability; `top` lists the most likely ones likewise."""

    token: str
    bytes: bytes
    logprob: float
    top: tuple[TopToken, ...]


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a generation; the last one has `finish_reason` set."""

    text: str
    n_tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None


def _is_last(item: Delta | EngineError) -> bool:
    return isinstance(item, EngineError) or item.finish_reason is not None


def _nothing() -> None:
    """Cancel what has ended."""


class Generation:
    """A running generation: one reader iterates it, in a thread or on an event loop; anyone may cancel it."""

    def __init__(self, n_prompt_tokens: int, on_cancel: Callable[[], None]) -> None:
        """Open the channel of a request that was admitted; `on_cancel` tells the scheduler."""
        self.n_prompt_tokens = n_prompt_tokens
        self.n_cached_tokens = 0  # of the prompt: those that the cache knew
        self.n_completion_tokens = 0
        self.queued_s = 0.0
        """How long the request waited until it was first let in."""
        self._created = time.perf_counter()
        self._on_cancel = on_cancel
        self._changed = threading.Condition()
        self._items: deque[Delta | EngineError] = deque()
        self._ended = False
        self._wake: Callable[[], object] | None = None
        self._is_resting = False  # the reader, who is woken by the end only

    def cancel(self) -> None:
        """Stop and free everything at the next step; the iteration then ends with `cancelled`."""
        self._on_cancel()

    def note_start(self) -> None:
        """Note that the request is let in (for the scheduler); only the first time counts."""
        self.queued_s = self.queued_s or time.perf_counter() - self._created

    def put(self, item: Delta | EngineError) -> None:
        """Hand a piece, or the error that ends it all, to the reader (for the scheduler)."""
        is_last = _is_last(item)
        with self._changed:
            self._items.append(item)
            if is_last:
                # The request is over and holds this: it goes with its reader, not when cycles are looked for.
                self._on_cancel = _nothing
            self._changed.notify()
            if self._wake is not None and (is_last or not self._is_resting):
                self._wake()
                self._wake = None

    def __iter__(self) -> Iterator[Delta]:
        """Yield pieces as they come; raises the error that ended the generation."""
        while not self._ended:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._items))
                item = self._items.popleft()
            yield self._check(item)

    async def __aiter__(self) -> AsyncIterator[Delta]:
        """Yield pieces as they come, on the running event loop; leaving early cancels."""
        async with aclosing(self.batches()) as batches:
            async for batch in batches:
                for delta in batch:
                    yield delta

    async def batches(self) -> AsyncGenerator[list[Delta], None]:
        """Yield what has come, in lists; raises the error that ended the generation. Leaving early cancels.

        The first at once, and the last; between them it looks up once in `_PACE_S`, which no reader sees, at
        the same moments as all others of this event loop: where many write, waking for every token of each
        would take the processor from those that compute them.
        """
        loop = asyncio.get_running_loop()
        rest_s = 0.0
        try:
            while not self._ended:
                deltas: list[Delta] = []
                for item in await self._come(loop, rest_s):
                    if isinstance(item, EngineError) and deltas:
                        yield deltas
                    deltas.append(self._check(item))
                yield deltas
                # The next of those moments that is not just about now.
                rest_s = 1.5 * _PACE_S - (loop.time() + 0.5 * _PACE_S) % _PACE_S
        finally:
            if not self._ended:
                self.cancel()

    async def _come(self, loop: asyncio.AbstractEventLoop, rest_s: float) -> list[Delta | EngineError]:
        """Rest, then take what has come, as soon as there is something; the end is taken at once."""
        waiting: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not waiting.done():
                waiting.set_result(None)

        def look_up() -> None:
            with self._changed:
                self._is_resting = False
                if not self._items:
                    return  # the next piece wakes
            wake()

        with self._changed:
            waits = not self._items or (rest_s > 0 and not _is_last(self._items[-1]))
            if waits:
                self._is_resting = rest_s > 0
                self._wake = lambda: None if loop.is_closed() else loop.call_soon_threadsafe(wake)
        timer = loop.call_later(rest_s, look_up) if waits and rest_s > 0 else None
        try:
            if waits:
                await waiting
        finally:
            if timer is not None:
                timer.cancel()
            with self._changed:
                self._wake = None
                items = list(self._items)
                self._items.clear()
        return items

    def _check(self, item: Delta | EngineError) -> Delta:
        if isinstance(item, EngineError):
            self._ended = True
            raise item
        self._ended = item.finish_reason is not None
        return item
