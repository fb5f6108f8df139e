"""Citations: what streams out, what is listed, what is stripped."""

import re
from dataclasses import replace

import pytest

from rag.citations import (
    CitationFilter,
    Source,
    annotations,
    footer,
    quote_text,
    strip_own_marks,
    without_markers,
)
from rag.quotes import is_verbatim
from rag.retriever import Passage


def _source(number: int, path: str = "a.md", page: int | None = None) -> Source:
    passage = Passage((number,), number, path, path, "default", ("Top", "Sub"), page, "text", 0.1, 0.5)
    return Source(number, passage, "text")


def _stream(text: str, n_sources: int, step: int) -> tuple[str, list[int]]:
    marks = CitationFilter([_source(n) for n in range(1, n_sources + 1)])
    pieces = [marks.feed(text[i : i + step]) for i in range(0, len(text), step)]
    return "".join(pieces) + marks.flush(), marks.cited


@pytest.mark.parametrize("step", [pytest.param(n, id=f"{n} at a time") for n in (1, 2, 3, 7, 1000)])
@pytest.mark.parametrize(
    ("text", "repaired", "cited"),
    [
        pytest.param("Yes [1].", "Yes [1].", [1], id="known"),
        pytest.param("Yes [9].", "Yes .", [], id="unknown"),
        pytest.param("Yes [2, 9,1].", "Yes [2][1].", [2, 1], id="list"),
        pytest.param("a[i] and [x] [1", "a[i] and [x] [1", [], id="no marker"),
        pytest.param("It costs $5, not $10.", r"It costs \$5, not \$10.", [], id="prices"),
        pytest.param("Run `echo $1 [9]` now", "Run `echo $1 [9]` now", [], id="code"),
        pytest.param("```json:mcp:fs\n{}\n```", "```json:fs\n{}\n```", [], id="mcp fence"),
        pytest.param("5 $", "5 $", [], id="dollar at the end"),
    ],
)
def test_stream_is_repaired_however_it_is_cut(text: str, repaired: str, cited: list[int], step: int) -> None:
    assert _stream(text, 2, step) == (repaired, cited)


QUOTED = "The lease runs for five years. It costs $900, paid “on the first”."


@pytest.mark.parametrize("step", [pytest.param(n, id=f"{n} at a time") for n in (1, 5, 1000)])
@pytest.mark.parametrize(
    ("text", "shown", "has_quotes"),
    [
        pytest.param(
            "It says “The lease runs for five years.” [1]",
            "It says “The lease runs for five years.” [1]✓",
            True,
            id="word for word",
        ),
        pytest.param("“it runs for ten years” [1]", "“it runs for ten years” [1]", False, id="wrong"),
        pytest.param('"runs for five years" [2]', '"runs for five years" [2]', False, id="another source"),
        pytest.param('"runs for five years" [2, 1]', '"runs for five years" [2][1]✓', True, id="one of two"),
        pytest.param("The “lease” [1]", "The “lease” [1]", False, id="a single word"),
        pytest.param("It runs for five years [1]", "It runs for five years [1]", False, id="no quotation"),
    ],
)  # fmt: skip
def test_quotation_is_marked_where_it_stands_in_its_source(
    text: str, shown: str, has_quotes: bool, step: int
) -> None:
    first = _source(1)
    marks = CitationFilter([replace(first, passage=replace(first.passage, text=QUOTED)), _source(2)])
    said = "".join(marks.feed(text[i : i + step]) for i in range(0, len(text), step)) + marks.flush()
    assert (said, marks.has_quotes) == (shown, has_quotes)
    listing = footer([_source(1)], cited=[1], chinese=False, has_quotes=marks.has_quotes)
    assert strip_own_marks(said + listing) == text.replace("[2, 1]", "[2][1]")


@pytest.mark.parametrize(
    ("quote", "passage", "verbatim"),
    [
        pytest.param("年假有十二天", "员工的年假有十二天。", True, id="chinese"),
        pytest.param("年假", "员工的年假有十二天。", False, id="chinese word"),
        pytest.param("five   years from now", "for five\nyears from now on", True, id="spaces"),
        pytest.param("ive years from now", "for five years from now on", False, id="part of a word"),
        pytest.param("it's due on Monday!", "And it’s due on Monday.", True, id="marks"),
        pytest.param("costs \\$900 a month", "It costs $900 a month", True, id="escaped dollar"),
        pytest.param("It Costs nothing here", "it costs nothing here", False, id="case"),
    ],
)
def test_verbatim(quote: str, passage: str, verbatim: bool) -> None:
    assert is_verbatim(quote, passage) is verbatim


def test_markers_that_stand_in_a_document_are_no_citations() -> None:
    shown = quote_text("As shown before [2], and [1, 2] too")
    assert annotations(shown, [_source(1), _source(2)]) == []
    assert shown.replace("\u2060", "") == "As shown before [2], and [1, 2] too"
    assert without_markers("As shown before [2].") == "As shown before (2)."


def test_footer_lists_what_is_cited() -> None:
    text = footer([_source(1), _source(2, "b*.pdf", page=4)], cited=[2], chinese=False)
    assert text == "\n\n---\n**Sources**\n\n- [2] b\\*.pdf, Top › Sub, p. 4"


def test_footer_lists_all_where_nothing_is_cited() -> None:
    text = footer([_source(1), _source(2)], cited=[], chinese=True)
    assert text.count("\n- [") == 2
    assert "来源" in text


@pytest.mark.parametrize("chinese", [pytest.param(False, id="en"), pytest.param(True, id="zh")])
def test_what_comes_back_is_stripped(chinese: bool) -> None:
    answer = "Line one.\n\n> a quote inside stays" + footer(
        [_source(1), _source(2)], cited=[], chinese=chinese
    )
    assert strip_own_marks("> searched 3 documents…\n\n" + answer) == "Line one.\n\n> a quote inside stays"


def test_annotations_point_at_markers() -> None:
    text = "Five days [2]."
    (found,) = annotations(text, [_source(1), _source(2, "docs/a b.pdf", page=4)])
    citation = found["url_citation"]
    assert text[citation["start_index"] : citation["end_index"]] == "[2]"
    assert citation["url"] == "quarry:docs/a%20b.pdf#page=4"


# What ChatGPT-Next-Web 2.16 takes for maths before it reads the Markdown.
_NEXTCHAT_MATHS = re.compile(r"\\\[([\s\S]*?[^\\])\\\]")


_NEXTCHAT_INLINE_MATHS = re.compile(r"\\\((.*?)\\\)")


def test_nothing_of_a_document_becomes_inline_maths() -> None:
    assert _NEXTCHAT_INLINE_MATHS.search(r"see \(x\)")
    assert not _NEXTCHAT_INLINE_MATHS.search(quote_text(r"see \(x\) and \\(y\\)"))


def test_nothing_of_a_document_becomes_maths() -> None:
    assert _NEXTCHAT_MATHS.search(r"see \[x\]")
    assert not _NEXTCHAT_MATHS.search(quote_text(r"see \[x\] and \[y\]."))
    listing = footer([_source(1, "[draft] plan [2].md")], cited=[1], chinese=False)
    assert r"\[draft] plan \[2].md" in listing
    assert not _NEXTCHAT_MATHS.search(listing)


def test_quoted_text_is_defused() -> None:
    assert quote_text("```json:mcp\n$a") == "```json\n\\$a"
