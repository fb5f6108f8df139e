"""The lexical index: any text is a query, Chinese is found, deletion works."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ingest.lexical_index import LexicalIndex, segment

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


def test_segment_normalizes_width_and_case() -> None:
    assert segment("ＡＢＣ１２３ Straße！") == ["abc123", "strasse"]
