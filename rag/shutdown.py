"""The end of a service: nothing new is let in, and what runs is brought to an end that nobody mistakes."""

from typing import Protocol
from weakref import WeakSet

from rag.errors import NotReady


class Endable(Protocol):
    """Something under way that can be told to end with an error."""

    def fail(self, error: Exception) -> None: ...


class Shutdown:
    """Whether the service is ending, and what still runs. Event loop only."""

    def __init__(self) -> None:
        self.has_begun = False
        self._running: WeakSet[Endable] = WeakSet()

    def watch(self, work: Endable) -> None:
        """End `work` too, if it is still there when the time is over."""
        self._running.add(work)

    def begin(self) -> None:
        """Let nothing new in."""
        self.has_begun = True

    def end_all(self) -> None:
        """Let everything that still runs fail now, each with a last word to its client."""
        for work in list(self._running):
            work.fail(shutting_down())


def shutting_down() -> NotReady:
    """Give the error that clients see meanwhile."""
    return NotReady("the service is shutting down", code="shutting_down", headers={"Retry-After": "5"})
