"""eml."""

from __future__ import annotations

import email
import email.policy
import io
from typing import IO, TYPE_CHECKING

from ingest.partition import unstructured_api
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
