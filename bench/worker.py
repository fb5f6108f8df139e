"""Long-lived worker processes that answer measurements in turns: one JSON object a line, both ways.

The driver runs in Quarry's environment; the peers' environment may hold anything, so the worker's side of
this module needs the standard library only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

ROOT = Path(__file__).resolve().parent.parent


class BenchError(Exception):
    """A measurement could not be made; the message says which and why."""


def serve(answer: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """Answer requests from stdin on stdout until stdin ends."""
    # What a library prints must not end up between the answers.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            reply = dict(answer(json.loads(line)))
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the driver names it and goes on
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


class Worker:
    """A child process that runs `python -m MODULE ARGUMENTS` and answers one request at a time."""

    def __init__(self, python: Path, module: str, *arguments: str) -> None:
        self.module = module
        self._process = subprocess.Popen(
            [str(python), "-m", module, *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, request: Mapping[str, object]) -> dict[str, Any]:
        """Send a request and wait for its reply. Raises: BenchError (it failed, or the process ended)."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise BenchError(f"{self.module} ended before {request}") from None
        line = self._process.stdout.readline()
        if not line:
            raise BenchError(f"{self.module} ended with status {self._process.wait()} at {request}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise BenchError(f"{self.module}: {reply['error']}")
        return reply

    def close(self) -> None:
        """Let the process end by itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def peak_resident_bytes() -> int:
    """Return the most memory that this process held at once, pages of mapped files included."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise BenchError("/proc/self/status has no VmHWM")
