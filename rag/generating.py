"""Let a model continue a prompt, from asynchronous code."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from anyio import to_thread

from engine.chat_model import Delta, GenerationParams
from engine.errors import EngineClosed
from rag.errors import InvalidRequest
from rag.events import End, Event, Started, Text, Thought
from rag.ports import ChatModel, Generation
from rag.thinking import ThoughtFilter


async def generate(
    chat: ChatModel,
    token_ids: Sequence[int],
    params: GenerationParams,
    *,
    with_thoughts: bool = True,
    joined: bool = False,
) -> AsyncGenerator[Event, None]:
    """Continue a prompt: Started, Thought…, Text…, End. Without thoughts, all is text.

    `joined`: what has come together is one Text; else each piece is its own, for who may end the answer at
    any of them, and must do so at the same one whatever the moment.

    Raises: InvalidRequest, what the engine raises.
    """
    start = _Start(chat, token_ids, params)
    try:
        generation = await to_thread.run_sync(start.run)
    except asyncio.CancelledError:
        start.leave()
        raise
    except ValueError as error:  # the prompt is ours: what is left is a bias outside the vocabulary
        raise InvalidRequest(str(error), param="logit_bias") from error
    try:
        yield Started(len(token_ids))
        finish_reason = None
        thoughts = None
        if with_thoughts and chat.thinks and params.grammar is None:
            thoughts = ThoughtFilter(is_open=chat.opens_thought(token_ids))
        n_thought_tokens = 0
        async with aclosing(generation.batches()) as batches:
            async for deltas in batches:
                finish_reason = deltas[-1].finish_reason
                for part in [deltas] if joined else [[delta] for delta in deltas]:
                    for piece in _pieces(part, thoughts, n_cached_tokens=generation.n_cached_tokens):
                        if isinstance(piece, Thought):
                            n_thought_tokens += piece.n_tokens
                        yield piece
        if finish_reason is None or finish_reason == "cancelled":
            raise EngineClosed("the engine ended the generation before it was complete")
        yield End(
            finish_reason,
            generation.n_prompt_tokens,
            generation.n_completion_tokens,
            n_thought_tokens=n_thought_tokens,
            n_cached_tokens=generation.n_cached_tokens,
            queued_s=generation.queued_s,
        )
    finally:
        generation.cancel()


def _pieces(
    deltas: list[Delta], thoughts: ThoughtFilter | None, *, n_cached_tokens: int
) -> Iterator[Thought | Text]:
    if thoughts is None:
        if any(delta.text or delta.logprobs for delta in deltas):
            yield Text("".join(delta.text for delta in deltas), tuple(deltas), n_cached_tokens)
        return
    for delta in deltas:
        parts = thoughts.feed(delta.text)
        if delta.finish_reason is not None:
            parts += thoughts.flush()
        n_tokens = delta.n_tokens
        for kind, text in parts:
            if kind == "thought":
                yield Thought(text, n_tokens)
            else:
                yield Text(text, (replace(delta, n_tokens=n_tokens),), n_cached_tokens)
            n_tokens = 0


class _Start:
    """A generation that a thread admits. Whoever waits for it may leave before: it is cancelled then."""

    def __init__(self, chat: ChatModel, token_ids: Sequence[int], params: GenerationParams) -> None:
        self._admit = partial(chat.generate, token_ids, params)
        self._generation: Generation | None = None
        self._is_left = False

    def run(self) -> Generation:
        """Admit it, in any thread."""
        self._generation = self._admit()
        if self._is_left:
            self._generation.cancel()
        return self._generation

    def leave(self) -> None:
        """Cancel it, now or as soon as it is admitted."""
        self._is_left = True
        if self._generation is not None:
            self._generation.cancel()
