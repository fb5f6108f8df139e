"""The only file that imports `unstructured`, and only where it reads something.

It reads what is rare; what is common has readers of our own, ten times as fast, that tell places too. All of
them speak of elements as unstructured does: its categories, and what they mean.
"""

from __future__ import annotations

import re
import sys
import types
from typing import IO

from ingest.partition.headings import is_heading
from ingest.partition.markdown_table import markdown_table
from ingest.values import Element

_SENTENCE = re.compile(r"[^.!?。！？；…]+[.!?。！？；…]*[”’」』\"')]*")
_WORD = re.compile(r"\w+|[^\w\s]")
# Named so that unstructured does not guess them: guessing takes ten times as long as partitioning.
_LANGUAGES = ["eng"]


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


def categories() -> frozenset[str]:
    """Return the names of unstructured's element types."""
    from unstructured.documents.elements import ElementType

    return frozenset(value for name, value in vars(ElementType).items() if name.isupper())


def read_xls(file: IO[bytes]) -> list[Element]:
    """Partition a workbook of Excel 97; every sheet's name is a heading, its tables are Markdown."""
    from unstructured.partition.xlsx import partition_xlsx

    parts: list[Element] = []
    sheet: str | None = None
    for source in partition_xlsx(file=file, languages=_LANGUAGES, find_subtable=False):
        metadata = source.metadata
        if metadata.page_name is not None and metadata.page_name != sheet:
            sheet = metadata.page_name
            parts.append(Element("Title", sheet, level=0, page=metadata.page_number))
        text = markdown_table(_rows(metadata.text_as_html)) if metadata.text_as_html else source.text
        if text.strip():
            parts.append(Element(str(source.category), text, page=metadata.page_number))
    return parts


def _rows(html: str) -> list[list[str]]:
    from lxml import html as parser  # type: ignore[import-untyped] # it has no stubs

    table = parser.fragment_fromstring(html, create_parent="div")
    return [
        [" ".join(cell.text_content().split()) for cell in row.xpath("./td|./th")] for row in table.iter("tr")
    ]


# Before any of its partitioners is imported.
_prepare()
