"""Fusion, the relevance floor, merging, and the words behind them."""

from dataclasses import replace
from typing import Any

import pytest

from engine.chat_model import GenerationParams
from engine.errors import ContextTooLong
from rag.errors import InvalidRequest
from rag.language import coverage, is_chinese, sentences, terms
from rag.models import slug
from rag.prompt import pack
from rag.prompt_files import load_prompts
from rag.query import read_conversation
from rag.relevance import UNKNOWN, Nearness, calibrate
from rag.retriever import Retriever, fuse
from rag.token_ids import TokenTable, find_table

KNOWN = Nearness(unrelated=0.1, related=0.5, floor=0.3, trust=1.0)
"""An embedder whose cosines are 0.1 for texts that have nothing in common, and 0.5 for an answer."""


def test_fusion_adds_what_both_sides_say() -> None:
    fused = fuse({1: 0.5, 2: 0.3}, {2: 0.8, 3: 0.4}, KNOWN)
    assert [chunk_id for chunk_id, _ in fused] == [2, 1, 3]
    assert dict(fused) == pytest.approx({1: 1.0, 2: 0.5 + 0.8, 3: 0.4})


def test_embedder_that_does_not_know_the_language_is_not_asked() -> None:
    unknown = replace(KNOWN, trust=0.0)
    assert fuse({1: 0.9}, {2: 0.2}, unknown)[0] == (2, 0.2)
    assert unknown.least() == UNKNOWN.least()


@pytest.mark.parametrize(
    ("cosine", "evidence", "relevant"),
    [
        pytest.param(0.45, 0.0, True, id="near"),
        pytest.param(0.3, 0.1, False, id="at the floor with hardly a word"),
        pytest.param(0.28, 0.45, True, id="almost near, with words"),
        pytest.param(0.1, 0.45, False, id="words of something else"),
        pytest.param(0.1, 0.9, True, id="all of its words"),
    ],
)
def test_relevance_weighs_nearness_and_words(cosine: float, evidence: float, relevant: bool) -> None:
    assert (KNOWN.score(cosine, evidence) >= KNOWN.least()) is relevant


@pytest.mark.parametrize(
    ("question", "trust"),
    [
        pytest.param("How long does the battery last?", 1.0, id="words"),
        pytest.param("KX-300", 0.0, id="an identifier"),
        pytest.param("SENSOR_SILENT", 0.0, id="a constant"),
        pytest.param("E07是什么？", 0.0, id="chinese"),
        pytest.param("What happened in 2024?", 1.0, id="a year"),
        pytest.param("Is the KX-300 loud?", 0.4, id="both"),
    ],
)
def test_embedder_is_not_asked_about_identifiers(question: str, trust: float) -> None:
    assert KNOWN.for_question(question).trust == pytest.approx(trust)


def test_cosine_is_placed_between_unrelated_and_related() -> None:
    assert [KNOWN.of(cosine) for cosine in (0.0, 0.1, 0.3, 0.5, 1.0)] == pytest.approx([0, 0, 0.5, 1, 1.5])


@pytest.fixture
def retriever(engine: Any, library: Any) -> Retriever:
    return Retriever(embedder=engine.embedder, library=library)


def test_neighbours_are_one_passage(retriever: Retriever, library: Any) -> None:
    library.put(
        "z.txt", "The zeppelin flies.", "A zeppelin lands.", "Nothing of interest.", "The zeppelin rests."
    )
    passages = retriever.search("zeppelin")
    assert sorted(passage.text for passage in passages) == [
        "The zeppelin flies.\n\nA zeppelin lands.",
        "The zeppelin rests.",
    ]


def test_what_is_not_near_is_left_out(retriever: Retriever) -> None:
    assert [passage.path for passage in retriever.search("vacation days")] == ["handbook.md"]
    assert retriever.search("submarine periscope") == []
    assert retriever.search("   ") == []


def test_collections_limit_the_search(retriever: Retriever) -> None:
    assert retriever.search("vacation days", collections=frozenset({"hr"})) == []
    assert retriever.is_empty(frozenset({"nowhere"}))
    assert not retriever.is_empty()


