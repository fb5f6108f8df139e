"""The formats beside the everyday ones: Rich Text, OpenDocument, archives, mail of Outlook, code."""

from __future__ import annotations

import os
from email.message import EmailMessage
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ingest.errors import LimitExceeded, PartitionError, UnsupportedFormat
from ingest.partition.limits import MIB, Limits
from ingest.partition.outlook import unpacked
from ingest.partition.partitioner import Partitioner
from tests.ingest.test_partition import BOMB, PARAGRAPH, archive, read

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLE = "| name | days |\n| --- | --- |\n| Ann | 15 |"
RST = f"""
========
Handbook
========

.. a comment that nobody reads

Leave
-----

{PARAGRAPH}
See :ref:`the rules <rules>` and `the page <https://example.com>`_.

.. code-block:: python
   :linenos:

   def f():
       return 1

- first
- second
  goes on

Like this::

    $ quarry up

====  ====
name  days
====  ====
Ann   15
====  ====

Travel
------

.. note:: Mind this.

   Trains first.
"""
ODT = (
    '<office:document-content xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"'
    ' xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"'
    ' xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0"><office:body><office:text>'
    '<text:h text:outline-level="1">制度</text:h><text:h text:outline-level="2">假期</text:h>'
    "<text:p>One<text:s/>two<text:note>left out</text:note> <text:span>three</text:span></text:p>"
    "<text:list><text:list-item><text:p>first</text:p></text:list-item></text:list>"
    "<table:table><table:table-row><table:table-cell><text:p>name</text:p></table:table-cell>"
    "<table:table-cell><text:p>days</text:p></table:table-cell></table:table-row><table:table-row>"
    "<table:table-cell><text:p>Ann</text:p></table:table-cell><table:table-cell><text:p>15</text:p>"
    "</table:table-cell></table:table-row></table:table></office:text></office:body></office:document-content>"
)
GBK = "".join(f"\\'{byte:02x}" for byte in "年假".encode("gbk"))
RTF = (
    r"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0\fcharset0 Arial;}{\f1\fcharset134 SimSun;}}"
    r"{\*\generator Editor;}{\info{\title hidden}}"
    rf"\f0 Leave\par Caf\'e9 is closed; \u-28799?\u27441? and {{\f1 {GBK}}}.\par"
    r" {\b Bold} \{x\}\emdash y.\par}"
).encode("ascii")
MHTML = (
    "MIME-Version: 1.0\nContent-Type: multipart/related; boundary=b\n\n--b\n"
    "Content-Type: text/html; charset=gbk\nContent-Transfer-Encoding: 8bit\n\n"
    f"<html><body><h1>制度</h1><p>{PARAGRAPH}</p></body></html>\n--b\nContent-Type: image/png\n\nxx\n--b--\n"
).encode("gbk")
CODE = "import os\nimport sys\n\n\ndef f():\n    a = 1\n\n    return a\n\n\nclass A:\n    x = 1\n"
XML = (
    '<a xmlns="u:x" kind="k"><item id="1"><name>张三</name><days>15</days></item>'
    "<p>Some <b>bold</b> words.</p></a>"
)


