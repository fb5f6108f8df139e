"""eml, msg, mhtml."""

from __future__ import annotations

import email
import email.policy
import io
from typing import IO, TYPE_CHECKING

from ingest.errors import PartitionError
from ingest.partition import unstructured_api
from ingest.partition.plain import html_text
from ingest.values import Element

if TYPE_CHECKING:
    from ingest.partition.limits import Limits

_HEADERS = ("From", "To", "Cc", "Date")


def read_mail(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read a message: its subject as the heading, who and when, then the body."""
    data = file.read(limits.file_bytes)
    message = email.message_from_bytes(data, policy=email.policy.default)
    elements: list[Element] = []
    subject = str(message.get("Subject") or "").strip()
    if subject:
        elements.append(Element("Title", subject, level=0))
    lines = [f"{name}: {message[name]}" for name in _HEADERS if message.get(name)]
    if lines:
        elements.append(Element("EmailMetadata", "\n".join(lines)))
    return elements + unstructured_api.read_mail(io.BytesIO(data))


def read_outlook(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read a message as Outlook saves it: its subject as the heading, who and when, then the body."""
    from oxmsg import Message

    message = Message.load(io.BytesIO(file.read(limits.file_bytes)))
    people = ", ".join(f"{r.name} <{r.email_address}>" for r in message.recipients)
    facts = {"From": message.sender or "", "To": people, "Date": str(message.sent_date or "")}
    lines = [f"{name}: {value}" for name, value in facts.items() if value]
    elements = [Element("Title", subject, level=0)] if (subject := (message.subject or "").strip()) else []
    elements += [Element("EmailMetadata", "\n".join(lines))] if lines else []
    if body := (message.body or "").strip():
        return elements + unstructured_api.read_text(body.replace("\r\n", "\n"))
    return elements + (unstructured_api.read_html(message.html_body) if message.html_body else [])


def read_web_archive(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read a page as browsers save it in one file; its pictures and styles are left alone."""
    message = email.message_from_bytes(file.read(limits.file_bytes), policy=email.policy.default)
    for part in message.walk():
        if part.get_content_type() in {"text/html", "application/xhtml+xml"}:
            data = part.get_payload(decode=True)
            if not isinstance(data, bytes):
                continue
            charset = part.get_content_charset()
            return unstructured_api.read_html(html_text(data, declared=charset))
    raise PartitionError("holds no page of text/html")
