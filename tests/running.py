"""A command that goes on running: started, waited for, stopped as Ctrl-C does."""

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_READY = "Ctrl-C stops."
"""The last line that `quarry up` and `quarry serve` print once the documents are read."""


@contextmanager
def running(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Iterator[list[str]]:
    """Start `command`; yield the lines of its output once it is ready, and stop it cleanly."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    output: list[str] = []
    ready = threading.Event()  # or ended

    def collect() -> None:
        for line in process.stdout or ():
            output.append(line)
            if _READY in line:
                ready.set()
        ready.set()

    reader = threading.Thread(target=collect)
    reader.start()
    try:
        ready.wait()
        assert process.poll() is None, "".join(output)
        yield output
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=60)
        reader.join()
        if process.stdout:
            process.stdout.close()
    assert "Stopped." in "".join(output), "".join(output)
    assert "Traceback" not in "".join(output), "".join(output)


def free_port() -> int:
    """Give a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
