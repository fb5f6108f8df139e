"""Run a pass when the folder hints at a change, and from time to time regardless."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import structlog

from ingest.errors import IngestError, LibraryClosed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = structlog.get_logger(__name__)

# Events are lost (network drives, overflow, sleep): the periodic pass is what makes the folder converge.
PERIOD_SECONDS = 60.0
# How soon to try again while the folder cannot be watched.
_RETRY_SECONDS = 5.0


class Watcher:
    """Own two threads: one turns file events into a hint, the other runs a pass per hint or period.

    `run_pass` returns the seconds after which to look again, None for the usual period.
    """

    def __init__(self, folder: Path, run_pass: Callable[[], float | None]) -> None:
        self._folder = folder
        self._run_pass = run_pass
        self._stopping = threading.Event()
        self._hint = threading.Event()
        self._threads = (
            threading.Thread(target=self._pass, name="quarry-passes", daemon=True),
            threading.Thread(target=self._listen, name="quarry-events", daemon=True),
        )

    def start(self) -> None:
        """Start watching; the first pass begins at once."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop and wait for the pass under way."""
        self._stopping.set()
        self._hint.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _pass(self) -> None:
        while not self._stopping.is_set():
            # Cleared before the pass: what changes during it asks for another.
            self._hint.clear()
            pause: float | None = None
            try:
                pause = self._run_pass()
            except LibraryClosed:
                return
            except IngestError as error:
                # A full disk, a missing folder: say so and try again with the next pass.
                log.error("pass_failed", error=type(error).__name__, reason=str(error))
            except Exception as error:  # noqa: BLE001 - an engine that fails must not end the watching
                log.error("pass_failed", error=type(error).__name__)
            if not self._stopping.is_set():
                self._hint.wait(PERIOD_SECONDS if pause is None else min(pause, PERIOD_SECONDS))

    def _listen(self) -> None:
        from watchfiles import watch

        while not self._stopping.is_set():
            begun = False
            try:
                for changes in watch(
                    self._folder,
                    watch_filter=None,
                    stop_event=self._stopping,
                    debounce=400,
                    step=50,
                    rust_timeout=1000,
                    yield_on_timeout=True,
                    raise_interrupt=False,
                    ignore_permission_denied=True,
                ):
                    # What came between the first pass and the beginning of watching had no event.
                    if changes or not begun:
                        self._hint.set()
                    begun = True
            except (OSError, RuntimeError) as error:
                # Out of inotify watches, or the folder is gone: the periodic pass is left.
                log.warning("watch_failed", reason=str(error))
            self._stopping.wait(_RETRY_SECONDS)
