"""The Markdown reader against markdown-it, and the places that it tells."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from markdown_it import MarkdownIt

from ingest.partition import formats
from ingest.partition.limits import Limits

if TYPE_CHECKING:
    from ingest.values import Element

ROOT = Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("documents/**/*.md")])


def read(text: str, suffix: str = ".md") -> list[Element]:
    return formats.read(io.BytesIO(text.encode()), suffix, Limits())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_headings_and_code_are_those_of_markdown_it(path: Path) -> None:
    text = path.read_text("utf-8")
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    headings = [
        (int(token.tag[1]) - 1, "".join(part.content for part in inline.children or []))
        for token, inline in itertools.pairwise(tokens)
        if token.type == "heading_open"
    ]
    code = [token.content.strip("\n") for token in tokens if token.type in {"fence", "code_block"}]
    elements = read(text)
    found = [(e.level, e.text) for e in elements if e.level is not None]
    assert [heading for heading in found if "第" not in heading[1]] == [
        heading for heading in headings if "第" not in heading[1]
    ]
    assert [e.text for e in elements if e.kind == "CodeSnippet"] == code
    assert sum(e.kind == "Table" for e in elements) == sum(token.type == "table_open" for token in tokens)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_places_are_those_of_the_file(path: Path) -> None:
    text = path.read_text("utf-8")
    end = 0
    for element in read(text):
        assert element.start is not None
        assert element.end is not None
        assert end <= element.start < element.end <= len(text)
        end = element.end
        if element.end - element.start == len(element.text):
            # Lines of a paragraph are joined by a space in the newline's place.
            assert text[element.start : element.end].replace("\n", " ") == element.text.replace("\n", " ")


@pytest.mark.parametrize(
    ("source", "plain"),
    [
        pytest.param("a **bold** and *slanted* word", "a bold and slanted word", id="emphasis"),
        pytest.param('see [the rules](http://x.y/a_(b) "t") now', "see the rules now", id="link"),
        pytest.param("![a picture](x.png) beside", "a picture beside", id="image"),
        pytest.param("call `a_b(*c)` twice", "call a_b(*c) twice", id="code"),
        pytest.param("snake_case_name and 3 * 4 * 5", "snake_case_name and 3 * 4 * 5", id="no-emphasis"),
        pytest.param("R&amp;D \\*not\\*", "R&D *not*", id="escapes"),
        pytest.param("一行中文\n接着写", "一行中文接着写", id="chinese-lines"),
        pytest.param("one line\ngoes on", "one line goes on", id="lines"),
        pytest.param("> quoted\n> text", "quoted text", id="quote"),
    ],
)
def test_marks_are_taken_out(source: str, plain: str) -> None:
    assert [e.text for e in read(source)] == [plain]


def test_lists_and_headings_of_both_kinds() -> None:
    elements = read("Title\n=====\n\n- one\n  goes on\n- [x] two\n1. three\n\nSub\n---\n\n## Other ##\n")
    assert [(e.kind, e.text, e.level) for e in elements] == [
        ("Title", "Title", 0), ("ListItem", "one goes on", None), ("ListItem", "two", None),
        ("ListItem", "three", None), ("Title", "Sub", 1), ("Title", "Other", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "hostile",
    [
        "*a " * 60_000, "[" * 100_000, "```x" + "`a " * 60_000, "<!--" * 60_000, "_a" * 90_000,
        "> " * 60_000,
    ],
    ids=["stars", "brackets", "ticks", "comments", "underscores", "quotes"],
)  # fmt: skip
def test_hostile_marks_are_read_and_not_lost(hostile: str) -> None:
    assert read(f"{hostile}\n\nThe end.")[-1].text == "The end."


def test_places_of_plain_text() -> None:
    text = "Heading\r\n\r\n  A paragraph of\r\ntwo lines.\r\n\r\n- one\r\n- two\r\n".replace("\r\n", "\n")
    elements = read(text.replace("\n", "\r\n"), ".txt")
    assert [(e.kind, text[e.start : e.end]) for e in elements] == [
        ("Title", "Heading"), ("NarrativeText", "A paragraph of\ntwo lines."), ("ListItem", "one"),
        ("ListItem", "two"),
    ]  # fmt: skip


def test_places_of_source_code() -> None:
    text = "\n\nimport os\n\n\ndef f():\n    return 1\n\n    # still inside\n\nclass A:\n    pass\n"
    elements = read(text, ".py")
    assert [text[e.start : e.end] for e in elements] == [e.text for e in elements]
    assert [e.text.splitlines()[0] for e in elements] == ["import os", "def f():", "class A:"]
