"""Write a document of the question sets in each of the formats that people have."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from dataclasses import dataclass
from email.message import EmailMessage
from html import escape
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Every reader brings this font along; its encoding is UTF-16.
_PDF_FONT = (
    "<< /Type /Font /Subtype /Type0 /BaseFont /STSong-Light /Encoding /UniGB-UCS2-H"
    " /DescendantFonts [4 0 R] >>"
)
_PDF_CHARACTERS = (
    "<< /Type /Font /Subtype /CIDFontType0 /BaseFont /STSong-Light /DW 1000 /W [1 95 500]"
    " /CIDSystemInfo << /Registry (Adobe) /Ordering (GB1) /Supplement 4 >>"
    " /FontDescriptor << /Type /FontDescriptor /FontName /STSong-Light /Flags 6 /ItalicAngle 0"
    " /FontBBox [-25 -254 1000 880] /Ascent 880 /Descent -120 /CapHeight 880 /StemV 93 >> >>"
)

Kind = Literal["heading", "paragraph", "item", "table"]


@dataclass(frozen=True, slots=True)
class Block:
    """A heading (level from 1), a paragraph, an item of a list, or the rows of a table."""

    kind: Kind
    text: str = ""
    level: int = 0
    rows: tuple[tuple[str, ...], ...] = ()


def write(text: str, name: str) -> bytes:
    """Give the file of this name, whose ending tells its format."""
    ending = name.rpartition(".")[2]
    if ending in {"txt", "md"}:
        return (text if ending == "txt" else _markdown(text)).encode()
    if ending == "json":
        return json.dumps(json.loads(text), ensure_ascii=False, indent=1).encode()
    if ending == "eml":
        return _eml(text)
    return _WRITERS[ending](list(_blocks(text)))


def _blocks(text: str) -> Iterator[Block]:
    rows: list[tuple[str, ...]] = []
    for line in [*text.split("\n"), ""]:
        if line.startswith("|"):
            rows.append(_cells(line))
            continue
        if rows:
            yield Block("table", rows=tuple(rows))
            rows = []
        if line.startswith("#"):
            marks, _, heading = line.partition(" ")
            yield Block("heading", heading, len(marks))
        elif line.startswith("- "):
            yield Block("item", line[2:])
        elif line.strip():
            yield Block("paragraph", line)


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.strip().strip("|").split("|"))


def _markdown(text: str) -> str:
    """Add what Markdown wants: blank lines, and the rule under a table's first row."""
    out: list[str] = []
    for block in _blocks(text):
        if block.kind == "table":
            head, *rows = block.rows
            lines = [_row(head), _row(["---"] * len(head)), *map(_row, rows)]
            out.append("\n".join(lines))
        else:
            mark = {"heading": "#" * block.level + " ", "item": "- "}.get(block.kind, "")
            out.append(mark + block.text)
    return "\n\n".join(out) + "\n"