@pytest.fixture(scope="module")
def partitioner() -> Iterator[Partitioner]:
    with Partitioner() as partitioner:
        yield partitioner


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        pytest.param(
            "a.rst", RST.encode(),
            [
                "Handbook|0", "Leave|1", f"{PARAGRAPH} See the rules and the page.", "def f():\n    return 1",
                "first", "second goes on", "Like this:", "$ quarry up", TABLE, "Travel|1", "Trains first.",
            ], id="rst",
        ),
        pytest.param(
            "a.odt", archive({"content.xml": ODT}),
            ["制度|0", "假期|1", "One two three", "first", TABLE], id="odt",
        ),
        pytest.param(
            "a.rtf", RTF, ["Leave|0", "Café is closed; 辁欱 and 年假.", "Bold {x}—y."], id="rtf",
        ),
        pytest.param("a.mhtml", MHTML, ["制度|0", PARAGRAPH], id="mhtml"),
        pytest.param(
            "a.xml", XML.encode(),
            ["a.kind: k", "item.id: 1\nitem.name: 张三\nitem.days: 15", "p: Some bold words."], id="xml",
        ),
        pytest.param(
            "a.py", CODE.encode(),
            ["import os\nimport sys", "def f():\n    a = 1\n\n    return a",
             "class A:\n    x = 1"], id="code",
        ),
        pytest.param(
            "a.zip",
            archive({
                "in/a.md": "# T\n\nSome words here.", "__MACOSX/x.md": "no",
                "b.zip": archive({"c.txt": PARAGRAPH}),
                "d.doc": b"xx",
            }),
            [
                "in/a.md|0", "T|1", "Some words here.", "b.zip|0", "c.txt|1", PARAGRAPH,
                "Files in this archive that cannot be read|0", "d.doc: an old Word file: save it as .docx",
            ], id="zip",
        ),
    ],
)  # fmt: skip
def test_format_is_read(
    partitioner: Partitioner, tmp_path: Path, name: str, content: bytes, expected: list[str]
) -> None:
    elements = read(partitioner, tmp_path / name, content)
    assert [e.text if e.level is None else f"{e.text}|{e.level}" for e in elements] == expected


@pytest.mark.parametrize(
    ("name", "content", "error", "reason"),
    [
        pytest.param("a.pages", b"x", UnsupportedFormat, "export it as .docx", id="pages"),
        pytest.param("a.rtf", b"hello", PartitionError, "does not begin", id="no-rtf"),
        pytest.param("a.rtf", b"{\\rtf1" + b"{" * 100_000, LimitExceeded, "too deeply", id="deep-rtf"),
        pytest.param("a.xml", BOMB.encode() + b"<a>", PartitionError, "not valid XML", id="broken-xml"),
        pytest.param("a.xml", b"<a>" * 5000 + b"</a>" * 5000, LimitExceeded, "not valid XML", id="deep-xml"),
        pytest.param("a.msg", b"no mail", PartitionError, "damaged", id="broken-msg"),
        pytest.param("a.odt", archive({"x": ""}), PartitionError, "content.xml is missing", id="empty-odt"),
        pytest.param("a.zip", archive({"a.doc": b""}), PartitionError, "none of its 1 files", id="no-member"),
        pytest.param("a.zip", archive({"a.txt": bytes(64 * MIB)}), LimitExceeded, "200 times", id="zip-bomb"),
        pytest.param(
            "a.zip", archive({"a.zip": archive({"b.zip": archive({"c.txt": "words"})})}),
            PartitionError, "is not opened", id="nested-zip",
        ),
    ],
)  # fmt: skip
def test_unreadable_file_says_why(
    partitioner: Partitioner, tmp_path: Path, name: str, content: bytes, error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        read(partitioner, tmp_path / name, content)


def test_entities_of_xml_are_not_expanded(partitioner: Partitioner, tmp_path: Path) -> None:
    content = (
        b'<!DOCTYPE a [<!ENTITY e "secret"><!ENTITY f SYSTEM "file:///etc/passwd">]><r><a>x &e;&f; y</a></r>'
    )
    text = "".join(e.text for e in read(partitioner, tmp_path / "a.xml", content))
    assert "secret" not in text
    assert "root:" not in text


XML_PLACES = (
    '<?xml version="1.0" encoding="{encoding}"?>\r\n<!DOCTYPE r [<!ENTITY e "x">]>\n<r a="1>0"><!-- no -->'
    '<item n="甲>乙"><item>第一条</item></item>\n  <empty b=">"/><item>second &e;</item> tail</r>'
)


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "utf-16"])
def test_parts_of_xml_tell_their_offsets(partitioner: Partitioner, tmp_path: Path, encoding: str) -> None:
    text = XML_PLACES.format(encoding=encoding)
    elements = read(partitioner, tmp_path / "a.xml", text.encode(encoding))
    plain = text.replace("\r\n", "\n")
    assert [(e.text, plain[e.start : e.end]) for e in elements] == [
        ("r.a: 1>0", '<r a="1>0">'),
        ("item.n: 甲>乙\nitem.item: 第一条", '<item n="甲>乙"><item>第一条</item></item>'),
        ("empty.b: >", '<empty b=">"/>'),
        ("item: second &e;", "<item>second &e;</item>"),
    ]


