"""The chunker: nothing lost, order kept, budget respected, structure first."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.chunker import chunk
from ingest.partition.markdown_table import markdown_table
from ingest.sentences import sentence_spans
from ingest.values import ChunkDraft, Element, Place

if TYPE_CHECKING:
    from collections.abc import Sequence


def count_tokens(text: str) -> int:
    """Count as WordPiece does: one per word, mark or Chinese character, more for long words."""
    return sum(
        1 if not word.isascii() or len(word) < 6 else len(word) // 6 + 1
        for word in re.findall(r"[\u3400-\u9fff]|\w+|[^\w\s]", text)
    )


def count_many(texts: Sequence[str]) -> list[int]:
    return [count_tokens(text) for text in texts]


def squeezed(text: str) -> str:
    return "".join(text.split())


_prose = st.text(
    alphabet=st.sampled_from("abcdefg XYZ 0123 ,.!?;: 年假员工公司规定。！？；…“”（）\n"),
    min_size=1,
    max_size=400,
)
_table = st.integers(1, 30).map(
    lambda n: "| k | v |\n| --- | --- |\n" + "\n".join(f"| key{i} | value {i} |" for i in range(n))
)
_elements = st.lists(
    st.one_of(
        st.builds(Element, kind=st.just("Title"), text=_prose, level=st.integers(0, 3)),
        st.builds(Element, kind=st.sampled_from(["NarrativeText", "ListItem", "CodeSnippet"]), text=_prose),
        st.builds(Element, kind=st.just("Table"), text=_table),
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(elements=_elements, budget=st.integers(24, 120))
def test_budget_is_never_exceeded(elements: list[Element], budget: int) -> None:
    for draft in chunk(elements, count_tokens=count_many, budget=budget):
        assert count_tokens(draft.embedding_text) <= budget
        assert draft.text.strip()


@settings(max_examples=150, deadline=None)
@given(elements=_elements, budget=st.integers(24, 120))
def test_nothing_is_lost_and_order_is_kept(elements: list[Element], budget: int) -> None:
    drafts = chunk(elements, count_tokens=count_many, budget=budget)
    body = squeezed("".join(d.text[d.n_overlap :] for d in drafts))
    whole = squeezed("".join(d.text for d in drafts))
    everything = squeezed("".join(" ".join([*d.heading_path, d.text]) for d in drafts))
    place = 0
    for element in elements:
        if element.kind == "Table":
            for row in element.text.splitlines():
                assert squeezed(row) in whole
        elif element.level is not None:
            assert squeezed(element.text) in everything
        elif element.text.strip():
            found = body.find(squeezed(element.text), place)
            # Table headers repeat between, so only order is asked for, not adjacency.
            assert found >= place
            place = found + 1
    assert [d.start for d in drafts] == sorted(d.start for d in drafts)


@given(text=_prose)
def test_sentences_cover_the_text(text: str) -> None:
    spans = sentence_spans(text)
    assert "".join(text[a:b] for a, b in spans) == text
    assert all(a < b for a, b in spans)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        pytest.param("他说：“你好。”然后走了。", ["他说：“你好。”", "然后走了。"], id="closing-quote"),
        pytest.param(
            "真的吗？！当然……好；行。", ["真的吗？", "！", "当然……", "好；", "行。"], id="chinese-marks"
        ),
        pytest.param("Dr. Smith pays 3.5 euros. J. Doe does not.", 2, id="abbreviations"),
        pytest.param("See e.g. section 2. It helps.", 2, id="latin-abbreviation"),
        pytest.param("第一行\n第二行", ["第一行\n", "第二行"], id="newline"),
    ],
)
def test_sentence_ends(text: str, sentences: list[str] | int) -> None:
    found = [text[a:b] for a, b in sentence_spans(text)]
    if isinstance(sentences, int):
        assert len(found) == sentences
    elif "！" in sentences:
        assert "".join(found) == text
        assert found[-1] == "行。"
    else:
        assert found == sentences


def cut(elements: list[Element], budget: int = 60) -> list[ChunkDraft]:
    return chunk(elements, count_tokens=count_many, budget=budget)


def test_heading_path_is_kept() -> None:
    drafts = cut(
        [
            Element("Title", "Handbook", level=0),
            Element("Title", "Leave", level=1),
            Element("NarrativeText", "Everyone has fifteen days of paid leave a year. " * 4),
            Element("Title", "Travel", level=1),
            Element("NarrativeText", "Trains are preferred to planes on short distances. " * 4),
        ]
    )
    assert {d.heading_path for d in drafts} == {("Handbook", "Leave"), ("Handbook", "Travel")}
    assert drafts[0].embedding_text.startswith("Handbook > Leave\n\n")


def test_short_siblings_are_merged_under_their_parent() -> None:
    drafts = cut(
        [
            Element("Title", "Contacts", level=0),
            Element("Title", "Front desk", level=1),
            Element("NarrativeText", "Call 100."),
            Element("Title", "Fire", level=1),
            Element("NarrativeText", "Call 119."),
        ]
    )
    assert [d.heading_path for d in drafts] == [("Contacts",)]
    assert drafts[0].text == "Front desk\n\nCall 100.\n\nFire\n\nCall 119."


def test_title_above_headings_of_its_own_level_is_their_parent() -> None:
    text = "Everyone has fifteen days of paid leave a year. " * 4
    drafts = cut(
        [
            Element("Title", "Handbook", level=0),
            Element("Title", "Leave", level=0),
            Element("NarrativeText", text),
            Element("Title", "Travel", level=0),
            Element("NarrativeText", text),
        ]
    )
    assert [d.heading_path for d in drafts] == [("Handbook", "Leave"), ("Handbook", "Travel")]


def test_heading_without_a_body_joins_its_neighbour() -> None:
    drafts = cut(
        [
            Element("NarrativeText", "Before."),
            Element("Title", "Empty", level=1),
            Element("Title", "Full", level=1),
            Element("NarrativeText", "Some words."),
        ]
    )
    assert [d.text for d in drafts] == ["Before.", "Empty\n\nFull\n\nSome words."]


def test_table_header_is_repeated() -> None:
    table = "| name | phone |\n| --- | --- |\n" + "\n".join(f"| person{i} | {i}000 |" for i in range(40))
    drafts = cut([Element("Table", table)])
    assert len(drafts) > 1
    assert all(d.text.startswith("| name | phone |\n| --- | --- |\n") for d in drafts)


def test_code_that_fits_stays_whole() -> None:
    code = "def f(x):\n    return x. y\n\nprint(f(1))"
    drafts = cut(
        [Element("NarrativeText", "Long words before the code here. " * 8), Element("CodeSnippet", code)]
    )
    assert any(code in d.text for d in drafts)


@pytest.mark.parametrize(
    "text", ["x" * 5000, "字" * 5000, "word " * 2000], ids=["one-word", "chinese", "words"]
)
def test_endless_sentence_is_cut(text: str) -> None:
    drafts = cut([Element("NarrativeText", text)])
    assert squeezed("".join(d.text for d in drafts)) == squeezed(text)
    assert max(d.n_tokens for d in drafts) <= 60


def test_one_unknown_token_of_great_length_is_cut() -> None:
    drafts = chunk(
        [Element("NarrativeText", "x" * 10_000)], count_tokens=lambda texts: [1] * len(texts), budget=32
    )
    assert max(len(d.text) for d in drafts) <= 32 * 16


def test_pages_come_from_the_first_element() -> None:
    text = "A sentence that stands on its page. " * 8
    drafts = cut([Element("NarrativeText", text, page=3), Element("NarrativeText", text, page=4)])
    assert drafts[0].page == 3
    assert drafts[-1].page == 4


SENTENCES = [f"Rule {n} says that every visitor signs the book at desk {n * 7}. " for n in range(400)]


def test_last_sentences_open_the_next_chunk() -> None:
    drafts = cut([Element("NarrativeText", "".join(SENTENCES))], budget=120)
    assert len(drafts) > 10
    for before, after in itertools.pairwise(drafts):
        repeated = after.text[: after.n_overlap]
        assert repeated.startswith("Rule ")
        assert repeated.endswith(". ")
        assert before.text.endswith(repeated.strip())
        assert after.start < before.end


def test_nothing_is_repeated_across_tables_and_code() -> None:
    code = "x = 1\n" * 10
    drafts = cut([Element("NarrativeText", SENTENCES[0] * 5), Element("CodeSnippet", code)], budget=60)
    assert [d.n_overlap for d in drafts if "x = 1" in d.text] == [0] * sum("x = 1" in d.text for d in drafts)


def test_list_that_is_cut_keeps_its_lead_in() -> None:
    items = [Element("ListItem", f"a signed copy of form {n}") for n in range(30)]
    drafts = cut([Element("NarrativeText", "To apply, hand in:"), *items], budget=60)
    assert len(drafts) > 2
    assert all(d.text.startswith("To apply, hand in:\n\n") for d in drafts)
    assert all(d.text[d.n_overlap :].startswith("a signed") for d in drafts[1:])


@pytest.mark.parametrize("changed", [3, 150, 399])
@pytest.mark.parametrize("as_one", [True, False], ids=["one-paragraph", "paragraphs"])
def test_a_change_touches_few_chunks(changed: int, as_one: bool) -> None:
    after = list(SENTENCES)
    after[changed] = "This rule was struck out. "
    old, new = (
        cut(
            [Element("NarrativeText", "".join(texts))] if as_one else [Element("ListItem", t) for t in texts],
            budget=120,
        )
        for texts in (SENTENCES, after)
    )
    assert 1 <= len({d.text for d in new} - {d.text for d in old}) <= 6


def test_offsets_are_those_of_the_file_where_the_reader_tells_them() -> None:
    text = "".join(SENTENCES)
    element = Element("NarrativeText", text, start=1000, end=1000 + len(text))
    for draft in cut([element], budget=120):
        assert text[draft.start - 1000 : draft.end - 1000].strip() == draft.text


def test_tokens_of_a_batch_are_exact_near_the_limit() -> None:
    """A tokenizer may count more where sentences meet: what the embedder reads is never exceeded."""

    def grows(texts: Sequence[str]) -> list[int]:
        return [len(t.split()) + t.count(". ") * 2 * (t.count(". ") > 1) for t in texts]

    drafts = chunk([Element("NarrativeText", "".join(SENTENCES))], count_tokens=grows, budget=100)
    assert max(grows([d.embedding_text])[0] for d in drafts) <= 100


def test_parts_of_a_table_tell_their_own_rows() -> None:
    rows = [["name", "days"], *([f"person {n} of the office", str(n)] for n in range(200))]
    numbers = tuple(range(5, 206))
    table = Element("Table", markdown_table(rows), page=1, place=Place("row", 5, 205, numbers))
    drafts = chunk([table], count_tokens=count_many, budget=100)
    assert len(drafts) > 5
    for draft in drafts:
        said = [int(line.split("|")[2]) for line in draft.text.split("\n")[2:] if line]
        assert draft.place is not None
        assert (draft.place.first, draft.place.last) == (said[0] + 6, said[-1] + 6)