def _row(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _eml(text: str) -> bytes:
    head, _, body = text.partition("\n\n")
    message = EmailMessage()
    for line in head.split("\n"):
        name, _, value = line.partition(": ")
        message[name] = value
    message.set_content(body, charset="utf-8")
    return message.as_bytes()


def _html(blocks: list[Block]) -> bytes:
    shapes = {"heading": "<h{n}>{t}</h{n}>", "paragraph": "<p>{t}</p>", "item": "<ul><li>{t}</li></ul>"}
    parts = [
        _html_table(block.rows)
        if block.kind == "table"
        else shapes[block.kind].format(n=block.level, t=escape(block.text))
        for block in blocks
    ]
    return f'<!doctype html><meta charset="utf-8"><body>{"".join(parts)}</body>'.encode()


def _html_table(rows: tuple[tuple[str, ...], ...]) -> str:
    lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    lines[0] = lines[0].replace("td>", "th>")
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _csv(blocks: list[Block]) -> bytes:
    out = io.StringIO()
    for block in blocks:
        csv.writer(out).writerows(block.rows)
    return out.getvalue().encode()


def _docx(blocks: list[Block]) -> bytes:
    import docx

    document = docx.Document()
    for block in blocks:
        if block.kind == "heading":
            document.add_heading(block.text, block.level - 1)
        elif block.kind == "table":
            table = document.add_table(len(block.rows), len(block.rows[0]))
            for cells, row in zip(table.rows, block.rows, strict=True):
                for cell, value in zip(cells.cells, row, strict=True):
                    cell.text = value
        else:
            document.add_paragraph(block.text, "List Bullet" if block.kind == "item" else None)
    return _saved(document)


def _pptx(blocks: list[Block]) -> bytes:
    import pptx

    deck = pptx.Presentation()
    lines: list[str] = []
    body: Any = None
    for block in blocks:
        if block.kind == "heading":
            slide = deck.slides.add_slide(deck.slide_layouts[0 if block.level == 1 else 1])
            slide.shapes.title.text, body, lines = block.text, slide.placeholders[1], []
        else:
            lines.append(block.text)
            body.text = "\n".join(lines)
    return _saved(deck)


def _xlsx(blocks: list[Block]) -> bytes:
    import openpyxl

    book = openpyxl.Workbook(write_only=True)
    sheet: Any = None
    for block in blocks:
        if block.kind == "heading":
            sheet = book.create_sheet(block.text)
        for row in block.rows:
            sheet.append([float(cell) if cell.replace(".", "", 1).isdigit() else cell for cell in row])
    return _saved(book)


def _odt(blocks: list[Block]) -> bytes:
    shapes = {
        "heading": '<text:h text:outline-level="{n}">{t}</text:h>',
        "paragraph": "<text:p>{t}</text:p>",
        "item": "<text:list><text:list-item><text:p>{t}</text:p></text:list-item></text:list>",
    }
    body = "".join(shapes[block.kind].format(n=block.level, t=escape(block.text)) for block in blocks)
    spaces = "".join(
        f' xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in ("office", "text")
    )
    content = f"<office:document-content{spaces}><office:body><office:text>{body}</office:text>"
    return _zipped(
        {
            "mimetype": "application/vnd.oasis.opendocument.text",
            "content.xml": f"{content}</office:body></office:document-content>",
        }
    )


def _epub(blocks: list[Block]) -> bytes:
    space = "urn:oasis:names:tc:opendocument:xmlns:container"
    page = _html(blocks).decode().partition("<body>")[2]
    return _zipped(
        {
            "META-INF/container.xml": f'<container xmlns="{space}"><rootfiles>'
            '<rootfile full-path="book.opf"/></rootfiles></container>',
            "book.opf": '<package xmlns="http://www.idpf.org/2007/opf"><manifest>'
            '<item id="a" href="a.xhtml" media-type="application/xhtml+xml"/></manifest>'
            '<spine><itemref idref="a"/></spine></package>',
            "a.xhtml": f"<html><body>{page}</html>",
        }
    )


def _pdf(blocks: list[Block]) -> bytes:
    lines = [
        (size, part)
        for block in blocks
        for size in [{1: 20, 2: 15}.get(block.level, 10) if block.kind == "heading" else 10]
        for part in _wrapped(block.text, 100 if block.text.isascii() else 45)
    ]
    pages = [lines[i : i + 40] for i in range(0, len(lines), 40)]
    kids = " ".join(f"{5 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Count {len(pages)} /Kids [{kids}] >>",
        _PDF_FONT,
        _PDF_CHARACTERS,
    ]
    for n, page in enumerate(pages):
        y, shown = 800, []
        for size, text in page:
            y -= size + 7
            shown.append(f"BT /F1 {size} Tf 40 {y} Td <{text.encode('utf-16-be').hex()}> Tj ET")
        stream = "\n".join(shown)
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {6 + 2 * n} 0 R"
            " /Resources << /Font << /F1 3 0 R >> >> >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    return (
        out
        + (
            f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
            f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF"
        ).encode()
    )


def _wrapped(text: str, width: int) -> list[str]:
    """Break lines between words; between any two characters of Chinese."""
    lines = [""]
    for word in re.findall(r"[!-~]+ ?|[^!-~]", text):
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += word
    return [line.rstrip() for line in lines]


def _zipped(parts: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _saved(document: Any) -> bytes:
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


_WRITERS: dict[str, Callable[[list[Block]], bytes]] = {
    "html": _html,
    "csv": _csv,
    "docx": _docx,
    "pptx": _pptx,
    "xlsx": _xlsx,
    "odt": _odt,
    "epub": _epub,
    "pdf": _pdf,
}
