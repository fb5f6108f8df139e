"""Encoders and rerankers against `transformers` (tests/golden/make_tiny_encoders.py)."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from engine import _native as native
from engine.convert import convert
from engine.encoder_files import open_scorer
from engine.errors import ContextTooLong
from tests.engine.test_convert import header_names, read_bf16

TINY = Path(__file__).parents[1] / "data" / "tiny"
EMBEDDERS = [
    "xlm-roberta-cls",
    "nomic-bert-mean",
    "jina-bert-mean",
    "jina-bert-code-mean",
    "modern-bert-cls",
]
RERANKERS = ["xlm-roberta-rank", "bert-rank", "modern-bert-cls-rank", "modern-bert-mean-rank"]
JUDGED = [("What is a cat?", "A cat is a small animal."), ("猫是什么?", " Stones, \n\nand more")]
SECOND = 13
"""Where the passage of a golden pair begins."""


def test_vectors_of_a_tiny_decoder(tmp_path: Path) -> None:
    golden = np.load(TINY / "decoder-qwen3-last" / "golden.npz")
    convert(TINY / "decoder-qwen3-last", tmp_path / "model.gguf", tensor_type="F32")
    encoder = native.CausalEncoder(native.GgufFile(str(tmp_path / "model.gguf")), native.ThreadPool(2))
    assert encoder.pooling == "last"
    ids = golden["token_ids"][0]
    vectors = encoder.encode([ids[:7], ids, ids[:3]])
    assert float(vectors[1] @ golden["vector"]) >= 0.9999
    np.testing.assert_allclose(vectors[[0, 2]], encoder.encode([ids[:7], ids[:3]]), atol=1e-5)
    with pytest.raises(ValueError, match="sequence 1 has no tokens"):
        encoder.encode([ids, ids[:0]])


def test_a_folder_of_a_bare_decoder_is_converted(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(TINY / "decoder-qwen3-last", tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    changes = {"architectures": ["Qwen3Model"], "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config | changes))
    names = header_names(folder)
    values = {n.removeprefix("model."): read_bf16(folder / "model.safetensors", n) for n in names}
    save_file(values, folder / "model.safetensors")
    golden = np.load(folder / "golden.npz")
    convert(folder, tmp_path / "model.gguf", tensor_type="F32")
    encoder = native.CausalEncoder(native.GgufFile(str(tmp_path / "model.gguf")), native.ThreadPool(1))
    (vector,) = encoder.encode(list(golden["token_ids"]))
    assert float(vector @ golden["vector"]) >= 0.9999


def test_a_tiny_decoder_judges(tmp_path: Path) -> None:
    golden = np.load(TINY / "decoder-qwen3-judge" / "golden.npz")
    convert(TINY / "decoder-qwen3-judge", tmp_path / "model.gguf", tensor_type="F32")
    judge = open_scorer(native.GgufFile(str(tmp_path / "model.gguf")), native.ThreadPool(2))
    pairs = [pair for query, passage in JUDGED for pair in judge.pairs(query, passage)]
    np.testing.assert_allclose(judge.score(pairs), golden["judged"], atol=1e-3)


def test_a_judge_reads_long_passages_in_parts(tmp_path: Path) -> None:
    convert(TINY / "decoder-qwen3-judge", tmp_path / "model.gguf", tensor_type="F32")
    judge = open_scorer(native.GgufFile(str(tmp_path / "model.gguf")), native.ThreadPool(2))
    pairs = judge.pairs("what?", "word " * 500)
    assert len(pairs) > 1
    assert all(len(pair.token_ids) <= judge.max_tokens for pair in pairs)
    with pytest.raises(ContextTooLong, match="the reranker reads at most"):
        judge.pairs("what? " * 500, "word")


def open_encoder(name: str, tmp_path: Path) -> native.Encoder:
    convert(TINY / name, tmp_path / "model.gguf", tensor_type="F32")
    return native.Encoder(native.GgufFile(str(tmp_path / "model.gguf")), native.ThreadPool(2))


@pytest.mark.parametrize("name", EMBEDDERS)
def test_vectors_of_tiny_encoders(name: str, tmp_path: Path) -> None:
    golden = np.load(TINY / name / "golden.npz")
    encoder = open_encoder(name, tmp_path)
    assert encoder.pooling == name.rpartition("-")[2]
    (vector,) = encoder.encode(list(golden["token_ids"]), normalize=True)
    assert float(vector @ golden["vector"]) >= 0.9999


@pytest.mark.parametrize("name", EMBEDDERS)
def test_vectors_do_not_tell_who_computed_them(name: str, tmp_path: Path) -> None:
    """Threads run passes of their own, and what is left over together."""
    ids = np.load(TINY / name / "golden.npz")["token_ids"][0]
    batch = [np.resize(ids, 1 + i * 11 % 60) for i in range(41)]
    convert(TINY / name, tmp_path / "model.gguf", tensor_type="F16")
    file = native.GgufFile(str(tmp_path / "model.gguf"))
    one, two, three = (native.Encoder(file, native.ThreadPool(n)) for n in (1, 2, 3))
    vectors = two.encode(batch)
    assert np.array_equal(vectors, one.encode(batch))
    assert np.array_equal(vectors, three.encode(batch))
    assert np.array_equal(vectors, np.concatenate([two.encode([row]) for row in batch]))


@pytest.mark.parametrize("name", RERANKERS)
def test_scores_of_tiny_rerankers(name: str, tmp_path: Path) -> None:
    golden = np.load(TINY / name / "golden.npz")
    encoder = open_encoder(name, tmp_path)
    scores = encoder.score([(ids, SECOND) for ids in golden["token_ids"]])[:, 0]
    np.testing.assert_allclose(scores, golden["scores"], atol=1e-3)
    with pytest.raises(ValueError, match="ranks pairs of texts"):
        encoder.encode(list(golden["token_ids"]))


def test_the_second_text_is_told_from_the_first(tmp_path: Path) -> None:
    ids = np.load(TINY / "bert-rank" / "golden.npz")["token_ids"][0]
    encoder = open_encoder("bert-rank", tmp_path)
    (told,), (untold,) = encoder.score([(ids, SECOND)]), encoder.score([(ids, len(ids))])
    assert abs(told[0] - untold[0]) > 1e-2


def test_vectors_come_from_a_model_without_a_head(tmp_path: Path) -> None:
    encoder = open_encoder("xlm-roberta-cls", tmp_path)
    assert encoder.n_scores == 0
    with pytest.raises(ValueError, match=r"no head that scores: tensor 'cls.output.weight' is missing"):
        encoder.score([(np.array([1, 2], np.int32), 1)])


def test_experts_agree_with_llama_cpp() -> None:
    folder = TINY.parent / "nomic-bert-moe"
    golden = np.load(folder / "golden.npz")
    encoder = native.Encoder(native.GgufFile(str(folder / "model.gguf")), native.ThreadPool(2))
    (vector,) = encoder.encode([golden["token_ids"]])
    assert float(vector @ golden["vector"]) >= 0.9999
