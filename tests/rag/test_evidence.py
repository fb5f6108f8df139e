"""What a close reading finds in passages, and what it proves."""

from dataclasses import replace
from typing import Any

import pytest

from rag.evidence import MOST_SENTENCES, Reading, cut_to_read, nearest_sentence, shared_information
from rag.relevance import UNKNOWN, Nearness
from rag.retriever import Retriever

KNOWN = Nearness(unrelated=0.1, related=0.5, floor=0.3, trust=1.0)


def test_sentence_counts_that_is_nearest(engine: Any) -> None:
    embedder = engine.embedder
    (question,) = embedder.embed(["vacation days per year"], kind="query")
    blurred = "Boats lie in hall two. The stove is hot. You get thirty vacation days per year. Dogs bark."
    (whole,) = embedder.embed([blurred], kind="document")
    found = nearest_sentence(question, [blurred, "Nothing here."], embedder)
    assert found > float(whole @ question) + 0.2
    assert nearest_sentence(question, [], embedder) == 0.0


def test_reading_has_an_end(engine: Any) -> None:
    (question,) = engine.embedder.embed(["vacation days"], kind="query")
    text = "Boats lie in the hall. " * MOST_SENTENCES + "Vacation days."
    assert nearest_sentence(question, [text], engine.embedder) < 0.9


def test_sentence_is_cut_to_what_the_embedder_reads(engine: Any) -> None:
    embedder = engine.embedder
    cut = cut_to_read("word " * 500, embedder)
    assert 0 < embedder.count_tokens(cut) <= embedder.max_tokens - 2
    assert cut_to_read("short", embedder) == "short"


def test_information_is_of_the_text_that_shares_the_most() -> None:
    asked = "小狗要打哪些疫苗？"
    little, much = (
        shared_information(asked, ["小区要打扫。"]),
        shared_information(asked, ["小狗须接种疫苗。"]),
    )
    assert 0 < little < much
    assert shared_information(asked, ["小区要打扫。", "小狗须接种疫苗。"]) == much
    assert shared_information(asked, []) == 0.0


def test_another_name_counts_almost_as_much() -> None:
    asked = "怎样辞职？"
    assert (
        0
        < shared_information(asked, ["员工离职须提前通知。"])
        < shared_information(asked, ["员工辞职须提前通知。"])
    )


@pytest.mark.parametrize(
    ("reading", "nearness", "proven"),
    [
        pytest.param(Reading(0.2, 0.45, None), KNOWN, True, id="a near sentence"),
        pytest.param(Reading(0.2, 0.3, None), KNOWN, False, id="no sentence is near"),
        pytest.param(Reading(0.8, 0.3, None), KNOWN, True, id="words make up for it"),
        pytest.param(Reading(0.5, 0.0, 20.0), UNKNOWN, True, id="rare words, no embedder"),
        pytest.param(Reading(0.5, 0.0, 2.0), UNKNOWN, False, id="common words"),
        pytest.param(Reading(0.3, 0.0, None), UNKNOWN, True, id="no embedder, not Chinese"),
        pytest.param(Reading(0.2, 0.0, None), UNKNOWN, False, id="hardly a word"),
    ],
)
def test_what_a_reading_proves(reading: Reading, nearness: Nearness, proven: bool) -> None:
    assert nearness.proves(reading) is proven


def test_only_what_is_unclear_is_read() -> None:
    assert (KNOWN.seems(0.3), KNOWN.seems(0.8), KNOWN.seems(1.2)) == (False, None, True)
    by_words = replace(KNOWN, trust=0.0)
    assert (by_words.seems(0.1), by_words.seems(0.5), by_words.seems(0.9)) == (False, None, True)


def test_chinese_question_that_shares_common_words_only_finds_nothing(library: Any) -> None:
    library.put("养犬.txt", "养犬人应当到社区服务站申请办理登记。携犬外出应当使用牵引绳。")
    retriever = Retriever(embedder=None, library=library)
    assert [p.path for p in retriever.search("养犬登记在哪里办理？")] == ["养犬.txt"]
    assert retriever.search("怎样申请专利？") == []