def test_parts_of_rst_tell_their_offsets(partitioner: Partitioner, tmp_path: Path) -> None:
    elements = read(partitioner, tmp_path / "a.rst", RST.encode())
    places = {e.text: RST[e.start : e.end] for e in elements}
    exact = ["Handbook", "Leave", "first", "Like this:", "$ quarry up", "Trains first."]
    assert {text: places[text] for text in exact} == {text: text for text in exact}
    # Marks were taken out: the lines that it stands in.
    assert places["def f():\n    return 1"] == "   def f():\n       return 1"
    assert places["second goes on"] == "- second\n  goes on"
    assert places[TABLE].startswith("====  ====\nname")


def test_paragraphs_of_odt_rtf_and_epub_tell_their_place(partitioner: Partitioner, tmp_path: Path) -> None:
    def places(name: str, content: bytes) -> list[tuple[str, int, int]]:
        elements = read(partitioner, tmp_path / name, content)
        assert {e.place.unit for e in elements if e.place} == {"paragraph"}
        return [(e.text.split()[0], e.place.first, e.place.last) for e in elements if e.place]

    assert places("a.odt", archive({"content.xml": ODT})) == [
        ("制度", 1, 1), ("假期", 2, 2), ("One", 3, 3), ("first", 4, 4), ("|", 5, 8),
    ]  # fmt: skip
    assert places("a.rtf", rb"{\rtf1 One.\par\par Three.\par}") == [("One.", 1, 1), ("Three.", 3, 3)]
    book = {
        "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container">'
        '<rootfiles><rootfile full-path="b.opf"/></rootfiles></container>',
        "b.opf": '<package xmlns="http://www.idpf.org/2007/opf"><manifest><item id="a" href="1.xhtml"'
        ' media-type="application/xhtml+xml"/><item id="b" href="2.xhtml"'
        ' media-type="application/xhtml+xml"/>'
        '</manifest><spine><itemref idref="a"/><itemref idref="b"/></spine></package>',
        "1.xhtml": "<html><h1>One</h1><p>Two.</p></html>",
        "2.xhtml": "<html><p>Three.</p></html>",
    }
    assert places("a.epub", archive(book)) == [("One", 1, 1), ("Two.", 2, 2), ("Three.", 3, 3)]


def test_archives_share_one_ceiling(tmp_path: Path) -> None:
    inner = {f"{n}.zip": archive({"a.txt": os.urandom(30_000).hex()}) for n in range(3)}
    with Partitioner(Limits(archive_bytes=100_000)) as small, pytest.raises(LimitExceeded, match="100000"):
        read(small, tmp_path / "a.zip", archive(inner))


def test_old_workbook_is_read(partitioner: Partitioner, tmp_path: Path) -> None:
    content = (Path(__file__).parents[1] / "data" / "excel_97.xls").read_bytes()
    elements = read(partitioner, tmp_path / "a.xls", content)
    assert [e.text for e in elements] == ["工资表", "| 姓名 | 天数 |\n| --- | --- |\n| 张三 | 15 |"]


