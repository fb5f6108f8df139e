"""The command line's way to the service: the running one, else a private one inside this process."""

import json
import os
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx

from rag.errors import ServiceFailed
from rag.settings import Settings

_SERVICE_FILE = "service.json"
_CONNECT_S = 5.0


@dataclass(frozen=True, slots=True)
class AnswerPart:
    """A piece of a streamed answer; the sources come with one of the last."""

    text: str
    sources: tuple[Mapping[str, Any], ...] = ()


class Client:
    """What the commands ask of a service, over its HTTP API."""

    def __init__(self, http: httpx.Client, *, url: str | None) -> None:
        self._http = http
        self.url = url
        """Where the running service listens; None for the private service of this process."""

    def status(self) -> dict[str, Any]:
        """Describe models, collections and documents."""
        with self._request("GET", "/v1/library") as response:
            status: dict[str, Any] = json.loads(response.read())
            return status

    def search(
        self, query: str, *, limit: int, model: str, history: Sequence[str] = (), side: str = "both"
    ) -> list[dict[str, Any]]:
        """Give the best passages, best first."""
        body = {"query": query, "limit": limit, "model": model, "history": list(history), "side": side}
        with self._request("POST", "/v1/library/search", body) as response:
            results: list[dict[str, Any]] = json.loads(response.read())["results"]
            return results

    def reconcile(self) -> Iterator[dict[str, Any]]:
        """Run one pass over the documents folder; yield its progress and, last, its report."""
        with self._request("POST", "/v1/library/reconcile", {}) as response:
            for line in response.iter_lines():
                yield _checked(json.loads(line))

    def compact(self) -> None:
        """Take deleted text off the disk."""
        with self._request("POST", "/v1/library/compact") as response:
            response.read()

    def document(self, path: str) -> dict[str, Any]:
        """Give a document of the library, with its passages."""
        return self._json("GET", f"/v1/library/document?{urlencode({'path': path})}")

    def retry(self, path: str | None) -> list[str]:
        """Take files out of quarantine; give their paths."""
        paths: list[str] = self._json("POST", "/v1/library/retry", {"path": path})["paths"]
        return paths

    def verify(self) -> list[str]:
        """Check record and indexes; give what is wrong."""
        faults: list[str] = self._json("POST", "/v1/library/verify")["faults"]
        return faults

    def reindex(self) -> None:
        """Build the indexes anew."""
        self._json("POST", "/v1/library/reindex")

    def backup(self, out: Path) -> None:
        """Write a backup to `out`; on an error, nothing is left there."""
        unfinished = out.with_name(f"{out.name}.part")
        try:
            with self._request("GET", "/v1/library/backup") as response, unfinished.open("wb") as file:
                for piece in response.iter_bytes():
                    file.write(piece)
            unfinished.replace(out)
        finally:
            unfinished.unlink(missing_ok=True)

    def _json(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        with self._request(method, path, body) as response:
            answer: dict[str, Any] = json.loads(response.read())
            return answer

    def ask(self, messages: Sequence[Mapping[str, str]], *, model: str) -> Generator[AnswerPart, None, None]:
        """Stream an answer; closing the iterator stops the generation."""
        body = {"model": model, "messages": list(messages), "stream": True}
        # The terminal lists the sources itself.
        body |= {"sources_footer": False, "source_links": "none"}
        with self._request("POST", "/v1/chat/completions", body) as response:
            for line in response.iter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    yield _answer_part(_checked(json.loads(line.removeprefix("data: "))))

    @contextmanager
    def _request(self, method: str, path: str, body: Any = None) -> Iterator[httpx.Response]:
        try:
            with self._http.stream(method, path, json=body) as response:
                if response.is_error:
                    response.read()
                    raise ServiceFailed(_message(response))
                yield response
        except httpx.TransportError as error:
            raise ServiceFailed(f"the service at {self.url or 'this process'} broke off: {error}") from error


@contextmanager
def connect(settings: Settings) -> Iterator[Client]:
    """Open the service that runs on this data folder; where none does, start a private one.

    Raises: ServiceFailed, and what opening the engine and the library raises.
    """
    if url := running_service(settings.data_dir):
        with _http(settings, base_url=url) as http:
            yield Client(http, url=url)
        return
    from rag.app import create_app
    from rag.server import serving_privately
    from rag.stored_models import find
    from rag.up import open_house

    with (
        tempfile.TemporaryDirectory(prefix="quarry-") as folder,
        open_house(settings, find(settings)) as (engine, library),
        serving_privately(create_app(settings, engine=engine, library=library), Path(folder)) as uds,
        _http(settings, base_url="http://localhost", transport=httpx.HTTPTransport(uds=str(uds))) as http,
    ):
        yield Client(http, url=None)


def announce(data_dir: Path, url: str) -> None:
    """Leave word in the data folder where the service of this process listens."""
    (data_dir / _SERVICE_FILE).write_text(json.dumps({"url": url, "pid": os.getpid()}), "utf-8")


def withdraw(data_dir: Path) -> None:
    """Take the word back."""
    (data_dir / _SERVICE_FILE).unlink(missing_ok=True)


def running_service(data_dir: Path) -> str | None:
    """Give the URL of the service that runs on `data_dir`, or None."""
    try:
        url = str(json.loads((data_dir / _SERVICE_FILE).read_text("utf-8"))["url"])
        # A killed service leaves its file behind, so only an answer counts.
        healthy = httpx.get(f"{url}/health", timeout=_CONNECT_S, trust_env=False).is_success
    except (OSError, ValueError, KeyError, TypeError, httpx.HTTPError, httpx.InvalidURL):
        return None
    return url if healthy else None


def _http(settings: Settings, *, base_url: str, transport: httpx.BaseTransport | None = None) -> httpx.Client:
    # The commands are run by whoever owns the folder: by a key without limits, where there is one.
    keys = sorted(settings.api_keys, key=lambda key: key in settings.key_collections)
    key = keys[0].get_secret_value() if keys else None
    return httpx.Client(
        base_url=base_url,
        transport=transport,
        headers={"Authorization": f"Bearer {key}"} if key else {},
        # Reading a long prompt on a slow machine may take minutes; Ctrl-C is the way out.
        timeout=httpx.Timeout(None, connect=_CONNECT_S),
        trust_env=False,
    )


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the service answered {response.status_code} {response.reason_phrase}"


def _checked(event: dict[str, Any]) -> dict[str, Any]:
    """Pass an event of a stream on. Raises: ServiceFailed, where it tells of an error."""
    if "error" in event:
        raise ServiceFailed(str(event["error"]["message"]))
    return event


def _answer_part(chunk: dict[str, Any]) -> AnswerPart:
    deltas = [choice["delta"] for choice in chunk["choices"]]
    text = "".join(delta.get("content") or "" for delta in deltas)
    return AnswerPart(text, tuple(chunk.get("sources") or ()))
