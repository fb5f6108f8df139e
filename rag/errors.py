"""Everything that the service raises, and the one place that turns errors into HTTP.

RagError
├── SettingsError             a setting that cannot be used; names the variable, the value and the range
│   └── UnsafeBind            an address that others can reach, without an API key
├── OutsideDocuments          a path that is not in the documents folder
├── BadText                   a text file that cannot be read as text
├── CannotListen              a port in use, a forbidden one, an address of another machine
├── ServiceFailed             the running service answered the command line with an error, or not at all
└── ApiError                  an answer in OpenAI's error form: status, type, code, param
    ├── InvalidRequest        400
    ├── UnsupportedParameter  400, a parameter that means something and is not supported
    ├── Unauthorized          401
    ├── Forbidden             403, a Host or Origin that is not allowed
    ├── UnknownModel          404
    ├── NotFound              404, a file or vector store that is not there
    ├── BodyTooLarge          413
    ├── Overloaded            429, with Retry-After
    ├── BadUpstream           502, a server that a model was pointed at fails
    └── NotReady              503
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar

import structlog
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from engine.errors import ContextTooLong, EngineClosed, EngineError, QueueFull, TemplateError, UpstreamFailed
from ingest.errors import IndexDamaged, LibraryClosed


class RagError(Exception):
    """Base of all errors of this package."""


class SettingsError(RagError):
    """A setting that cannot be used."""


class UnsafeBind(SettingsError):
    """An address that others can reach, without an API key."""


class OutsideDocuments(RagError):
    """A path that is not in the documents folder."""


class BadText(RagError):
    """A text file that cannot be read as text."""


class CannotListen(RagError):
    """A port in use, a forbidden one, or an address of another machine."""


class ServiceFailed(RagError):
    """The running service answered the command line with an error, or not at all."""


class ApiError(RagError):
    """An answer in OpenAI's error form."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str | None] = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.param = param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Give the JSON that OpenAI clients read."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class InvalidRequest(ApiError):
    """A request that cannot be understood or is out of range."""

    status = 400
    type = "invalid_request_error"
    default_code = "invalid_request"


class UnsupportedParameter(InvalidRequest):
    """A parameter that means something and is not supported."""

    default_code = "unsupported_parameter"


class Unauthorized(ApiError):
    """A missing or wrong API key."""

    status = 401
    type = "invalid_request_error"
    default_code = "invalid_api_key"


class Forbidden(ApiError):
    """A Host or Origin that is not allowed."""

    status = 403
    type = "invalid_request_error"
    default_code = "forbidden"


class UnknownModel(ApiError):
    """A model name that nothing here answers to."""

    status = 404
    type = "invalid_request_error"
    default_code = "model_not_found"


class NotFound(ApiError):
    """A file or vector store that is not there."""

    status = 404
    type = "invalid_request_error"
    default_code = "not_found"


class BodyTooLarge(ApiError):
    """A request body over the limit."""

    status = 413
    type = "invalid_request_error"
    default_code = "request_too_large"


class Overloaded(ApiError):
    """More requests than the queue takes; carries Retry-After."""

    status = 429
    type = "rate_limit_error"
    default_code = "queue_full"


class BadUpstream(ApiError):
    """A server that a model was pointed at refuses, breaks off or does not answer."""

    status = 502
    type = "server_error"
    default_code = "upstream_failed"


class NotReady(ApiError):
    """The service, or the part that a request needs, is not there now."""

    status = 503
    type = "server_error"
    default_code = "not_ready"


class _HttpError(ApiError):
    """An error of the router: no such route, no such method, an unreadable body."""

    type = "invalid_request_error"

    def __init__(self, error: HTTPException) -> None:
        phrase = HTTPStatus(error.status_code).phrase
        super().__init__(
            str(error.detail or phrase),
            code=phrase.lower().replace(" ", "_"),
            headers=dict(error.headers or {}),
        )
        self.http_status = error.status_code


def to_api_error(error: Exception) -> ApiError:
    """Turn any error into the answer that a client sees. Unknown ones tell nothing of their insides."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestValidationError):
        return _from_validation(error)
    if isinstance(error, HTTPException):
        # FastAPI wraps what goes wrong while a form is read.
        cause = error.__cause__
        return cause if isinstance(cause, ApiError) else _HttpError(error)
    if isinstance(error, ContextTooLong):
        return InvalidRequest(
            f"context_length_exceeded: {error}", code="context_length_exceeded", param="messages"
        )
    if isinstance(error, QueueFull):
        return Overloaded(str(error), headers={"Retry-After": str(max(1, error.retry_after))})
    if isinstance(error, EngineClosed | LibraryClosed):
        return NotReady("the service is shutting down", code="shutting_down", headers={"Retry-After": "5"})
    if isinstance(error, IndexDamaged):
        return NotReady("the index is being rebuilt", headers={"Retry-After": "5"})
    if isinstance(error, TemplateError):
        return InvalidRequest(f"the model's chat template refuses these messages: {error}", param="messages")
    if isinstance(error, UpstreamFailed):
        return BadUpstream(str(error))
    if isinstance(error, EngineError):
        return ApiError(f"generation failed: {error}", code="generation_failed")
    return ApiError("the server failed on this request; its log has the reason under the request id")


def error_body(error: ApiError) -> dict[str, Any]:
    """Give the JSON of an error, with the id under which the log tells more."""
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    return error.body() | ({"request_id": request_id} if request_id else {})


def status_of(error: ApiError) -> int:
    """Give the HTTP status of an error."""
    return error.http_status if isinstance(error, _HttpError) else error.status


def _from_validation(error: RequestValidationError) -> InvalidRequest:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part != "body"]
    param = ".".join(place) or None
    if first["type"] == "json_invalid":
        return InvalidRequest("the body is not valid JSON", code="invalid_json")
    reason = str(first["msg"]).removeprefix("Value error, ")
    value = first.get("input")
    shown = f" (got {value!r})" if isinstance(value, int | float | bool) or value is None else ""
    hint = "; send JSON with Content-Type: application/json" if param is None else ""
    return InvalidRequest(f"{param or 'request body'}: {reason}{shown}{hint}", param=param)