def test_chunk_that_went_meanwhile_is_left_out(retriever: Retriever, library: Any) -> None:
    search = library.search_lexical

    def search_and_lose(*args: Any, **kwargs: Any) -> Any:
        hits = search(*args, **kwargs)
        library.delete("handbook.md")
        return hits

    library.search_lexical = search_and_lose
    assert retriever.search("vacation days") == []


def test_question_longer_than_the_embedder_reads_keeps_its_end(retriever: Retriever) -> None:
    assert [p.path for p in retriever.search("hm " * 500 + "vacation days")] == ["handbook.md"]


def test_library_without_embedder_is_searched_by_words(library: Any) -> None:
    retriever = Retriever(embedder=None, library=library)
    assert [passage.path for passage in retriever.search("carry over vacation days")] == ["handbook.md"]


def test_floor_lies_between_unrelated_and_related(engine: Any) -> None:
    english = calibrate(engine.embedder).english
    near, far = engine.embedder.embed(["battery lasts nine hours", "the bridge was built"], kind="document")
    (question,) = engine.embedder.embed(["how many hours does the battery last"], kind="query")
    assert float(question @ far) < english.floor < float(question @ near)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("How do I install the drivers?", ["install", "driver"], id="english"),
        pytest.param("installed drivers", ["install", "driver"], id="other forms"),
        pytest.param("error E-4711 in v2.3", ["error", "e-4711", "v2.3"], id="identifiers"),
        pytest.param("what is it", [], id="stop words only"),
        pytest.param("ＵＲＬ　地址", ["url", "地址"], id="full width"),
    ],
)
def test_terms(text: str, found: list[str]) -> None:
    assert terms(text) == found


def test_coverage_of_chinese_does_not_hang_on_word_borders() -> None:
    assert coverage(terms("年假天数"), "员工年假的天数为二十五天") > 0.9


@pytest.mark.parametrize(
    ("text", "chinese"),
    [
        pytest.param("怎么连接 ChatGPT-Next-Web？", True, id="chinese with a name"),
        pytest.param("What does 年假 mean in this contract?", False, id="english with a word"),
        pytest.param("この文書は何ですか", False, id="japanese"),
        pytest.param("hello", False, id="english"),
    ],
)
def test_language_of_the_question(text: str, chinese: bool) -> None:
    assert is_chinese(text) is chinese


def test_sentences_of_both_languages() -> None:
    assert sentences("Version 2.3 is out. “Good!” 第一句。第二句！\nNext") == [
        "Version 2.3 is out.", "“Good!”", "第一句。", "第二句！", "Next",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("collection", "name"),
    [
        pytest.param("hr", "hr", id="plain"),
        pytest.param("HR", "hr-", id="other case is another name"),
        pytest.param("人事", "", id="chinese"),
        pytest.param("vision", "", id="name that misleads clients"),
    ],
)
def test_slugs_are_stable_and_plain(collection: str, name: str) -> None:
    found = slug(collection)
    assert found.startswith(name)
    assert found == slug(collection)
    assert (found == collection) is (name == collection)
    assert not set(found) - set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_history_makes_way_for_passages_and_the_question_stays(engine: Any, retriever: Retriever) -> None:
    talk = [{"role": "user", "content": "old " * 200}, {"role": "assistant", "content": "older " * 200}]
    conversation = read_conversation(
        [*talk, {"role": "user", "content": "How many vacation days carry over?"}]
    )
    passages = retriever.search("vacation days")
    prompt = pack(
        conversation, passages, chat=engine.chat, context_tokens=200, room=400, prompts=load_prompts()
    )
    engine.chat.generate(prompt.token_ids, GenerationParams(temperature=0))
    assert len(prompt.token_ids) <= 400
    assert "five vacation days" in engine.chat.prompts[-1]
    assert "older" not in engine.chat.prompts[-1]
    with pytest.raises(ContextTooLong, match="has room for 20"):
        pack(conversation, passages, chat=engine.chat, context_tokens=200, room=20, prompts=load_prompts())


def test_token_ids_are_read_only_with_the_real_table(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    assert find_table(tmp_path) is None
    (tmp_path / "cl100k_base.tiktoken").write_text("YQ== 0\n")
    assert find_table(tmp_path) is None  # another table would decode to other words
    table = TokenTable({0: b"\xe5\xb9", 1: b"\xb4"})
    assert table.decode([0, 1]) == "年"
    with pytest.raises(InvalidRequest, match="7 is no token"):
        table.decode([7])
