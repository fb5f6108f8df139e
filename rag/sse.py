"""Server-sent events as OpenAI clients read them: data lines only, no names, no comments."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Any, Generic, TypeVar

from fastapi.sse import format_sse_event
from starlette.responses import StreamingResponse
from starlette.types import Send

DONE = format_sse_event(data_str="[DONE]")
T = TypeVar("T")


def event(data: Any) -> bytes:
    """Encode one event."""
    return format_sse_event(data_str=json.dumps(data, ensure_ascii=False, separators=(",", ":")))


def named_event(data: dict[str, Any]) -> bytes:
    """Encode one event under its type, as the Responses API has it."""
    return format_sse_event(
        data_str=json.dumps(data, ensure_ascii=False, separators=(",", ":")), event=data["type"]
    )


class EventStream(StreamingResponse):
    """A stream of events that is closed, and so cancels its work, as soon as the client is gone."""

    def __init__(self, events: AsyncGenerator[bytes, None], *, headers: dict[str, str]) -> None:
        # Buffering proxies would hold the first words back.
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **headers}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._events = events

    async def stream_response(self, send: Send) -> None:
        """Send headers at once, then the events; close them however this ends."""
        async with aclosing(self._events):
            await super().stream_response(send)


class Patient(Generic[T]):
    """An async iterator whose next item can be waited for with a limit, without losing it."""

    def __init__(self, source: AsyncGenerator[T, None]) -> None:
        self._source = source
        self._pending: asyncio.Task[tuple[T] | None] | None = None
        self._failure: asyncio.Future[tuple[T] | None] = asyncio.get_running_loop().create_future()

    def fail(self, error: Exception) -> None:
        """Let `next` raise `error`, now and ever after."""
        if not self._failure.done():
            self._failure.set_exception(error)
            self._failure.exception()  # seen, whether or not somebody is waiting

    async def next(self, *, within: float) -> tuple[T] | None:
        """Give the next item in a tuple, or None at the end. Raises: TimeoutError after `within` seconds,
        what the source raises, what `fail` was given.
        """
        if self._pending is None:
            self._pending = asyncio.ensure_future(_step(self._source))
        waited_for = {self._pending, self._failure}
        done, _ = await asyncio.wait(waited_for, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            raise TimeoutError
        if self._failure in done:
            return self._failure.result()
        task, self._pending = self._pending, None
        return task.result()

    async def aclose(self) -> None:
        """Stop the source, wherever it is."""
        if self._pending is not None:
            self._pending.cancel()
            # The caller leaves; what the source still has to say has no reader.
            with suppress(asyncio.CancelledError, Exception):
                await self._pending
            self._pending = None
        await self._source.aclose()


async def _step(source: AsyncIterator[T]) -> tuple[T] | None:
    try:
        return (await anext(source),)
    except StopAsyncIteration:
        return None
