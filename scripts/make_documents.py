"""Write the binary documents that ship in documents/: a PDF and two Word files.

Usage: python scripts/make_documents.py [FOLDER]   (the same bytes each time)
"""

import io
import sys
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from docx import Document

Section = tuple[str, list[str]]  # heading, paragraphs

YOUR_DATA = """
# Your data in Quarry

## Where your data lies

Everything that Quarry knows is in one folder, named by QUARRY_DATA_DIR. The truth is a single SQLite file
called the record: documents, their versions, passages and vectors.

The Chroma and tantivy indexes beside it are derived from the record. You may delete them at any time; at
the next start they are rebuilt without embedding anything again.

## A new version of a document

A changed file becomes visible in one transaction. Until then every question is answered from the old
version, and never from a mix of both. A passage whose text did not change keeps its vector, and a file
that was only moved is not embedded again.

## One owner

Two processes that write to one Chroma folder corrupt it. So the data folder has an exclusive lock: a
second Quarry on the same folder exits at once and writes nothing.

## Hostile files

Documents are parsed in a child process without network access, under limits on memory, processor time and
wall-clock time. A file that crashes its parser is quarantined and costs one document, not the service.
"""

THE_ENGINE = """
# The engine inside Quarry

## The engine

One native engine, written in C++20, embeds the documents and writes the answers. It reads models in the
GGUF format, versions 2 and 3, and maps them into memory instead of copying them.

## Kernels

The engine has three sets of kernels: generic, AVX2 and AVX-512. The fastest one that the processor
reports is chosen once, when the engine is loaded.

## Many conversations at once

One scheduler thread runs all conversations. In each step every running conversation gets its next token,
and a slice of a waiting prompt is read beside them, so that a long prompt never freezes the other
answers. Chat goes before ingestion.

## When it is busy

The waiting queue holds sixty-four requests. The next one is refused with status 429 and a Retry-After
header that says when to try again.
"""

FIRST_STEPS = """
# 第一次使用 Quarry

## 第一次使用

在源码目录里执行 make run，
Quarry 会建立运行环境、编译引擎、下载模型、读取 documents 文件夹，
然后在本机的 8080 端口提供服务。

服务默认只监听 127.0.0.1，同一局域网里的其他电脑访问不到。

## 接入 ChatGPT-Next-Web

BASE_URL 只写协议、主机和端口，末尾不要加 /v1，
因为 ChatGPT-Next-Web 会自己补上。它在容器里运行时，
localhost 指的是容器本身，要写成 host.docker.internal。

## 在终端里提问

quarry ask 后面跟一个问题，回答会逐字显示，最后列出来源；
quarry chat 可以连续对话，按 Ctrl-C 停止当前回答，按 Ctrl-D 退出。
"""


def main(folder: Path) -> None:
    """Write the three files below `folder`."""
    (folder / "zh").mkdir(parents=True, exist_ok=True)
    (folder / "your-data.pdf").write_bytes(pdf(*read(YOUR_DATA, joint=" ")))
    (folder / "the-engine.docx").write_bytes(docx(*read(THE_ENGINE, joint=" "), language="en"))
    (folder / "zh" / "第一次使用.docx").write_bytes(docx(*read(FIRST_STEPS, joint=""), language="zh-CN"))


def read(text: str, *, joint: str) -> tuple[str, list[Section]]:
    """Split a text into its title and sections; the lines of a paragraph are joined by `joint`."""
    title = ""
    sections: list[Section] = []
    for block in text.strip().split("\n\n"):
        if block.startswith("# "):
            title = block[2:]
        elif block.startswith("## "):
            sections.append((block[3:], []))
        else:
            sections[-1][1].append(joint.join(block.splitlines()))
    return title, sections


def docx(title: str, sections: Sequence[Section], *, language: str) -> bytes:
    """Make a Word file with real headings; times in it are fixed so that its bytes are."""
    document = Document()
    document.core_properties.title = title
    document.core_properties.author = "Quarry"
    document.core_properties.language = language
    document.core_properties.created = document.core_properties.modified = datetime(2026, 1, 1, tzinfo=UTC)
    document.add_heading(title, level=0)
    for heading, paragraphs in sections:
        document.add_heading(heading, level=1)
        for paragraph in paragraphs:
            document.add_paragraph(paragraph)
    buffer = io.BytesIO()
    document.save(buffer)
    fixed = io.BytesIO()
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(fixed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(zipfile.ZipInfo(name), source.read(name), zipfile.ZIP_DEFLATED)
    return fixed.getvalue()


def pdf(title: str, sections: Sequence[Section]) -> bytes:
    """Make an A4 PDF of Latin text in Helvetica, one page for each two sections."""
    pages = [page_content(title if i == 0 else "", sections[i : i + 2]) for i in range(0, len(sections), 2)]
    first_page = 5  # objects 1 to 4: catalogue, page tree, two fonts; then page and content in turn
    kids = " ".join(f"{first_page + 2 * i} 0 R" for i in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica-Bold >>",
    ]
    for i, content in enumerate(pages):
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {first_page + 2 * i + 1} 0 R "
            "/Resources << /Font << /F1 3 0 R /F2 4 0 R >> >> >>".encode()
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
    objects.append(f"<< /Title ({title}) /Author (Quarry) >>".encode())
    body = b"%PDF-1.4\n"
    offsets = []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    trailer = f"trailer\n<< /Size {size} /Root 1 0 R /Info {size - 1} 0 R >>\nstartxref\n{len(body)}\n%%EOF\n"
    return body + f"xref\n0 {size}\n0000000000 65535 f \n{table}{trailer}".encode()


def page_content(title: str, sections: Sequence[Section]) -> bytes:
    """Set headings and wrapped paragraphs as PDF text operators, from the top of the page down."""
    lines = [("F2", 18, title), ("F1", 12, "")] if title else []
    for heading, paragraphs in sections:
        lines.append(("F2", 14, heading))
        for paragraph in paragraphs:
            lines += [("F1", 11, line) for line in wrap(paragraph, width=84)]
            lines.append(("F1", 11, ""))
    drawn = ["BT 60 780 Td 16 TL"]
    for font, size, text in lines:
        escaped = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
        drawn.append(f"/{font} {size} Tf ({escaped}) Tj T*")
    return "\n".join([*drawn, "ET"]).encode("latin-1")


def wrap(text: str, *, width: int) -> list[str]:
    """Break at spaces; a line that goes on ends with one, so that extracted words stay apart."""
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += word + " "
    return lines


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "documents")