def test_message_of_outlook_is_read_with_all_that_it_holds(partitioner: Partitioner, tmp_path: Path) -> None:
    """8-bit strings in code page 936 beyond GB2312, HTML, Rich Text alone, messages in messages."""
    content = (Path(__file__).parents[1] / "data" / "outlook.msg").read_bytes()
    elements = read(partitioner, tmp_path / "a.msg", content)
    assert [e.text if e.level is None else f"{e.text}|{e.level}" for e in elements] == [
        "报价：轴承|0", "From: 陶总 <tao@example.cn>\nTo: 李四 <li@example.cn>\nCc: 王五 <wang@example.cn>",
        "喆总：报价见附件，合计 38,000 元。", "| 品名 | 数量 |\n| --- | --- |\n| 轴承 | 12 |",
        "付款条件（喆总）.txt|0", "预付三成，余款货到付清。",
        "交货期|0", "交货期|1", "交货期为三十天。",
        "Delivery takes thirty days, thirty days at most, and thirty days from the order.",
        "转发|0", "转发|1", "见下面的邮件。", "原邮件|1", "原邮件|2", "质保期两年。",
        "Files in this message that cannot be read|0",
        "elsewhere.docx: is only referred to, or drawn by another program",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        pytest.param(b"LZFu", "cut off", id="short"),
        pytest.param(bytes(8) + b"ZIPP" + bytes(20), "unknown way", id="other-kind"),
        pytest.param(bytes(4) + b"\xff\xff\xff\x7fLZFu" + bytes(4), "the limit is", id="too-long"),
    ],
)
def test_broken_rich_text_of_a_message_says_why(packed: bytes, reason: str) -> None:
    with pytest.raises(PartitionError, match=reason):
        unpacked(packed, Limits())


def test_rich_text_that_refers_to_nothing_ends() -> None:
    # A pair that points at its own place is the end; one cut in half repeats nothing that was not there.
    assert unpacked(bytes(4) + b"\x10\0\0\0LZFu" + bytes(4) + b"\x01\x0c\xf0", Limits()) == b""
    assert len(unpacked(bytes(4) + b"\x10\0\0\0LZFu" + bytes(4) + b"\xff" * 64, Limits())) <= 16


def test_attachments_are_sections_under_their_names(partitioner: Partitioner, tmp_path: Path) -> None:
    inner = EmailMessage()
    inner["Subject"] = "Earlier"
    inner.set_content("What was said before.")
    message = EmailMessage()
    message["Subject"], message["From"] = "报价", "a@example.com"
    message.set_content("See the attached files.")
    message.add_alternative("<p>See the <b>attached</b> files.</p><img src='cid:logo'>", subtype="html")
    message.get_payload()[1].add_related(b"GIF89a", "image", "gif", cid="<logo>")  # type: ignore[index, union-attr]
    message.add_attachment(
        f"# Offer\n\n{PARAGRAPH}".encode("gb18030"), maintype="text", subtype="markdown", filename="报价单.md"
    )
    message.add_attachment(
        archive({"in.txt": "Inside of it."}), maintype="application", subtype="zip", filename="a.zip"
    )
    message.add_attachment(b"MZ", maintype="application", subtype="octet-stream", filename="setup.exe")
    message.add_attachment(inner)
    elements = read(partitioner, tmp_path / "a.eml", message.as_bytes())
    assert [e.text if e.level is None else f"{e.text}|{e.level}" for e in elements] == [
        "报价|0", "From: a@example.com", "See the attached files.",
        "报价单.md|0", "Offer|1", PARAGRAPH,
        "a.zip|0", "in.txt|1", "Inside of it.",
        "Earlier.eml|0", "Earlier|1", "What was said before.",
        "Files in this message that cannot be read|0", "setup.exe: no reader for .exe",
    ]  # fmt: skip


def test_mails_in_mails_have_an_end(partitioner: Partitioner, tmp_path: Path) -> None:
    message = EmailMessage()
    message.set_content("The innermost words.")
    for depth in range(5):
        outer = EmailMessage()
        outer["Subject"] = f"Level {depth}"
        outer.set_content(f"Words of level {depth}.")
        outer.add_attachment(message)
        message = outer
    texts = [e.text for e in read(partitioner, tmp_path / "a.eml", message.as_bytes())]
    assert "Words of level 2." in texts
    assert "Words of level 1." not in texts
    assert any("is not opened" in text for text in texts)


def test_attachments_share_one_ceiling(tmp_path: Path) -> None:
    message = EmailMessage()
    message.set_content("Large files.")
    for n in range(3):
        message.add_attachment("x" * 40_000, filename=f"{n}.txt")
    with Partitioner(Limits(archive_bytes=100_000)) as small, pytest.raises(LimitExceeded, match="100000"):
        read(small, tmp_path / "a.eml", message.as_bytes())
