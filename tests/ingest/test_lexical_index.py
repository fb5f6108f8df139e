"""The lexical index: any text is a query, Chinese is found, deletion works."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ingest.lexical_index import LexicalIndex

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def index(tmp_path: Path) -> Iterator[LexicalIndex]:
    index = LexicalIndex.open(tmp_path)
    index.add([(1, 1, "每位员工每年享有十五天带薪年假"), (2, 1, "Trains and planes"), (3, 2, "年假 trains")])
    index.commit()
    yield index
    index.close()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param('"', set(), id="quote"),
        pytest.param("AND OR NOT", set(), id="operators"),
        pytest.param("train OR (plane", {2, 3}, id="endings"),
        pytest.param("title:(", set(), id="field"),
        pytest.param("a" * 100_000, set(), id="long"),
        pytest.param("\x00\ud800", set(), id="surrogate"),
        pytest.param("*:*", set(), id="star"),
        pytest.param("😀", set(), id="emoji"),
        pytest.param("", set(), id="empty"),
        pytest.param("[1 TO 9]", set(), id="range"),
        pytest.param("年假 NOT (", {1, 3}, id="chinese"),
    ],
)
def test_any_text_is_a_query(index: LexicalIndex, query: str, expected: set[int]) -> None:
    hits = index.search(query, limit=5, collection_ids=None)
    assert {hit.chunk_id for hit in hits} == expected


def test_best_match_comes_first(index: LexicalIndex) -> None:
    hits = index.search("trains planes", limit=5, collection_ids=None)
    assert [hit.chunk_id for hit in hits] == [2, 3]
    assert hits[0].score > hits[1].score > 0


@pytest.mark.parametrize(
    ("query", "best"),
    [
        pytest.param("价钱是多少？", 4, id="another chinese word"),
        pytest.param("elevator", 5, id="another english word"),
        pytest.param("kx300", 6, id="identifier closed up"),
        pytest.param("KX 300", 6, id="identifier in parts"),
    ],
)
def test_other_names_find_the_same(index: LexicalIndex, query: str, best: int) -> None:
    index.add([(4, 1, "单价为三元"), (5, 1, "The lift is out of order"), (6, 1, "KX-300: rinse it")])
    index.commit()
    assert [hit.chunk_id for hit in index.search(query, limit=1, collection_ids=None)] == [best]


def test_own_word_comes_before_another_for_it(index: LexicalIndex) -> None:
    index.add([(4, 1, "The lift is red"), (5, 1, "The elevator is red")])
    index.commit()
    assert [hit.chunk_id for hit in index.search("red elevator", limit=2, collection_ids=None)] == [5, 4]


def test_evidence_compares_between_questions(index: LexicalIndex) -> None:
    """A question answered whole says more than one of which a chunk has a single word."""
    (whole, *_) = index.search("trains and planes", limit=1, collection_ids=None)
    (part, *_) = index.search("who drives trains to the northern harbour", limit=1, collection_ids=None)
    assert whole.score > 2 * part.score > 0


def test_collections_filter(index: LexicalIndex) -> None:
    assert [h.chunk_id for h in index.search("trains", limit=5, collection_ids=[2])] == [3]
    assert index.search("trains", limit=5, collection_ids=[]) == []


def test_delete_and_replace(index: LexicalIndex) -> None:
    index.delete([1, 99])
    index.add([(2, 1, "bicycles")])
    index.commit()
    assert index.count() == 2
    assert not index.contains(1)
    assert [h.chunk_id for h in index.search("planes bicycles", limit=5, collection_ids=None)] == [2]


def test_score_is_the_share_of_what_the_query_asks(index: LexicalIndex) -> None:
    (whole,) = index.search("planes", limit=5, collection_ids=None)
    (half,) = index.search("planes zeppelins", limit=5, collection_ids=None)
    assert 0 < half.score < whole.score <= 1


@pytest.mark.parametrize(
    ("text", "query"),
    [
        pytest.param("第十五条 员工享有年假", "第15条规定了什么？", id="article"),
        pytest.param("第 3 章 附则", "第三章", id="chapter"),
        pytest.param("合同期限为三十天", "30天的合同", id="count"),
        pytest.param("自二〇二四年起施行", "2024 年", id="year"),
        pytest.param("fn getUserName() {}", "user name", id="humps"),
        pytest.param("Rechnung INV-2024-0031", "inv-2024-0031", id="identifier"),
        pytest.param("the supplier's address", "supplier", id="possessive"),
    ],
)
def test_other_ways_to_write_it_are_found(tmp_path: Path, text: str, query: str) -> None:
    index = LexicalIndex.open(tmp_path / "other")
    index.add([(1, 1, text), (2, 1, "第九十九条 年份 1999 contract")])
    index.commit()
    assert [hit.chunk_id for hit in index.search(query, limit=1, collection_ids=None)] == [1]
    index.close()
