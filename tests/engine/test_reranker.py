"""Rerankers through the engine: pairs put together, long passages cut, and models asked what is known."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import numpy as np
import pytest

from engine import _native as native
from engine.convert import convert
from engine.embedding_prompts import Prompts, find_prompts
from engine.engine import Engine
from engine.errors import ContextTooLong, EngineClosed, UnsupportedModel
from engine.generation import GenerationParams
from engine.model_checks import ModelChecks
from engine.reranker import sigmoid, windows
from engine.tokenizer import load_tokenizer

TINY = Path(__file__).parents[1] / "data" / "tiny"
QUERY = "what is a cat?"
PASSAGES = ["a cat is a pet.", "stones are hard.", ""]


@pytest.fixture(scope="module")
def rank_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rank") / "bert-rank.gguf"
    convert(TINY / "bert-rank", path, tensor_type="F32")
    return path


@pytest.fixture
def engine(rank_gguf: Path) -> Iterator[Engine]:
    """A reranker alone, of random weights, which reads 128 tokens."""
    engine = Engine.open(
        chat_model=None, embedding_model=None, rerank_model=rank_gguf, threads=2, check_models=False
    )
    yield engine
    engine.close()


def test_scores_are_those_of_the_pairs(engine: Engine, rank_gguf: Path) -> None:
    assert engine.reranker is not None
    file = native.GgufFile(str(rank_gguf))
    tokenizer, encoder = load_tokenizer(file), native.Encoder(file, native.ThreadPool(1))
    expected = []
    for passage in PASSAGES:
        cls, sep = tokenizer.encode("")
        asked = tokenizer.encode(QUERY, add_special=False)
        ids = [cls, *asked, sep, *tokenizer.encode(passage, add_special=False), sep]
        expected.append(encoder.score([(np.array(ids, np.int32), len(asked) + 2)])[0, 0])
    scores = engine.reranker.rerank(QUERY, PASSAGES)
    np.testing.assert_allclose(scores, sigmoid(np.array(expected, np.float32)), atol=1e-6)
    assert engine.reranker.rerank(QUERY, []).shape == (0,)


def test_a_long_passage_counts_as_its_best_part(engine: Engine) -> None:
    assert engine.reranker is not None
    n_room = engine.reranker.max_tokens - 3 - 11  # special tokens, letters and mark of the question
    long = " ".join("abcdefghij"[i % 10] for i in range(3 * n_room))
    parts = [" ".join(part) for part in windows(list(long.replace(" ", "")), n_room)]
    (whole,) = engine.reranker.rerank(QUERY, [long])
    np.testing.assert_allclose(whole, engine.reranker.rerank(QUERY, parts).max(), atol=1e-6)


def test_a_question_without_room_for_a_passage_is_refused(engine: Engine) -> None:
    assert engine.reranker is not None
    with pytest.raises(ContextTooLong, match=r"the question has 120 tokens; the reranker reads at most 94"):
        engine.reranker.rerank("a " * 120, ["b"])


@pytest.mark.parametrize(
    ("n", "room", "expected"),
    [
        pytest.param(5, 8, [(0, 5)], id="whole"),
        pytest.param(20, 8, [(0, 8), (7, 15), (12, 20)], id="overlapping"),
        pytest.param(16, 8, [(0, 8), (7, 15), (8, 16)], id="last-is-full"),
    ],
)
def test_windows(n: int, room: int, expected: list[tuple[int, int]]) -> None:
    assert windows(list(range(n)), room) == [list(range(a, b)) for a, b in expected]


def test_closing_ends_a_ranking(rank_gguf: Path) -> None:
    engine = Engine.open(
        chat_model=None, embedding_model=None, rerank_model=rank_gguf, threads=1, check_models=False
    )
    assert engine.reranker is not None
    with ThreadPoolExecutor(1) as threads:
        ranking = threads.submit(engine.reranker.rerank, QUERY, ["a b c d e f g h " * 6] * 5000)
        while engine.status().scheduler.n_embedding == 0:
            assert not ranking.done()
        engine.close()
        with pytest.raises(EngineClosed):
            ranking.result(60)


def test_a_decoder_embeds_texts_with_their_end(tiny_models: Path) -> None:
    path = tiny_models / "decoder-qwen3-last.gguf"
    engine = Engine.open(
        chat_model=None, embedding_model=path, threads=1, query_prefix="ask: ", check_models=False
    )
    try:
        assert engine.embedder is not None
        (found,) = engine.embedder.embed(["yes"], kind="query")
    finally:
        engine.close()
    file = native.GgufFile(str(path))
    tokenizer = load_tokenizer(file)
    ids = [*tokenizer.encode("ask: yes"), tokenizer.encode("<|endoftext|>", parse_special=True)[0]]
    (expected,) = native.CausalEncoder(file, native.ThreadPool(1)).encode([np.array(ids, np.int32)])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert engine.embedder.fingerprint.pooling == "last"


def test_a_decoder_ranks(tiny_models: Path) -> None:
    golden = np.load(TINY / "decoder-qwen3-judge" / "golden.npz")["judged"]
    engine = Engine.open(
        chat_model=None,
        embedding_model=None,
        rerank_model=tiny_models / "decoder-qwen3-judge.gguf",
        threads=1,
        check_models=False,
    )
    try:
        assert engine.reranker is not None
        scores = engine.reranker.rerank("What is a cat?", ["A cat is a small animal."])
    finally:
        engine.close()
    np.testing.assert_allclose(scores, golden[:1], atol=1e-3)


def test_an_unknown_architecture_is_named_with_what_is_known(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "mamba.gguf", "mamba")
    writer.add_block_count(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(
        UnsupportedModel, match=r"'mamba' is not supported for embeddings; supported are bert, .*qwen3"
    ):
        Engine.open(chat_model=None, embedding_model=tmp_path / "mamba.gguf", threads=1)


def test_a_ranking_does_not_stop_an_answer(starter_chat_gguf: Path, rank_gguf: Path) -> None:
    engine = Engine.open(
        chat_model=starter_chat_gguf,
        embedding_model=None,
        rerank_model=rank_gguf,
        threads=2,
        cache_tokens=1024,
        check_models=False,
    )
    try:
        assert engine.chat is not None
        assert engine.reranker is not None
        params = GenerationParams(temperature=0, max_tokens=200, logit_bias=dict.fromkeys(range(3), -1e5))
        stream = iter(engine.chat.generate([5, 6, 7], params))
        next(stream)
        with ThreadPoolExecutor(1) as threads:
            ranking = threads.submit(engine.reranker.rerank, QUERY, ["a b c d e f g h " * 6] * 400)
            while engine.status().scheduler.n_embedding == 0:
                next(stream)
            n_meanwhile = 0
            while not ranking.done():
                next(stream)
                n_meanwhile += 1
            assert ranking.result().shape == (400,)
        assert n_meanwhile > 5
    finally:
        engine.close()


def test_an_embedder_is_no_reranker(starter_embedding_gguf: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"MiniLM-L6-v2-F16.gguf: the model is no reranker"):
        Engine.open(chat_model=None, embedding_model=None, rerank_model=starter_embedding_gguf, threads=1)


def test_a_reranker_is_no_embedder(rank_gguf: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"bert-rank.gguf: the model ranks pairs of texts: set it as"):
        Engine.open(chat_model=None, embedding_model=rank_gguf, threads=1)


def test_random_models_are_refused_by_what_they_do_not_know(
    rank_gguf: Path, tiny_models: Path, tmp_path: Path
) -> None:
    bert = tiny_models / "bert-mean.gguf"
    with pytest.raises(
        UnsupportedModel, match=r"bert-mean.gguf: .* near their answers: \d of 8 in English, "
    ):
        Engine.open(chat_model=None, embedding_model=bert, threads=1, checks_dir=tmp_path)
    with pytest.raises(UnsupportedModel, match=r"ranks too few answers over unrelated sentences: \d of 5 in"):
        Engine.open(
            chat_model=None, embedding_model=None, rerank_model=rank_gguf, threads=1, checks_dir=tmp_path
        )
    assert list(tmp_path.iterdir()) == []


def test_a_good_model_is_asked_once(starter_embedding_gguf: Path, tmp_path: Path) -> None:
    engine = Engine.open(
        chat_model=None, embedding_model=starter_embedding_gguf, threads=2, checks_dir=tmp_path / "new"
    )
    engine.close()
    assert engine.embedder is not None
    assert ModelChecks(tmp_path / "new").has_passed(engine.embedder.fingerprint)
    assert not ModelChecks(tmp_path).has_passed(engine.embedder.fingerprint)


def test_checks_that_cannot_be_read_or_kept_are_made_again(tmp_path: Path) -> None:
    (tmp_path / "checked_models.json").write_text("{")
    checks = ModelChecks(tmp_path)
    checks.keep("a")
    assert ModelChecks(tmp_path).has_passed("a")
    blocked = ModelChecks(tmp_path / "checked_models.json")  # a file where a folder should be
    blocked.keep("b")
    assert blocked.has_passed("b")


@pytest.mark.parametrize(
    ("file", "name", "expected"),
    [
        pytest.param({}, "multilingual-e5-small-f16", Prompts("query: ", "passage: "), id="e5"),
        pytest.param({}, "bge-m3-Q8_0", Prompts(), id="bge-m3"),
        pytest.param(
            {"general.name": "Bge Small Zh V1.5"},
            "model",
            Prompts("为这个句子生成表示以用于检索相关文章："),
            id="bge-zh",
        ),
        pytest.param(
            {}, "nomic-embed-text-v1.5.Q8_0", Prompts("search_query: ", "search_document: "), id="nomic"
        ),
        pytest.param({}, "all-MiniLM-L6-v2-F16", Prompts(), id="minilm"),
        pytest.param(
            {"quarry.embedding.query_prefix": "q: "}, "multilingual-e5-small", Prompts("q: "), id="file-first"
        ),
    ],
)
def test_prompts_come_from_the_file_or_the_name(
    file: dict[str, object], name: str, expected: Prompts
) -> None:
    assert find_prompts(file, name) == expected


def test_qwen3_embedding_has_its_instruction() -> None:
    prompts = find_prompts({}, "Qwen3-Embedding-0.6B-Q8_0")
    assert prompts.query.startswith("Instruct: Given a web search query")
    assert prompts.query.endswith("\nQuery:")
