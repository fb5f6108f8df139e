"""What every request passes on its way in and out: id, log line, gate, queue, limits, CORS, last catch."""

import asyncio
import re
import time
import uuid
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rag.admission import Admission
from rag.auth import Gate
from rag.errors import ApiError, BodyTooLarge, InvalidRequest, error_body, status_of, to_api_error
from rag.metrics import Metrics
from rag.settings import Settings
from rag.shutdown import Shutdown, shutting_down

log = structlog.get_logger("quarry.http")
OPEN_PATHS = frozenset({"/health"})
# The page and its files: a browser that opens them has no way to send a key, and they hold no document.
# Links to passages: they carry their own permission.
_KEYLESS = re.compile(r"/|/(?:web|s)/[^?]*")
# What waits for a model: refused here where the queue is full, before anything of it is read.
_GENERATING = re.compile(r"/(?:chat/completions|completions|responses)\Z")
_EMBEDDING = re.compile(r"/(?:embeddings|rerank)\Z")
_UPLOAD = re.compile(r"(?<!/vector_stores)/files\Z")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")
_EXPOSED = "x-request-id, retry-after, x-quarry-sources"


class Boundary:
    """ASGI middleware; pure ASGI, because a disconnect must reach the work inside."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        *,
        metrics: Metrics,
        admission: Admission,
        embedding_admission: Admission,
        shutdown: Shutdown,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._queues = ((_GENERATING, admission), (_EMBEDDING, embedding_admission))
        self._shutdown = shutdown
        self._gate = Gate(settings)
        self._max_body_bytes = settings.max_body_bytes
        self._max_upload_bytes = settings.max_upload_bytes
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
                self._metrics.failed(to_api_error(error).code)
                await error_response(error)(scope, receive, outgoing)
            finally:
                seconds = time.perf_counter() - started
                self._metrics.requested(_route(scope), outgoing.status, seconds)
                log.info(
                    "request",
                    method=scope["method"],
                    path=scope["path"],
                    status=outgoing.status,
                    ms=round(seconds * 1000, 1),
                )

    async def _pass(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        if scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        self._gate.check_host(headers)
        if scope["method"] == "OPTIONS":
            await _preflight(headers)(scope, receive, send)
            return
        self._gate.check_origin(headers)
        if scope["method"] == "GET" and _KEYLESS.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        scope["quarry.caller"] = self._gate.check_key(headers)
        if self._shutdown.has_begun:
            raise shutting_down()
        admission = self._queue_of(scope)
        if admission is None:
            await self._hand_on(scope, headers, receive, send)
            return
        # Before a byte of it is read: who is told to come back later is told at once.
        places = scope["quarry.places"] = admission.enter()
        try:
            await self._hand_on(scope, headers, receive, send)
        finally:
            places.leave()

    def _queue_of(self, scope: Scope) -> Admission | None:
        """Give the queue in which a request waits for a model, if it does."""
        found = (queue for pattern, queue in self._queues if pattern.search(scope["path"]))
        return next(found, None) if scope["method"] == "POST" else None

    async def _hand_on(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        """Read the body within its limits, and let the app answer. Raises: BodyTooLarge, InvalidRequest."""
        is_form = headers.get("content-type", "").lower().startswith("multipart/form-data")
        if is_form and _UPLOAD.search(scope["path"]):
            # An upload goes to the disk as it comes.
            await self._app(scope, self._bounded(headers, receive, self._max_upload_bytes), send)
            return
        bounded = self._bounded(headers, receive, self._max_body_bytes)
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(self._body_timeout_s):
                while True:
                    message = await bounded()
                    parts.append(message.get("body", b""))
                    if not message.get("more_body", False):
                        break
        except TimeoutError as error:
            raise InvalidRequest(
                f"the body did not arrive within {self._body_timeout_s:g} s", code="request_timeout"
            ) from error
        await self._app(scope, _replay(b"".join(parts), receive), send)

    def _bounded(self, headers: Headers, receive: Receive, limit: int) -> Receive:
        """Give a `receive` that ends a body over its limit of bytes, or one that does not come on.

        Raises: BodyTooLarge, InvalidRequest; what comes back raises them, too.
        """
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > limit:
            raise BodyTooLarge(f"the body has {length} bytes; at most {limit} are read")
        n_bytes = 0
        is_whole = False

        async def bounded() -> Message:
            nonlocal n_bytes, is_whole
            if is_whole:
                return await receive()  # the disconnect
            try:
                async with asyncio.timeout(self._body_timeout_s):
                    message = await receive()
            except TimeoutError as error:
                raise InvalidRequest(
                    f"the rest of the body did not arrive within {self._body_timeout_s:g} s",
                    code="request_timeout",
                ) from error
            n_bytes += len(message.get("body", b""))
            if n_bytes > limit:
                raise BodyTooLarge(f"the body has more than {limit} bytes; at most {limit} are read")
            is_whole = not message.get("more_body", False)
            return message

        return bounded


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
            headers["referrer-policy"] = "no-referrer"
            # The page brings its own; whatever else is opened in a browser loads and runs nothing.
            headers.setdefault("content-security-policy", "default-src 'none'; frame-ancestors 'none'")
            if self._origin is not None:
                # Also for origins that are refused: else the reason would not be readable there.
                headers["access-control-allow-origin"] = self._origin
                headers["access-control-expose-headers"] = _EXPOSED
                headers.add_vary_header("Origin")
        await self._send(message)


def error_response(error: Exception) -> JSONResponse:
    """Answer an error in OpenAI's form."""
    described = to_api_error(error)
    return JSONResponse(error_body(described), status_of(described), headers=described.headers)


def _route(scope: Scope) -> str:
    """Name the route as it is written in the app: few names, however many ids clients make up."""
    return str(getattr(scope.get("route"), "path", "none"))


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
