"""Citations: what streams out, what is listed, what is stripped."""

import re

import pytest

from rag.citations import CitationFilter, Source, annotations, footer, quote_text, strip_own_marks
from rag.retriever import Passage


def _source(number: int, path: str = "a.md", page: int | None = None) -> Source:
    passage = Passage((number,), number, path, path, "default", ("Top", "Sub"), page, "text", 0.1, 0.5)
    return Source(number, passage, "text")


def _stream(text: str, n_sources: int, step: int) -> tuple[str, list[int]]:
    marks = CitationFilter(n_sources)
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


def test_nothing_of_a_document_becomes_maths() -> None:
    assert _NEXTCHAT_MATHS.search(r"see \[x\]")
    assert not _NEXTCHAT_MATHS.search(quote_text(r"see \[x\] and \[y\]."))
    listing = footer([_source(1, "[draft] plan [2].md")], cited=[1], chinese=False)
    assert r"\[draft] plan \[2].md" in listing
    assert not _NEXTCHAT_MATHS.search(listing)


def test_quoted_text_is_defused() -> None:
    assert quote_text("```json:mcp\n$a") == "```json\n\\$a"
