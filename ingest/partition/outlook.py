"""msg: a message as Outlook saves it, a tree of properties in an OLE file (MS-OXMSG)."""

from __future__ import annotations

import datetime
import email
import email.policy
import functools
import io
import struct
from typing import IO, TYPE_CHECKING

from ingest.errors import LimitExceeded, PartitionError
from ingest.partition.attachments import Parts
from ingest.partition.plain import elements_of as plain_elements
from ingest.partition.richtext import read_rtf
from ingest.partition.web_page import elements_of as page_elements
from ingest.partition.web_page import html_text
from ingest.values import Element

if TYPE_CHECKING:
    from collections.abc import Iterator

    import olefile  # type: ignore[import-untyped] # it has no stubs

    from ingest.partition.limits import Limits
    from ingest.partition.page_log import PageLog

_SUBJECT, _HEADERS, _BODY, _HTML, _RTF = 0x0037, 0x007D, 0x1000, 0x1013, 0x1009
_SENT, _DELIVERED, _CODEPAGE, _BODY_CODEPAGE = 0x0039, 0x0E06, 0x3FFD, 0x3FDE
_SENDERS = ((0x0C1A, (0x5D01, 0x0C1F)), (0x0042, (0x5D02, 0x0065)))  # who sent it, in whose name
_NAME, _ADDRESSES, _RECIPIENT_TYPE = 0x3001, (0x39FE, 0x3003), 0x0C15
_RECIPIENTS = {1: "To", 2: "Cc"}
_FILE_NAMES, _DATA, _CONTENT_ID, _HIDDEN = (0x3707, 0x3704, _NAME), 0x3701, 0x3712, 0x7FFE
# Before the properties of fixed size: of a file, of a message in it, of a recipient or attachment.
_FILE_HEADER, _INNER_HEADER, _PART_HEADER = 32, 24, 8
_CODECS = {936: "gb18030", 1200: "utf-16-le", 20127: "ascii", 54936: "gb18030", 65001: "utf-8"}
_FIRST_DAY = datetime.datetime(1601, 1, 1, tzinfo=datetime.UTC)
# What every stream of compressed Rich Text may refer to. Source: MS-OXRTFCP, 2.1.3.1.
_RTF_BEFORE = (
    rb"{\rtf1\ansi\mac\deff0\deftab720{\fonttbl;}{\f0\fnil \froman \fswiss \fmodern \fscript \fdecor MS Sans"
    rb" SerifSymbolArialTimes New RomanCourier{\colortbl\red0\green0\blue0"
    b"\r\n"
    rb"\par \pard\plain\f0\fs20\b\i\u\tab\tx"
)  # fmt: skip
_RTF_WINDOW = 4096


def read_outlook(file: IO[bytes], limits: Limits, pages: PageLog) -> list[Element]:
    """Read a message: its subject as the heading, who and when, its body, then each attachment."""
    import olefile

    with olefile.OleFileIO(io.BytesIO(file.read(limits.file_bytes))) as ole:
        if not ole.exists("__properties_version1.0"):
            raise PartitionError("holds no message of Outlook")
        return _message(_Properties(ole, (), _FILE_HEADER), limits, pages)


