"""An OpenAI-compatible server that does a model's work: requests, and what goes wrong with them."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import httpx

from engine.errors import ContextTooLong, EngineClosed, QueueFull, UpstreamFailed

_CONNECT_S = 10.0
# A long prompt on a busy server may take this long before the first word comes.
_READ_S = 600.0
_TRIES = 5
_LONGEST_WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where a model runs: the base URL with its /v1, the name of the model there, the key."""

    url: str
    model: str
    key: str | None = None


class Upstream:
    """Requests to one server. Thread-safe; blocking."""

    def __init__(self, address: Address) -> None:
        """Prepare; nothing is sent yet."""
        self.model = address.model
        parts = urlsplit(address.url)
        self.url = address.url.rstrip("/") + ("" if parts.path.strip("/") else "/v1")
        self._closed = threading.Event()
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {address.key}"} if address.key else {},
            timeout=httpx.Timeout(_READ_S, connect=_CONNECT_S),
            limits=httpx.Limits(max_connections=None),
            # A proxy of the environment is for the world outside.
            trust_env=not _is_local(parts.hostname or ""),
        )

    def get(self, path: str) -> Any:
        """Fetch JSON. Raises: UpstreamFailed, QueueFull."""
        with self._asking():
            response = self._http.get(f"{self.url}{path}", timeout=_CONNECT_S)
            self._check(response)
            return response.json()

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send JSON; try again where the server is busy.

        Raises: ContextTooLong, UpstreamFailed, QueueFull, EngineClosed.
        """
        for _ in range(_TRIES - 1):
            try:
                return self._post(path, body)
            except QueueFull as busy:
                if self._closed.wait(min(busy.retry_after, _LONGEST_WAIT_S)):
                    raise EngineClosed("the engine is closed") from busy
        return self._post(path, body)

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        with self._asking():
            response = self._http.post(f"{self.url}{path}", json={"model": self.model, **body})
            self._check(response)
            return response.json()

    @contextmanager
    def stream(self, path: str, body: Mapping[str, Any]) -> Iterator[httpx.Response]:
        """Send JSON and hold the answer open; the status is good. Raises: as `post`, without trying again."""
        request = self._http.build_request("POST", f"{self.url}{path}", json={"model": self.model, **body})
        with self._asking():
            response = self._http.send(request, stream=True)
        try:
            if response.is_error:
                with self._asking():
                    response.read()
                self._check(response)
            yield response
        finally:
            response.close()

    def events(self, response: httpx.Response) -> Iterator[dict[str, Any]]:
        """Yield the events of a stream up to its end. Raises: UpstreamFailed, where it breaks off."""
        with self._asking():
            for line in response.iter_lines():
                if line.startswith("data:"):
                    data = line.removeprefix("data:").strip()
                    if data == "[DONE]":
                        return
                    event = json.loads(data)
                    if error := event.get("error"):
                        raise UpstreamFailed(f"{self.url}: {_words(error)}")
                    yield event
        raise UpstreamFailed(f"{self.url} broke off in the middle of an answer")

    def close(self) -> None:
        """End what waits, and the connections."""
        self._closed.set()
        self._http.close()

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise UpstreamFailed(f"{self.url} does not answer: {reason}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UpstreamFailed(f"{self.url} answers in a form that is not OpenAI's") from error

    def _check(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        try:
            error = response.json().get("error") or response.json()
        except (ValueError, AttributeError):
            error = response.reason_phrase
        words, status = _words(error), response.status_code
        if status == httpx.codes.TOO_MANY_REQUESTS:
            raise QueueFull(f"{self.url} is busy: {words}", retry_after=_seconds(response))
        # vLLM says it in its own words.
        is_too_long = "context_length_exceeded" in words or "maximum context length" in words
        if status == httpx.codes.BAD_REQUEST and is_too_long:
            raise ContextTooLong(f"{self.url}: {words}")
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise UpstreamFailed(f"{self.url} refuses the key that is set for it: {words}")
        raise UpstreamFailed(f"{self.url} answers {status}: {words}")


def _words(error: object) -> str:
    message = error.get("message") if isinstance(error, Mapping) else error
    return " ".join(str(message).split())[:300]


def _seconds(response: httpx.Response) -> int:
    given = response.headers.get("retry-after", "")
    return max(1, int(given)) if given.isdigit() else 5


def _is_local(host: str) -> bool:
    try:
        return ip_address(host).is_private
    except ValueError:
        return "." not in host
