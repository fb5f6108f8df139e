"""What chat completions and responses have in common: answers that are measured, and begin in time."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import structlog

from rag.asking import Ask
from rag.choices import Numbered, answer_all
from rag.events import Called, End, Retrieved, Text, Thought
from rag.service import Service
from rag.sse import Patient

log = structlog.get_logger("quarry.answers")

# An error within this time still becomes an HTTP status; then the headers go out, because clients give up
# on a server that sends none.
HEADERS_AFTER_S = 1.0
# Clients give up on a stream that is silent, too.
KEEP_ALIVE_S = 10.0


async def answers(ask: Ask, n: int, service: Service) -> AsyncGenerator[Numbered, None]:
    """Answer `n` times; measure and log it, without a word of what was asked or said."""
    started = time.perf_counter()
    has_text = False
    async with aclosing(answer_all(ask, n, service.parts)) as events:
        async for index, event in events:
            if isinstance(event, Retrieved):
                service.metrics.searched(time.perf_counter() - started)
            if not has_text and isinstance(event, Text | Thought | Called):
                has_text = True
                service.metrics.first_text_after(time.perf_counter() - started)
            if isinstance(event, End):
                service.metrics.queued(event.queued_s)
                log.info(
                    "answered",
                    target=ask.target.kind,
                    sources=len(event.sources),
                    prompt_tokens=event.n_prompt_tokens,
                    completion_tokens=event.n_completion_tokens,
                    finish_reason=event.finish_reason,
                )
            yield index, event


async def first_events(events: Patient[Numbered]) -> list[Numbered]:
    """Wait a moment for the search and the admission, whose errors deserve an HTTP status."""
    first: list[Numbered] = []
    try:
        while come := await events.next(within=HEADERS_AFTER_S):
            first += come
            if not isinstance(come[-1][1], Retrieved):
                break
    except TimeoutError:
        pass
    except BaseException:
        await events.aclose()
        raise
    return first