class _Properties:
    """The properties of a message, a recipient or an attachment. Strings never lose a character."""

    def __init__(self, ole: olefile.OleFileIO, place: tuple[str, ...], header: int) -> None:
        self._ole = ole
        self._place = place
        data = self._stream("__properties_version1.0") or b""
        rows = struct.iter_unpack("<II8s", data[header : len(data) - (len(data) - header) % 16])
        self._fixed = {tag >> 16: value for tag, _, value in rows}

    def number(self, key: int) -> int | None:
        """Return an integer of 32 bits or a truth value."""
        value = self._fixed.get(key)
        return None if value is None else int.from_bytes(value[:4], "little")

    def time(self, key: int) -> datetime.datetime | None:
        """Return a moment in UTC."""
        value = self._fixed.get(key)
        if value is None:
            return None
        try:
            return _FIRST_DAY + datetime.timedelta(microseconds=int.from_bytes(value, "little") // 10)
        except OverflowError:
            return None

    def data(self, key: int) -> bytes | None:
        """Return bytes of any length."""
        return self._stream(f"__substg1.0_{key:04X}0102")

    def text(self, *keys: int) -> str:
        """Return the first of these that says something."""
        for key in keys:
            wide = self._stream(f"__substg1.0_{key:04X}001F")
            if wide is not None:
                text = wide[: len(wide) // 2 * 2].decode("utf-16-le", "surrogatepass")
            else:
                text = self.decoded(self._stream(f"__substg1.0_{key:04X}001E") or b"", _CODEPAGE)
            if text := text.strip("\x00").strip():
                return text
        return ""

    def decoded(self, data: bytes, *codepages: int) -> str:
        """Decode by the first code page that is named, or as any text where that does not fit."""
        number = next((n for key in codepages if (n := self.number(key))), None)
        codec = None if number is None else _CODECS.get(number)
        if number is not None and codec is None:
            codec = f"iso8859-{number - 28590}" if 28591 <= number <= 28606 else f"cp{number}"
        return html_text(data, declared=codec)

    def below(self, name: str, header: int) -> Iterator[_Properties]:
        """Yield what stands in the folders whose names begin so."""
        depth = len(self._place)
        folders = {
            entry[depth]
            for entry in self._ole.listdir(streams=True, storages=True)
            if len(entry) > depth and tuple(entry[:depth]) == self._place and entry[depth].startswith(name)
        }
        for folder in sorted(folders):
            if self._ole.get_type([*self._place, folder]) == 1:
                yield _Properties(self._ole, (*self._place, folder), header)

    def is_message(self) -> bool:
        """Tell a message from an object of another program."""
        return bool(self._fixed)

    def _stream(self, name: str) -> bytes | None:
        path = [*self._place, name]
        if self._ole.get_type(path) != 2:
            return None
        with self._ole.openstream(path) as stream:
            data: bytes = stream.read()
        return data


def _message(message: _Properties, limits: Limits, pages: PageLog) -> list[Element]:
    subject = " ".join(message.text(_SUBJECT).split())
    elements = [Element("Title", subject, level=0)] if subject else []
    if facts := _facts(message):
        elements.append(Element("FormKeysValues", "\n".join(facts)))
    html = _html(message)
    elements += _body(message, html, limits)
    parts = Parts(limits, pages, "message")
    for attachment in message.below("__attach_version1.0_#", _PART_HEADER):
        name = " ".join(attachment.text(*_FILE_NAMES).split()) or "attachment"
        data = attachment.data(_DATA)
        inner = next(attachment.below(f"__substg1.0_{_DATA:04X}000D", _INNER_HEADER), None)
        shown = attachment.text(_CONTENT_ID)
        if attachment.number(_HIDDEN) or (shown and f"cid:{shown}" in html):
            continue  # a picture in the text is no file
        if data is not None:
            parts.add(name, data)
        elif inner is not None and inner.is_message():
            parts.add_read(name, functools.partial(_message, inner))
        else:
            parts.refuse(name, "is only referred to, or drawn by another program")
    return elements + parts.elements()


def _facts(message: _Properties) -> list[str]:
    """Give who wrote to whom and when, as lines."""
    headers = email.message_from_string(message.text(_HEADERS), policy=email.policy.default)
    facts = {name: str(headers[name] or "") for name in ("From", "To", "Cc", "Date")}
    if not facts["From"]:
        senders = (_person(message.text(name), message.text(*keys)) for name, keys in _SENDERS)
        facts["From"] = next(filter(None, senders), "")
    if recipients := list(message.below("__recip_version1.0_#", _PART_HEADER)):
        for kind in _RECIPIENTS.values():
            facts[kind] = ""
        for recipient in recipients:
            # Blind copies are nobody's business.
            if kind := _RECIPIENTS.get(recipient.number(_RECIPIENT_TYPE) or 1, ""):
                person = _person(recipient.text(_NAME), recipient.text(*_ADDRESSES))
                facts[kind] = ", ".join(filter(None, (facts[kind], person)))
    if not facts["Date"] and (moment := message.time(_SENT) or message.time(_DELIVERED)):
        facts["Date"] = f"{moment:%Y-%m-%d %H:%M:%S} UTC"
    return [f"{name}: {' '.join(value.split())}" for name, value in facts.items() if value]


def _person(name: str, address: str) -> str:
    # Exchange names people by a path in its directory, which says nothing to anybody.
    if address.startswith("/") or address == name:
        address = ""
    return f"{name} <{address}>" if name and address else name or address


def _html(message: _Properties) -> str:
    if data := message.data(_HTML):
        return message.decoded(data, _BODY_CODEPAGE, _CODEPAGE)
    return message.text(_HTML)


def _body(message: _Properties, html: str, limits: Limits) -> list[Element]:
    """Read the body as the page it is, for its tables and lists, else as text, else as Rich Text."""
    if html and (elements := page_elements(html, limits)):
        return elements
    if text := message.text(_BODY):
        return plain_elements(text)
    if compressed := message.data(_RTF):
        return read_rtf(io.BytesIO(unpacked(compressed, limits)), limits)
    return []


def unpacked(data: bytes, limits: Limits) -> bytes:
    """Unpack Rich Text as Outlook keeps it. Source: MS-OXRTFCP, 2.1.3 and 3.

    After 16 bytes of header: a byte of flags for the next eight tokens, each a byte or two bytes that name a
    place in the last 4096 bytes (12 bits) and how much of it comes again (4 bits, from 2 on).
    """
    if len(data) < 16:
        raise PartitionError("its Rich Text is cut off")
    n_raw, kind = struct.unpack_from("<I4s", data, 4)
    if n_raw > limits.file_bytes:
        raise LimitExceeded(f"its Rich Text has {n_raw} bytes; the limit is {limits.file_bytes}")
    if kind == b"MELA":
        return data[16 : 16 + n_raw]
    if kind != b"LZFu":
        raise PartitionError("its Rich Text is packed in an unknown way")
    out = bytearray(_RTF_BEFORE)
    at = 16
    while at < len(data) and len(out) - len(_RTF_BEFORE) < n_raw:
        flags = data[at]
        at += 1
        for bit in range(8):
            if not flags >> bit & 1:
                out += data[at : at + 1]
                at += 1
                continue
            pair = int.from_bytes(data[at : at + 2], "big")
            at += 2
            # Places are counted in a ring that begins with what comes before: the distance back is the same.
            back = (len(out) - (pair >> 4)) % _RTF_WINDOW
            if back == 0 or back > len(out):
                break
            for _ in range((pair & 15) + 2):
                out.append(out[-back])
        else:
            continue
        break
    return bytes(out[len(_RTF_BEFORE) : len(_RTF_BEFORE) + n_raw])
