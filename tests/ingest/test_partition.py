"""Every format is read into elements; hostile files cost themselves only."""

from __future__ import annotations

import io
import os
import socket
import threading
import zipfile
from typing import TYPE_CHECKING

import pytest

from ingest.errors import LimitExceeded, PartitionCrashed, PartitionError, UndecodableText, UnsupportedFormat
from ingest.partition.decoding import decode
from ingest.partition.limits import MIB, Limits
from ingest.partition.partitioner import Partitioner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ingest.values import Element

PARAGRAPH = "员工每年享有十五天带薪年假，其中至少五天应当连续使用，未使用的部分可以顺延到下一年。"


@pytest.fixture(scope="module")
def partitioner() -> Iterator[Partitioner]:
    with Partitioner() as partitioner:
        yield partitioner


def read(partitioner: Partitioner, path: Path, content: bytes) -> list[Element]:
    path.write_bytes(content)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return partitioner.partition(descriptor, suffix=path.suffix)
    finally:
        os.close(descriptor)


def docx() -> bytes:
    import docx

    document = docx.Document()
    document.add_heading("Handbook", 1)
    document.add_heading("Leave", 2)
    document.add_paragraph(PARAGRAPH)
    table = document.add_table(2, 2)
    for cell, text in zip(table._cells, ["name", "days", "Ann", "15"], strict=True):
        cell.text = text
    return saved(document)


def pptx() -> bytes:
    import pptx

    deck = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[1])
    slide.shapes.title.text = "季度总结"
    slide.placeholders[1].text = PARAGRAPH
    return saved(deck)


def xlsx() -> bytes:
    import openpyxl

    book = openpyxl.Workbook()
    book.active.title = "工资表"
    for row in (["name", "days"], ["Ann", 15]):
        book.active.append(row)
    return saved(book)


def saved(document: object) -> bytes:
    buffer = io.BytesIO()
    document.save(buffer)  # type: ignore[attr-defined] # three libraries, one method
    return buffer.getvalue()


def epub() -> bytes:
    return archive(
        {
            "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container">'
            '<rootfiles><rootfile full-path="o/c.opf"/></rootfiles></container>',
            "o/c.opf": '<package xmlns="http://www.idpf.org/2007/opf"><manifest>'
            '<item id="b" href="b.xhtml" media-type="application/xhtml+xml"/>'
            '<item id="a" href="a%20x.xhtml" media-type="application/xhtml+xml"/></manifest>'
            '<spine><itemref idref="a"/><itemref idref="b"/></spine></package>',
            "o/a x.xhtml": "<?xml version='1.0' encoding='utf-8'?>"
            "<html><body><h1>One</h1><p>First part.</p></body></html>",
            "o/b.xhtml": f"<html><body><h1>Two</h1><p>{PARAGRAPH}</p></body></html>",
        }
    )


