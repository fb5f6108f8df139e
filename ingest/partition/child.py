"""The child process: take one descriptor after the other, answer with elements, chunks or a reason.

Wire, over one Unix socket. First the parent sends how tokens are counted, pickled: it is trusted, the child
is not. Then a request is one JSON line with the descriptor attached; an answer is 4 bytes of length and JSON.
A second descriptor is the file of pages read before: then each further page comes as a message of its own,
before the answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import socket
import sys
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from ingest.chunker import chunk
from ingest.errors import LimitExceeded, PartitionError
from ingest.partition import formats, sandbox
from ingest.partition.limits import Limits
from ingest.partition.page_log import PageLog, parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ingest.partition.page_log import PageLines
    from ingest.units import CountTokens
    from ingest.values import Element

REQUEST_BYTES = 8192


def main(descriptor: int, folder: str, limits: Limits) -> None:
    """Serve requests until the parent closes the socket."""
    channel = socket.socket(fileno=descriptor)
    count_tokens: CountTokens | None = pickle.loads(_receive(channel))  # noqa: S301 - from our own parent
    protections = sandbox.enter(limits, folder)
    # Deep documents recurse in readers: an exception, not an overflow of the C stack.
    sys.setrecursionlimit(2000)
    _answer(channel, {"protections": protections})
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, REQUEST_BYTES, 2)
        if not message:
            return
        sandbox.allow_cpu(limits)
        request = json.loads(message)
        pages = _page_log(channel, descriptors[1], limits) if len(descriptors) > 1 else None
        answer = _read(descriptors[0], request, limits, count_tokens, pages)
        _answer(channel, answer)
        if answer.get("exit"):
            return


def _page_log(channel: socket.socket, descriptor: int, limits: Limits) -> PageLog:
    """Take the pages read before, and tell the parent of further ones."""
    with os.fdopen(descriptor, "r", encoding="utf-8") as file:
        known = parse(file.read())

    def tell(page: str, lines: PageLines, slow: bool) -> None:
        _answer(channel, {"page": page, "lines": lines, "slow": slow})
        if slow:
            sandbox.allow_cpu(limits)

    return PageLog(known, tell)


def _read(
    descriptor: int,
    request: dict[str, Any],
    limits: Limits,
    count_tokens: CountTokens | None,
    pages: PageLog | None,
) -> dict[str, Any]:
    suffix = request["suffix"]
    with os.fdopen(descriptor, "rb") as file:
        try:
            elements = formats.read(file, suffix, limits, pages)
            if count_tokens is None or "budget" not in request:
                return {"elements": [_wire(e) for e in elements]}
            drafts = chunk(
                elements, count_tokens=count_tokens, budget=request["budget"], limit=request["limit"]
            )
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
    return {
        "title": title_of(elements, request["path"]),
        "offsets_in_file": bool(elements) and all(e.start is not None for e in elements),
        "chunks": [
            [
                *(d.text, d.heading_path, d.page, d.n_tokens, d.start, d.end, d.n_overlap, d.searchable),
                d.place and [d.place.unit, d.place.first, d.place.last],
            ]
            for d in drafts
        ],
    }


def title_of(elements: Sequence[Element], path: str) -> str:
    """Return the first outermost heading near the beginning, else the file's name without its suffix.

    An archive is called by its own name, not by that of its first member.
    """
    if not path.lower().endswith(".zip"):
        for element in elements[:20]:
            if element.level == 0 and len(element.text) <= 200:
                return " ".join(element.text.split())
    return PurePosixPath(path).stem


def _wire(e: Element) -> list[Any]:
    place = None if e.place is None else [e.place.unit, e.place.first, e.place.last, e.place.lines]
    return [e.kind, e.text, e.level, e.page, e.start, e.end, place]


def _kind(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__name__}".removeprefix("builtins.")


def _answer(channel: socket.socket, answer: dict[str, Any]) -> None:
    data = json.dumps(answer, ensure_ascii=False).encode()
    channel.sendall(len(data).to_bytes(4, "big"))
    channel.sendall(data)


def _receive(channel: socket.socket) -> bytes:
    """Receive 4 bytes of length and so many bytes."""
    with channel.makefile("rb", buffering=0) as stream:
        data = bytearray()
        n = int.from_bytes(stream.read(4) or b"", "big")
        while len(data) < n and (piece := stream.read(n - len(data))):
            data += piece
    return bytes(data)


def start() -> None:
    """Serve as told by the command line: socket, folder, limits."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        main(int(sys.argv[1]), sys.argv[2], Limits(**json.loads(sys.argv[3])))
