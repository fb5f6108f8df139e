"""Links from an answer's marks to the passages they name, for clients that show nothing but Markdown.

Chat clients open links in a new tab and without the API key, so a link carries its own permission: it names
one passage and a date, signed with a secret of this data folder. Whoever holds it reads that passage and what
stands around it, and nothing else.
"""

import base64
import hashlib
import hmac
import os
import re
import secrets
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from rag.citations import FOOTER, Source
from rag.errors import Forbidden

_SECRET_NAME = "link.key"  # noqa: S105 (the name of the file)
_SECRET_BYTES = 32
_TAG_BYTES = 16
_PAYLOAD = struct.Struct(">QBI")
_HOUR = 3600
# What is linked already, escaped, or a definition stays as it is.
_MARK = re.compile(r"(?<![\[\\])\[(\d{1,3})\](?![\](:])")
_FENCE = re.compile(r"(`+)")


@dataclass(frozen=True, slots=True)
class Place:
    """Chunks that follow one another in a document."""

    chunk: int
    n_chunks: int


class Links:
    """Make and read the links of one data folder."""

    def __init__(self, data_dir: Path, *, days: int) -> None:
        self._data_dir = data_dir
        self._lifetime_s = days * 24 * _HOUR
        self._secret: bytes | None = None

    def token(self, source: Source, *, now: float) -> str:
        """Give the permission to read a source, and its end."""
        ids = source.passage.chunk_ids
        until = int((now + self._lifetime_s) // _HOUR)
        payload = _PAYLOAD.pack(ids[0], min(len(ids), 255), until)
        return base64.urlsafe_b64encode(payload + self._tag(payload)).rstrip(b"=").decode()

    def read(self, token: str, *, now: float) -> Place:
        """Say what a token lets its holder read. Raises: Forbidden."""
        try:
            data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except ValueError:
            data = b""
        payload, tag = data[: _PAYLOAD.size], data[_PAYLOAD.size :]
        if len(payload) != _PAYLOAD.size or not hmac.compare_digest(tag, self._tag(payload)):
            raise Forbidden("this link was not made by this server", code="bad_link")
        chunk, n_chunks, until = _PAYLOAD.unpack(payload)
        if now >= until * _HOUR:
            raise Forbidden("this link is too old: ask again for a new one", code="link_expired")
        return Place(chunk, n_chunks)

    def _tag(self, payload: bytes) -> bytes:
        if self._secret is None:
            self._secret = _load_secret(self._data_dir)
        return hmac.digest(self._secret, payload, hashlib.sha256)[:_TAG_BYTES]


def _load_secret(data_dir: Path) -> bytes:
    """Read the folder's secret, or make it; without a folder it lives as long as the process."""
    path = data_dir / _SECRET_NAME
    try:
        found = path.read_bytes()
        if len(found) == _SECRET_BYTES:
            return found
    except OSError:
        found = b""
    secret = secrets.token_bytes(_SECRET_BYTES)
    if data_dir.is_dir():
        fresh = path.with_name(f".{secrets.token_hex(8)}.tmp")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secret)
        fresh.replace(path)
    return secret


def reachable_base(asked: str, public_url: str | None) -> str:
    """Give the address under which a reader's browser finds this server.

    `asked` is the one that the client used. A container calls the machine it runs on by a name of its own,
    which the browser on that machine does not know.
    """
    if public_url:
        return public_url.rstrip("/")
    parts = urlsplit(asked)
    if parts.hostname == "host.docker.internal":
        return f"{parts.scheme}://localhost{f':{parts.port}' if parts.port else ''}"
    return asked.rstrip("/")


@dataclass(frozen=True, slots=True)
class Linking:
    """How one answer is linked: in its list of sources only, or at every mark."""

    url: Callable[[Source], str]
    in_text: bool


def linking(links: Links, base: str, *, in_text: bool) -> Linking:
    """Link to the passages under `base`."""
    return Linking(lambda source: f"{base}/s/{links.token(source, now=time.time())}", in_text)


class MarkLinker:
    """Turn marks into links while an answer streams. A mark comes whole: whoever repairs marks sees to it."""

    def __init__(self, how: Linking) -> None:
        self._how = how
        self._in_code = False
        self._urls: dict[int, str] = {}
        self.sources: dict[int, Source] = {}

    def feed(self, text: str) -> str:
        """Link the marks of a piece."""
        found = FOOTER.search(text)
        body, listing = (text[: found.start()], text[found.start() :]) if found else (text, "")
        if self._how.in_text:
            parts = _FENCE.split(body)
            for index, part in enumerate(parts):
                if index % 2:
                    self._in_code = not self._in_code
                elif not self._in_code:
                    parts[index] = _MARK.sub(self._link, part)
            body = "".join(parts)
        return body + re.sub(r"(?m)^- \[(\d{1,3})\](?= )", lambda mark: f"- {self._link(mark)}", listing)

    def url(self, number: int) -> str | None:
        """Give the address of a source."""
        source = self.sources.get(number)
        if source is None:
            return None
        if number not in self._urls:
            self._urls[number] = self._how.url(source)
        return self._urls[number]

    def _link(self, mark: re.Match[str]) -> str:
        number = int(mark[1])
        url = self.url(number)
        return f"[{number}]" if url is None else f"[[{number}]]({url})"
