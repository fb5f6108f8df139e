"""A real Chroma server on a loopback port, for the tests that a library on a server must pass too."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from tests.running import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = Path(sys.executable).with_name("chroma")
_PATIENCE = 300  # tenths of a second


class ChromaServer:
    """A server that can be stopped and started again on the same data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "server.log"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start and wait for the first heartbeat; raises RuntimeError with what the server said."""
        with self._log.open("ab") as log:
            where = ["--path", self.folder / "data", "--host", "127.0.0.1", "--port", str(self._port)]
            self._process = subprocess.Popen(
                [COMMAND, "run", *where],
                stdout=log, stderr=log, env=os.environ | {"ANONYMIZED_TELEMETRY": "False"},
            )  # fmt: skip
        pause = threading.Event()
        for _ in range(_PATIENCE):
            if self._process.poll() is not None:
                break
            try:
                if httpx.get(f"{self.url}/api/v2/heartbeat", timeout=5, trust_env=False).is_success:
                    return
            except httpx.TransportError:
                pause.wait(0.1)
        said = self._log.read_text("utf-8", "replace")[-500:]
        self.stop()
        raise RuntimeError(f"chroma run does not answer on {self.url}: {said}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=30)
            self._process = None


@contextmanager
def running_server(folder: Path) -> Iterator[ChromaServer]:
    server = ChromaServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
