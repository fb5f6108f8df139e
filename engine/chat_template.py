"""Render conversations by the chat template of a model file.

The template is not trusted, and Python cannot stop a running operation such as 'a' * 10**9 from another
thread. So templates run in a process of their own (chat_template_worker.py), where the kernel enforces the
limits: 200 ms of processor time, 1 MiB of text, bounded memory. A rendering costs well under 1 ms more.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.conversation import alternate, fold_system
from engine.errors import TemplateError

MAX_SOURCE_BYTES = 1 << 20
# Backstops by the clock, for a machine that is too busy to give the process its time.
_START_SECONDS = 30.0
_RENDER_SECONDS = 5.0
_MAX_ANSWER_BYTES = 8 << 20
_WORKER = Path(__file__).with_name("chat_template_worker.py")
_PROBE_TOOL = {
    "type": "function",
    "function": {
        "name": "probe",
        "description": "Probe",
        "parameters": {"type": "object", "properties": {"of": {"type": "string"}}, "required": ["of"]},
    },
}


class ChatTemplate:
    """A compiled template. Thread-safe; owns a process, which ends with this object."""

    def __init__(self, source: str, *, bos_token: str, eos_token: str) -> None:
        """Compile `source`. Raises: TemplateError."""
        n_bytes = len(source.encode("utf-8", "replace"))
        if n_bytes > MAX_SOURCE_BYTES:
            raise TemplateError(f"the chat template has {n_bytes} bytes; at most {MAX_SOURCE_BYTES} are read")
        self.source = source
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._lock = threading.Lock()
        self._worker = _Worker(source)
        self.takes_system = self._shows_system()

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        **extra: Any,
    ) -> str:
        """Write a conversation as the model expects it; `extra` are further variables of the template.

        Raises: TemplateError, also when the template refuses the conversation or exceeds a limit.
        """
        variables = {"tools": None, "documents": None, **self._tokens, **extra}
        variables |= {"messages": list(messages), "add_generation_prompt": add_generation_prompt}
        try:
            line = json.dumps(variables).encode()
        except (TypeError, ValueError) as e:
            raise TemplateError(f"the conversation cannot be written as JSON: {e}") from e
        with self._lock:
            if not self._worker.is_running():
                self._worker = _Worker(self.source)
            return self._worker.ask(line, _RENDER_SECONDS, "200 ms")

    def write(self, messages: Sequence[Mapping[str, Any]], **extra: Any) -> str:
        """Render a conversation up to where the answer begins, bent to what the template takes.

        Where it knows no system message, what that says stands before the first question; where it refuses
        two questions or answers in a row, they are one. Raises: TemplateError.
        """
        shown = list(messages) if self.takes_system else fold_system(messages)
        try:
            return self.render(shown, **extra)
        except TemplateError:
            in_turns = alternate(shown)
            if in_turns == shown:
                raise
            return self.render(in_turns, **extra)

    def _shows_system(self) -> bool:
        """Say whether a system message reaches the model: some templates refuse it, others drop it."""
        probe = "Rules of 7291."
        asked = [{"role": "system", "content": probe}, {"role": "user", "content": "Hello"}]
        # A template that is for tools alone may refuse every conversation without.
        for tools in (None, [_PROBE_TOOL]):
            with contextlib.suppress(TemplateError):
                return probe in self.render(asked, tools=tools)
        return False

    def close(self) -> None:
        """End the process. A later `render` starts another."""
        with self._lock:
            self._worker.stop()


class _Worker:
    """A running chat_template_worker.py."""

    def __init__(self, source: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONUTF8": "1"}
            | {k: v for k, v in os.environ.items() if k in ("TZ", "LANG", "SYSTEMROOT")},
        )
        self.stop = weakref.finalize(self, _end, self._process)
        self.ask(json.dumps(source).encode(), _START_SECONDS, "2 s")

    def is_running(self) -> bool:
        return self.stop.alive and self._process.poll() is None

    def ask(self, line: bytes, seconds: float, processor_time: str) -> str:
        """Send a line and return the answer's text. Raises: TemplateError; the process may be gone then."""
        try:
            reply = json.loads(_exchange(self._process, line + b"\n", time.monotonic() + seconds))
        except TimeoutError:
            self.stop()
            raise TemplateError(f"the chat template did not end within {seconds:g} s") from None
        except (OSError, EOFError, ValueError):
            status = self._process.wait(_RENDER_SECONDS) if self.stop.alive else None
            self.stop()
            raise TemplateError(f"the chat template was stopped: {_reason(status, processor_time)}") from None
        if "error" in reply:
            raise TemplateError(f"the chat template failed: {reply['error']}")
        return str(reply["text"])


def _exchange(process: subprocess.Popen[bytes], data: bytes, deadline: float) -> bytes:
    """Write `data`, read one line. Raises: TimeoutError, EOFError, OSError, ValueError (answer too long)."""
    assert process.stdin is not None  # noqa: S101 - both are pipes
    assert process.stdout is not None  # noqa: S101
    # The worker reads a whole line before it answers, so writing cannot wait for it to read an answer.
    process.stdin.write(data)
    process.stdin.flush()
    answer = bytearray()
    while not answer.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
            raise TimeoutError
        piece = os.read(process.stdout.fileno(), 1 << 16)
        if not piece:
            raise EOFError
        answer += piece
        if len(answer) > _MAX_ANSWER_BYTES:
            raise ValueError(f"an answer of more than {_MAX_ANSWER_BYTES} bytes")
    return bytes(answer)


def _reason(status: int | None, processor_time: str) -> str:
    if status is not None and status == -getattr(signal, "SIGPROF", 0):
        return f"it ran longer than {processor_time}"
    return f"its process ended with status {status}"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # unsent data of a dead process
                pipe.close()
    process.wait()
