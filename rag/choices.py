"""Several answers to one request, side by side."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from rag.admission import Admission
from rag.answer import Ask, Event, Parts, answer

Numbered = tuple[int, Event]


def leave_all(admission: Admission, n: int) -> Callable[[], None]:
    """Take `n` places or none; call what comes back to leave them. Raises: Overloaded."""
    places: list[Callable[[], None]] = []

    def leave() -> None:
        for place in places:
            place()

    try:
        for _ in range(n):
            places.append(admission.enter())  # noqa: PERF401 - what was taken must be known when one fails
    except BaseException:
        leave()
        raise
    return leave


async def answer_all(ask: Ask, n: int, parts: Parts) -> AsyncGenerator[Numbered, None]:
    """Yield the events of `n` answers as they come, each with the number of its answer.

    Closing the iterator cancels all of them; the first that fails ends them. Raises: as `answer`.
    """
    if n == 1:
        async with aclosing(answer(ask, parts)) as events:
            async for event in events:
                yield 0, event
        return
    queue: asyncio.Queue[Numbered | BaseException | None] = asyncio.Queue()

    async def run(index: int) -> None:
        seed = None if ask.params.seed is None else ask.params.seed + index
        own = replace(ask, params=replace(ask.params, seed=seed))
        try:
            async with aclosing(answer(own, parts)) as events:
                async for event in events:
                    queue.put_nowait((index, event))
            queue.put_nowait(None)
        # Whoever reads the queue raises it, whatever it is.
        except Exception as error:  # noqa: BLE001
            queue.put_nowait(error)

    tasks = [asyncio.create_task(run(index)) for index in range(n)]
    try:
        n_left = n
        while n_left:
            item = await queue.get()
            if item is None:
                n_left -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
