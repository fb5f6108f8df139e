"""Several answers to one request, side by side."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from engine.chat_model import GenerationParams
from rag.answer import answer
from rag.asking import Ask, Parts
from rag.events import Event

Numbered = tuple[int, Event]


def answer_all(ask: Ask, n: int, parts: Parts) -> AsyncGenerator[Numbered, None]:
    """Answer `n` times, each with a seed of its own; see `side_by_side`. Raises: as `answer`."""
    asks = [replace(ask, params=with_seed(ask.params, index)) for index in range(n)]
    return side_by_side([partial(answer, own, parts) for own in asks])


def with_seed(params: GenerationParams, index: int) -> GenerationParams:
    """Draw the answer number `index` differently from the others, and the same each time."""
    return params if params.seed is None else replace(params, seed=params.seed + index)


async def side_by_side(
    starts: Sequence[Callable[[], AsyncGenerator[Event, None]]],
) -> AsyncGenerator[Numbered, None]:
    """Yield the events of all answers as they come, each with the number of its answer.

    Closing the iterator cancels all of them; the first that fails ends them and raises.
    """
    if len(starts) == 1:
        async with aclosing(starts[0]()) as events:
            async for event in events:
                yield 0, event
        return
    queue: asyncio.Queue[Numbered | Exception | None] = asyncio.Queue()

    async def run(index: int, start: Callable[[], AsyncGenerator[Event, None]]) -> None:
        try:
            async with aclosing(start()) as events:
                async for event in events:
                    queue.put_nowait((index, event))
            queue.put_nowait(None)
        # Whoever reads the queue raises it, whatever it is.
        except Exception as error:  # noqa: BLE001
            queue.put_nowait(error)

    tasks = [asyncio.create_task(run(index, start)) for index, start in enumerate(starts)]
    try:
        n_left = len(starts)
        while n_left:
            item = await queue.get()
            if item is None:
                n_left -= 1
            elif isinstance(item, Exception):
                raise item
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
