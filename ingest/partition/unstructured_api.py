"""The only file that imports `unstructured`, and only where it reads something."""

from __future__ import annotations

import re
import sys
import types
from typing import IO, TYPE_CHECKING, Any

from ingest.partition.headings import is_heading
from ingest.partition.markdown_table import markdown_table
from ingest.values import Element

if TYPE_CHECKING:
    from collections.abc import Iterable

_SENTENCE = re.compile(r"[^.!?。！？；…]+[.!?。！？；…]*[”’」』\"')]*")
_WORD = re.compile(r"\w+|[^\w\s]")
# Named so that unstructured does not guess them: guessing takes ten times as long as partitioning.
_LANGUAGES = ["eng"]
_DROPPED = {"PageBreak", "Header", "Footer", "PageNumber", "UncategorizedText-empty"}


def _prepare() -> None:
    """Put our tokenizer in place of unstructured's, which would download a spaCy model."""
    module = types.ModuleType("unstructured.nlp.tokenize")
    module.sent_tokenize = _sentences  # type: ignore[attr-defined] # a module made here
    module.word_tokenize = _WORD.findall  # type: ignore[attr-defined]
    module.pos_tag = _tags  # type: ignore[attr-defined]
    sys.modules["unstructured.nlp.tokenize"] = module


def _sentences(text: str) -> list[str]:
    return _SENTENCE.findall(text) or [text]


def _tags(text: str) -> list[tuple[str, str]]:
    """Tag a verb where the text reads as prose; unstructured asks only whether there is one."""
    tag = "NN" if is_heading(text) else "VB"
    return [(word, tag) for word in _WORD.findall(text)]


def read_text(text: str) -> list[Element]:
    """Partition plain text; paragraphs are separated by blank lines."""
    from unstructured.partition.text import partition_text

    return _elements(partition_text(text=text, languages=_LANGUAGES), repair_titles=True)


def read_html(text: str) -> list[Element]:
    """Partition HTML."""
    from unstructured.partition.html import partition_html

    return _elements(partition_html(text=text, languages=_LANGUAGES))


def read_mail(file: IO[bytes]) -> list[Element]:
    """Partition the body of an RFC 5322 message; attachments are left alone."""
    from unstructured.partition.email import partition_email

    return _elements(
        partition_email(file=file, languages=_LANGUAGES, process_attachments=False), repair_titles=True
    )


def read_docx(file: IO[bytes]) -> list[Element]:
    """Partition a Word document."""
    from unstructured.partition.docx import partition_docx

    # Word stores page breaks only where it last rendered some: such page numbers mislead.
    return _elements(partition_docx(file=file, languages=_LANGUAGES), repair_titles=True, pages=False)


def read_pptx(file: IO[bytes]) -> list[Element]:
    """Partition a presentation; pages are slides."""
    from unstructured.partition.pptx import partition_pptx

    return _elements(partition_pptx(file=file, languages=_LANGUAGES), repair_titles=True)


def read_xlsx(file: IO[bytes]) -> list[Element]:
    """Partition a workbook; every sheet's name is a heading, its tables are Markdown."""
    from unstructured.partition.xlsx import partition_xlsx

    parts: list[Element] = []
    sheet: str | None = None
    for source in partition_xlsx(file=file, languages=_LANGUAGES, find_subtable=False):
        name = source.metadata.page_name
        if name is not None and name != sheet:
            sheet = name
            parts.append(Element("Title", name, level=0, page=source.metadata.page_number))
        parts += _elements([source])
    return parts


def _elements(sources: Iterable[Any], *, repair_titles: bool = False, pages: bool = True) -> list[Element]:
    """Turn unstructured's elements into ours."""
    converted: list[Element] = []
    for source in sources:
        kind = str(source.category)
        text = str(source.text or "").strip("\n\r\t \u3000")
        metadata = source.metadata
        if kind == "Table" and metadata.text_as_html:
            text = markdown_table(_rows(metadata.text_as_html))
        if not text or kind in _DROPPED:
            continue
        level = None
        if kind == "Title":
            # Chinese paragraphs come out as titles, because unstructured counts words by spaces.
            if repair_titles and not is_heading(text):
                kind = "NarrativeText"
            else:
                level = metadata.category_depth or 0
        page = metadata.page_number if pages else None
        converted.append(Element(kind, text, level=level, page=page))
    return converted


def _rows(html: str) -> list[list[str]]:
    from lxml import html as parser  # type: ignore[import-untyped] # it has no stubs

    table = parser.fragment_fromstring(html, create_parent="div")
    return [
        [" ".join(cell.text_content().split()) for cell in row.xpath("./td|./th")] for row in table.iter("tr")
    ]


# Before any of its partitioners is imported.
_prepare()