def archive(parts: dict[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in parts.items():
            file.writestr(name, content)
    return buffer.getvalue()


def pdf(*pages: list[tuple[int, str]]) -> bytes:
    """Make a PDF whose pages hold lines of (type size, ASCII text)."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode())
    objects.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for n, lines in enumerate(pages):
        y, shown = 760, []
        for size, text in lines:
            shown.append(f"BT /F1 {size} Tf 50 {y} Td ({text}) Tj ET")
            y -= size + 6
        stream = "\n".join(shown).encode()
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * n} 0 R"
            " /Resources << /Font << /F1 3 0 R >> >> >>".encode()
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    xref = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    for place in places:
        out += b"%010d 00000 n \n" % place
    out += b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, xref)
    return bytes(out)


PDF = pdf(
    [
        (24, "Handbook"),
        (11, "The first line of a paragraph that goes on"),
        (11, "in the second line of the page."),
    ],
    [(16, "Travel"), (11, "Trains are preferred to planes.")],
)
EML = (
    b"From: a@example.com\nTo: b@example.com\nSubject: =?utf-8?b?5L2g5aW9?=\n"
    b"Content-Type: text/plain; charset=gbk\nContent-Transfer-Encoding: 8bit\n\n"
) + PARAGRAPH.encode("gbk")

HTML = (
    f"<html><body><h1>制度</h1><h2>假期</h2><p>{PARAGRAPH}</p>"
    "<table><tr><th>k</th></tr><tr><td>v</td></tr></table>"
)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        pytest.param("a.txt", f"第一章 总则\n\n{PARAGRAPH}".encode(), ["第一章 总则|0", PARAGRAPH], id="txt"),
        pytest.param("a.txt", PARAGRAPH.encode("gb18030"), [PARAGRAPH], id="txt-gb18030"),
        pytest.param("a.txt", PARAGRAPH.encode("utf-16"), [PARAGRAPH], id="txt-utf16"),
        pytest.param(
            "a.md", f"# T\n\n## U\n\n{PARAGRAPH}\n\n```\nx = 1\n\ny\n```\n".encode(),
            ["T|0", "U|1", PARAGRAPH, "x = 1\n\ny"], id="md",
        ),
        pytest.param(
            "a.html", HTML.encode(), ["制度|0", "假期|1", PARAGRAPH, "| k |\n| --- |\n| v |"], id="html",
        ),
        pytest.param(
            "a.htm", b'<meta charset="gb2312"><p>' + PARAGRAPH.encode("gbk"), [PARAGRAPH], id="html-gbk"
        ),
        pytest.param(
            "a.csv", "姓名;部门\n张三;研|发\n".encode("gb18030"),
            ["| 姓名 | 部门 |\n| --- | --- |\n| 张三 | 研\\|发 |"], id="csv-gb18030",
        ),
        pytest.param("a.tsv", b"a\tb\n1\t2\n", ["| a | b |\n| --- | --- |\n| 1 | 2 |"], id="tsv"),
        pytest.param(
            "a.json", '{"姓名": "张三", "l": [1, {"x": null}], "s": "\\ud800!"}'.encode(),
            ["姓名: 张三", "l[0]: 1\nl[1].x: null", "s: !"], id="json",
        ),
        pytest.param("a.jsonl", b'{"a": 1}\n{"a": 2}\n', ["[0].a: 1", "[1].a: 2"], id="jsonl"),
        pytest.param("a.eml", EML, ["你好|0", "From: a@example.com\nTo: b@example.com", PARAGRAPH], id="eml"),
        pytest.param(
            "a.docx", docx(),
            ["Handbook|0", "Leave|1", PARAGRAPH, "| name | days |\n| --- | --- |\n| Ann | 15 |"], id="docx",
        ),
        pytest.param("a.pptx", pptx(), ["季度总结|0", PARAGRAPH], id="pptx"),
        pytest.param(
            "a.xlsx", xlsx(), ["工资表|0", "| name | days |\n| --- | --- |\n| Ann | 15 |"], id="xlsx",
        ),
        pytest.param("a.epub", epub(), ["One|0", "First part.", "Two|0", PARAGRAPH], id="epub"),
        pytest.param(
            "a.pdf", PDF,
            [
                "Handbook|0",
                "The first line of a paragraph that goes on in the second line of the page.",
                "Travel|1",
                "Trains are preferred to planes.",
            ],
            id="pdf",
        ),
        pytest.param("a.txt", b"", [], id="empty"),
    ],
)  # fmt: skip
def test_format_is_read(
    partitioner: Partitioner, tmp_path: Path, name: str, content: bytes, expected: list[str]
) -> None:
    elements = read(partitioner, tmp_path / name, content)
    assert [e.text if e.level is None else f"{e.text}|{e.level}" for e in elements] == expected


def test_pages_of_a_pdf_are_counted_from_one(partitioner: Partitioner, tmp_path: Path) -> None:
    assert [e.page for e in read(partitioner, tmp_path / "a.pdf", PDF)] == [1, 1, 2, 2]


@pytest.mark.parametrize("encoding", ["gb18030", "big5", "utf-16-le", "utf-16-be", "utf-8-sig", "utf-32"])
def test_encodings_are_told_apart(encoding: str) -> None:
    text = "本公司員工每年享有十五天有薪年假。Annual leave is fifteen days for everybody here." * 3
    if encoding == "gb18030":
        text = PARAGRAPH
    assert decode(text.encode(encoding)) == text


def test_latin_text_is_not_taken_for_chinese() -> None:
    text = "Le café est fermé l'été; le garçon a déjà mangé. Où êtes-vous? Très bien, à bientôt." * 4
    assert decode(text.encode("cp1252")) == text


def test_binary_is_not_text() -> None:
    with pytest.raises(UndecodableText, match="zero bytes"):
        decode(b"ab\x00\x00\x01cd" * 20)


SLIDE = "ppt/slides/slide1.xml"
BOMB = (
    '<?xml version="1.0"?><!DOCTYPE d [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {c} "{f"&{p};" * 20}">' for p, c in zip("abcdefgh", "bcdefghi", strict=True))
    + "]>"
)


def entity_docx(body: str) -> bytes:
    """Return a Word document whose main part is `body`."""
    source = zipfile.ZipFile(io.BytesIO(docx()))
    parts: dict[str, str | bytes] = {name: source.read(name) for name in source.namelist()}
    parts["word/document.xml"] = body
    return archive(parts)


def word_body(text: str) -> str:
    return (
        f'<w:document xmlns:w="{WORD}"><w:body><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:body></w:document>'
    )


WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("zip.docx", archive({"word/document.xml": b"0" * (64 * MIB)}), id="zip-bomb"),
        pytest.param("many.xlsx", archive({f"{n}.xml": "" for n in range(20_001)}), id="many-parts"),
        pytest.param("lie.docx", docx()[:500], id="truncated-zip"),
        pytest.param(
            "entities.docx",
            entity_docx(BOMB + word_body("&i;")),
            id="entity-bomb",
        ),
        pytest.param(
            "entities.epub", archive({"META-INF/container.xml": f"{BOMB}<c>&i;</c>"}), id="entity-epub"
        ),
        pytest.param("deep.json", b"[" * 100_000 + b"]" * 100_000, id="deep-json"),
        pytest.param("deep2.json", b'{"a":' * 500 + b"1" + b"}" * 500, id="nested-json"),
        pytest.param("junk.pdf", b"%PDF-1.7\n" + bytes(range(256)) * 50, id="junk-pdf"),
        pytest.param("empty.pdf", pdf([]), id="pdf-without-text"),
        pytest.param("zero.txt", bytes(1000), id="zeros"),
        pytest.param("junk.xlsx", os.urandom(2000), id="junk-xlsx"),
    ],
)
def test_hostile_file_is_refused_with_a_reason(
    partitioner: Partitioner, tmp_path: Path, name: str, content: bytes
) -> None:
    try:
        text = "".join(e.text for e in read(partitioner, tmp_path / name, content))
    except PartitionError as error:
        text = str(error)
    assert len(text) < 10_000  # a reason, or read but not blown up
    good = read(partitioner, tmp_path / "good.json", b'{"still": "here"}')
    assert [e.text for e in good] == ["still: here"]


@pytest.mark.parametrize(
    "include",
    [
        pytest.param('<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]>', id="local-file"),
        pytest.param('<!DOCTYPE d SYSTEM "http://127.0.0.1:{port}/x"[<!ENTITY x "y">]>', id="remote-dtd"),
        pytest.param('<!DOCTYPE d [<!ENTITY x SYSTEM "http://127.0.0.1:{port}/x">]>', id="remote-entity"),
    ],
)
def test_includes_are_not_followed(partitioner: Partitioner, tmp_path: Path, include: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        head = include.replace("{port}", str(server.getsockname()[1]))
        body = head + word_body("&x;")
        try:
            text = "".join(e.text for e in read(partitioner, tmp_path / "x.docx", entity_docx(body)))
        except PartitionError:
            text = ""
        assert "root:" not in text
        html = f'<p>x</p><img src="http://127.0.0.1:{server.getsockname()[1]}/i"><iframe src="file:///etc/passwd">'
        assert "root:" not in "".join(e.text for e in read(partitioner, tmp_path / "x.html", html.encode()))
        with pytest.raises(TimeoutError):
            server.accept()


def test_unknown_suffix_names_itself(partitioner: Partitioner, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormat, match=r"\.xyz"):
        read(partitioner, tmp_path / "a.xyz", b"x")


def test_too_large_file_names_the_limit(tmp_path: Path) -> None:
    with Partitioner(Limits(file_bytes=10)) as small, pytest.raises(LimitExceeded, match="11 bytes"):
        read(small, tmp_path / "a.json", b'"123456789"')


def test_memory_limit_costs_one_document(tmp_path: Path) -> None:
    with Partitioner(Limits(memory_bytes=320 * MIB)) as small:
        with pytest.raises(PartitionError):
            read(small, tmp_path / "big.json", b"[" + b'{"a":1},' * 6_000_000 + b"0]")
        assert read(small, tmp_path / "good.json", b'{"a": 1}')


def test_wall_clock_costs_one_document(tmp_path: Path) -> None:
    deep = ("<div>" * 200 + "x" + "</div>" * 200) * 20_000
    with Partitioner(Limits(wall_seconds=0.5)) as hasty:
        with pytest.raises(PartitionCrashed, match=r"0\.5 s"):
            read(hasty, tmp_path / "slow.html", deep.encode())
        assert read(hasty, tmp_path / "good.json", b'{"a": 1}')


def test_killed_child_costs_one_document(tmp_path: Path) -> None:
    with Partitioner() as partitioner:
        assert read(partitioner, tmp_path / "good.json", b'{"a": 1}')
        child = partitioner._child
        assert child is not None
        slow = ("<div>" * 200 + "x" + "</div>" * 200) * 20_000
        threading.Timer(0.3, child.kill).start()
        with pytest.raises(PartitionCrashed, match="SIGKILL"):
            read(partitioner, tmp_path / "slow.html", slow.encode())
        assert read(partitioner, tmp_path / "good.json", b'{"a": 1}')


def test_child_is_confined(partitioner: Partitioner, tmp_path: Path) -> None:
    read(partitioner, tmp_path / "a.json", b"{}")
    assert partitioner.protections["limits"]
    assert partitioner.protections["audit_hook"]


def test_temporary_folder_is_removed(tmp_path: Path) -> None:
    with Partitioner() as partitioner:
        read(partitioner, tmp_path / "a.json", b"{}")
        folder = partitioner._folder
        assert folder is not None
        assert os.path.isdir(folder)  # noqa: PTH112 - a name, as the partitioner keeps it
    assert not os.path.exists(folder)  # noqa: PTH110
