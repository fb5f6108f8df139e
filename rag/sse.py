"""Server-sent events as OpenAI clients read them: data lines only, no names, no comments."""

import asyncio
import json
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any, Generic, TypeVar

from starlette.responses import StreamingResponse
from starlette.types import Send

DONE = b"data: [DONE]\n\n"
T = TypeVar("T")

# Items that are read before somebody takes them.
_MOST_AHEAD = 64
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
# JSON leaves these as they are; clients that cut streams by Python's idea of a line end would cut there.
_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}


def encode(data: Any) -> str:
    """Write JSON in one line, whoever splits it."""
    text = _encode(data)
    return text if text.isascii() else text.translate(_LINE_ENDS)


def event(data: Any) -> bytes:
    """Encode one event."""
    return f"data: {encode(data)}\n\n".encode()


def named_event(data: dict[str, Any]) -> bytes:
    """Encode one event under its type, as the Responses API has it."""
    return f"event: {data['type']}\ndata: {encode(data)}\n\n".encode()


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
    """Reads a source in a task of its own, so that its items can be waited for with a limit, without loss.

    What has come is handed over together: a reader that lags behind catches up in one step.
    """

    def __init__(self, source: AsyncGenerator[T, None]) -> None:
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._reading: asyncio.Task[None] | None = None
        self._come: list[T] = []
        self._has_ended = False
        self._error: Exception | None = None
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[bool] | None = None
        self._room: asyncio.Future[None] | None = None

    def fail(self, error: Exception) -> None:
        """Let `next` raise `error`, now and ever after."""
        self._failure = self._failure or error
        self._wake(True)

    async def next(self, *, within: float) -> list[T]:
        """Give the items that have come, at least one; none at the end. Raises: TimeoutError after `within`
        seconds without any, what the source raises, what `fail` was given.
        """
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._read())
        is_idle = not self._come and not self._has_ended and self._failure is None
        if is_idle and not await self._something(within):
            raise TimeoutError
        if self._failure is not None:
            raise self._failure
        if not self._come and self._error is not None:
            raise self._error
        come, self._come = self._come, []
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        return come

    async def aclose(self) -> None:
        """Stop the source, wherever it is."""
        if self._reading is not None:
            self._reading.cancel()
            # The caller leaves; what the source still has to say has no reader.
            with suppress(asyncio.CancelledError):
                await self._reading
        await self._source.aclose()

    async def _read(self) -> None:
        try:
            async for item in self._source:
                self._come.append(item)
                self._wake(True)
                if len(self._come) >= _MOST_AHEAD:
                    self._room = self._loop.create_future()
                    await self._room
        # Whoever reads raises it, whatever it is.
        except Exception as error:  # noqa: BLE001
            self._error = error
        finally:
            self._has_ended = True
            self._wake(True)

    async def _something(self, within: float) -> bool:
        """Wait until there is something to tell; False after `within` seconds."""
        self._waiter = self._loop.create_future()
        timer = self._loop.call_later(within, self._wake, False) if within < math.inf else None
        try:
            return await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _wake(self, has_something: bool) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(has_something)
