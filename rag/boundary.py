"""What every request passes on its way in and out: id, log line, gate, limits, CORS, last catch."""

import asyncio
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rag.auth import Gate
from rag.errors import ApiError, BodyTooLarge, InvalidRequest, status_of, to_api_error
from rag.settings import Settings

log = structlog.get_logger("quarry.http")
OPEN_PATHS = frozenset({"/health"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")
_EXPOSED = "x-request-id, retry-after, x-quarry-sources"


class Boundary:
    """ASGI middleware; pure ASGI, because a disconnect must reach the work inside."""

    def __init__(self, app: ASGIApp, settings: Settings, on_failure: Callable[[str | None], None]) -> None:
        self._app = app
        self._on_failure = on_failure
        self._gate = Gate(settings)
        self._max_body_bytes = settings.max_body_bytes
        self._body_timeout_s = settings.body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.match(given) else f"req_{uuid.uuid4().hex}"
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            outgoing = _Outgoing(send, headers, request_id)
            started = time.perf_counter()
            try:
                await self._pass(scope, headers, receive, outgoing)
            # The last catch: whatever happens, the client gets OpenAI's error body with CORS headers.
            except Exception as error:
                if not isinstance(error, ApiError):
                    log.exception("request failed", path=scope["path"], error=type(error).__name__)
                if outgoing.status is not None:
                    raise  # the answer began: only a broken connection can tell now
                self._on_failure(to_api_error(error).code)
                await error_response(error)(scope, receive, outgoing)
            finally:
                log.info(
                    "request",
                    method=scope["method"],
                    path=scope["path"],
                    status=outgoing.status,
                    ms=round((time.perf_counter() - started) * 1000, 1),
                )

    async def _pass(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        if scope["path"] not in OPEN_PATHS:
            self._gate.check_host(headers)
            if scope["method"] == "OPTIONS":
                await _preflight(headers)(scope, receive, send)
                return
            self._gate.check_origin(headers)
            self._gate.check_key(headers)
        body = await self._read(headers, receive)
        await self._app(scope, _replay(body, receive), send)

    async def _read(self, headers: Headers, receive: Receive) -> bytes:
        """Read the body whole, within limits of size and time. Raises: BodyTooLarge, InvalidRequest."""
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._max_body_bytes:
            raise BodyTooLarge(f"the body has {length} bytes; at most {self._max_body_bytes} are read")
        parts: list[bytes] = []
        n_bytes = 0
        try:
            async with asyncio.timeout(self._body_timeout_s):
                while True:
                    message = await receive()
                    parts.append(message.get("body", b""))
                    n_bytes += len(parts[-1])
                    if n_bytes > self._max_body_bytes:
                        raise BodyTooLarge(f"the body has more than {self._max_body_bytes} bytes")
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError as error:
            raise InvalidRequest(
                f"the body did not arrive within {self._body_timeout_s:g} s", code="request_timeout"
            ) from error


class _Outgoing:
    """`send` that adds the request id and the CORS headers, and knows the status."""

    def __init__(self, send: Send, headers: Headers, request_id: str) -> None:
        self._send = send
        self._origin = headers.get("origin")
        self._request_id = request_id
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self._request_id
            headers["x-content-type-options"] = "nosniff"
            if self._origin is not None:
                # Also for origins that are refused: else the reason would not be readable there.
                headers["access-control-allow-origin"] = self._origin
                headers["access-control-expose-headers"] = _EXPOSED
                headers.add_vary_header("Origin")
        await self._send(message)


def error_response(error: Exception) -> JSONResponse:
    """Answer an error in OpenAI's form."""
    described = to_api_error(error)
    return JSONResponse(described.body(), status_of(described), headers=described.headers)


def _preflight(headers: Headers) -> Response:
    """Answer OPTIONS. The request itself is checked when it comes, where a refusal can be read."""
    allowed = {
        "access-control-allow-methods": "GET, POST, DELETE, OPTIONS",
        "access-control-allow-headers": headers.get("access-control-request-headers", "*"),
        "access-control-max-age": "600",
        "allow": "GET, POST, DELETE, OPTIONS",
    }
    if headers.get("access-control-request-private-network") == "true":
        allowed["access-control-allow-private-network"] = "true"
    return Response(status_code=204, headers=allowed)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give the body that was read, then what comes after it: the disconnect."""
    pending: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay
