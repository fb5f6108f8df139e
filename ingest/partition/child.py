"""The child process: take one descriptor after the other, answer with elements or a reason.

Wire, over one Unix socket: a request is one datagram-sized JSON line with the descriptor attached;
an answer is 4 bytes of length and JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from typing import Any

from ingest.errors import LimitExceeded, PartitionError
from ingest.partition import formats, sandbox, unstructured_api
from ingest.partition.limits import Limits

REQUEST_BYTES = 4096


def main(descriptor: int, folder: str, limits: Limits) -> None:
    """Serve requests until the parent closes the socket."""
    channel = socket.socket(fileno=descriptor)
    protections = sandbox.enter(limits, folder)
    # Deep documents recurse in readers: an exception, not an overflow of the C stack.
    sys.setrecursionlimit(2000)
    unstructured_api.prepare()
    _answer(channel, {"protections": protections})
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, REQUEST_BYTES, 1)
        if not message:
            return
        sandbox.allow_cpu(limits)
        suffix = json.loads(message)["suffix"]
        answer = _read(descriptors[0], suffix, limits)
        _answer(channel, answer)
        if answer.get("exit"):
            return


def _read(descriptor: int, suffix: str, limits: Limits) -> dict[str, Any]:
    with os.fdopen(descriptor, "rb") as file:
        try:
            elements = formats.read(file, suffix, limits)
        except PartitionError as error:
            return {"error": type(error).__name__, "reason": str(error)}
        except MemoryError:
            reason = f"needs more than {limits.memory_bytes // 2**20} MiB of memory"
            return {"error": LimitExceeded.__name__, "reason": reason, "exit": True}
        except RecursionError:
            return {"error": LimitExceeded.__name__, "reason": "nested too deeply", "exit": True}
        except Exception as error:  # noqa: BLE001 - readers of other people's formats raise anything
            # Only the kind: the message may quote the document.
            return {
                "error": PartitionError.__name__,
                "reason": f"damaged or not a {suffix} file ({_kind(error)})",
            }
    return {"elements": [[e.kind, e.text, e.level, e.page] for e in elements]}


def _kind(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__name__}".removeprefix("builtins.")


def _answer(channel: socket.socket, answer: dict[str, Any]) -> None:
    data = json.dumps(answer).encode()
    channel.sendall(len(data).to_bytes(4, "big"))
    channel.sendall(data)


def start() -> None:
    """Serve as told by the command line: socket, folder, limits."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        main(int(sys.argv[1]), sys.argv[2], Limits(**json.loads(sys.argv[3])))
