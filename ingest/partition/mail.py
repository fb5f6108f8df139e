"""eml, mhtml: a message is its subject, who and when, its body, and what is attached to it."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage, MIMEPart
from typing import IO, TYPE_CHECKING

from ingest.errors import PartitionError
from ingest.partition.attachments import Parts
from ingest.partition.plain import elements_of as plain_elements
from ingest.partition.web_page import elements_of as page_elements
from ingest.partition.web_page import html_text
from ingest.values import Element

if TYPE_CHECKING:
    from ingest.partition.limits import Limits
    from ingest.partition.page_log import PageLog

_HEADERS = ("From", "To", "Cc", "Date")


def read_mail(file: IO[bytes], limits: Limits, pages: PageLog) -> list[Element]:
    """Read a message: its subject as the heading, who and when, then the body, then each attachment."""
    message = email.message_from_bytes(file.read(limits.file_bytes), policy=email.policy.default)
    if not isinstance(message, EmailMessage):  # the default policy makes these
        raise PartitionError("not a readable message")
    elements = _heading(str(message.get("Subject") or ""))
    lines = [f"{name}: {message[name]}" for name in _HEADERS if message.get(name)]
    if lines:
        elements.append(Element("FormKeysValues", "\n".join(lines)))
    body = message.get_body(preferencelist=("plain", "html"))
    if body is not None:
        elements += _body(body, limits)
    parts = Parts(limits, pages, "message")
    for part in _attached(message, body):
        if part.get_content_type() == "message/rfc822":
            inner = part.get_content()
            title = part.get_filename() or str(inner.get("Subject") or "")
            parts.add(_named(title, ".eml"), inner.as_bytes())
        elif name := part.get_filename():
            data = part.get_payload(decode=True)
            parts.add(name, data if isinstance(data, bytes) else b"")
    return elements + parts.elements()


def read_web_archive(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read a page as browsers save it in one file; its pictures and styles are left alone."""
    message = email.message_from_bytes(file.read(limits.file_bytes), policy=email.policy.default)
    for part in message.walk():
        if part.get_content_type() in {"text/html", "application/xhtml+xml"}:
            data = part.get_payload(decode=True)
            if not isinstance(data, bytes):
                continue
            charset = part.get_content_charset()
            return page_elements(html_text(data, declared=charset), limits)
    raise PartitionError("holds no page of text/html")


def _heading(subject: str) -> list[Element]:
    text = " ".join(subject.split())
    return [Element("Title", text, level=0)] if text else []


def _body(part: MIMEPart, limits: Limits) -> list[Element]:
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return []
    text = html_text(data, declared=part.get_content_charset())
    if part.get_content_type() == "text/html":
        return page_elements(text, limits)
    return plain_elements(text)


def _attached(message: EmailMessage, body: MIMEPart | None) -> list[MIMEPart]:
    """Return the parts that are files of their own: pictures in the text are none."""
    found: list[MIMEPart] = []
    pending: list[MIMEPart] = [message]
    while pending:
        part = pending.pop()
        if part is body:
            continue
        if part.get_content_maintype() == "multipart":
            pending += [inner for inner in reversed(list(part.iter_parts())) if isinstance(inner, MIMEPart)]
        elif part is not message and not (part.get("Content-ID") and not part.is_attachment()):
            found.append(part)
    return found


def _named(name: str, suffix: str) -> str:
    plain = " ".join(name.split()) or "message"
    return plain if plain.lower().endswith(suffix) else f"{plain}{suffix}"
