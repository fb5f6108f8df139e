"""A small HTTP server that misbehaves on request: a hub for the tests of the model store."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """Files by path, how to misbehave, and what was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    named_sha256: str | None = None
    """What the redirect of a hub says; None: the true sum."""
    names_sums: bool = True
    """Tell the sum of a file with its redirect, as Hugging Face's hub does and ModelScope's does not."""
    redirects: bool = True
    """Answer at first with a redirect that names the sum, as a hub does for large files."""
    cut_after: list[int] = field(default_factory=list)
    """Break the next connections after so many bytes of the body."""
    statuses: list[int] = field(default_factory=list)
    """Answer the next requests with these."""
    ignores_range: bool = False
    ranges: list[str | None] = field(default_factory=list)
    """The Range header of every request for bytes."""
    url: str = ""


@contextmanager
def serve() -> Iterator[FileServer]:
    """Serve on a free loopback port."""
    state = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            _answer(self, state)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _answer(request: BaseHTTPRequestHandler, state: FileServer) -> None:
    path = request.path.removeprefix("/cdn")
    data = state.files.get(path)
    if state.statuses:
        request.send_response(state.statuses.pop(0))
        request.send_header("content-length", "0")
        request.end_headers()
    elif data is None:
        request.send_error(404)
    elif state.redirects and not request.path.startswith("/cdn"):
        request.send_response(302)
        if state.names_sums:
            named = state.named_sha256 or hashlib.sha256(data).hexdigest()
            request.send_header("x-linked-etag", f'"{named}"')
        request.send_header("location", f"/cdn{path}")
        request.send_header("content-length", "0")
        request.end_headers()
    else:
        _send(request, state, data)


def _send(request: BaseHTTPRequestHandler, state: FileServer, data: bytes) -> None:
    wanted = request.headers.get("range")
    state.ranges.append(wanted)
    start = 0
    if wanted and not state.ignores_range:
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(data):
            request.send_response(416)
            request.send_header("content-length", "0")
            request.end_headers()
            return
        request.send_response(206)
        request.send_header("content-range", f"bytes {start}-{len(data) - 1}/{len(data)}")
    else:
        request.send_response(200)
    body = data[start:]
    request.send_header("content-length", str(len(body)))
    request.end_headers()
    if state.cut_after:
        request.wfile.write(body[: state.cut_after.pop(0)])
        request.close_connection = True
        return
    request.wfile.write(body)
