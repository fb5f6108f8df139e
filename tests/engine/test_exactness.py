"""The engine's numbers against those of `transformers` (tests/golden/make_tiny_models.py, make_minilm.py)."""

import json
from pathlib import Path

import numpy as np
import pytest

from engine import _native as native
from engine.convert import TensorType, convert
from engine.tokenizer import load_tokenizer

DATA = Path(__file__).parents[1] / "data"
TINY = DATA / "tiny"
CAUSAL = sorted(p.name for p in TINY.iterdir() if p.is_dir() and "logits" in np.load(p / "golden.npz"))


def logits_error(name: str, tmp_path: Path) -> float:
    """Convert a tiny model and return the worst logit error, relative to the largest logit."""
    convert(TINY / name, tmp_path / "model.gguf", tensor_type="F32")
    golden = np.load(TINY / name / "golden.npz")
    decoder = native.Decoder(
        native.GgufFile(str(tmp_path / "model.gguf")), native.ThreadPool(2), cache_tokens=64
    )
    logits = decoder.logits(golden["token_ids"])[-len(golden["logits"]) :]
    return float(np.abs(logits - golden["logits"]).max() / np.abs(golden["logits"]).max())


@pytest.mark.parametrize("name", CAUSAL)
def test_logits_of_tiny_models(name: str, tmp_path: Path) -> None:
    assert logits_error(name, tmp_path) <= 1e-3


@pytest.mark.parametrize("name", CAUSAL)
def test_tiny_models_fed_in_slices(name: str, tmp_path: Path) -> None:
    """What is drawn after slices and single tokens is what the logits of one pass say, for two at once."""
    convert(TINY / name, tmp_path / "model.gguf", tensor_type="F32")
    ids = np.load(TINY / name / "golden.npz")["token_ids"]
    file = native.GgufFile(str(tmp_path / "model.gguf"))
    decoder = native.Decoder(file, native.ThreadPool(2), cache_tokens=160)
    best = decoder.logits(ids).argmax(axis=1)
    greedy = native.SamplingParams(temperature=0.0)
    first, second = decoder.new_sequence(greedy), decoder.new_sequence(greedy)
    # Of each: where its slices end.
    for ends in ((7, 8), (8, 20), (9, 21), (30, 22), (31, 40)):
        batch = []
        for sequence, end in zip((first, second), ends, strict=True):
            batch.append((sequence, ids[sequence.n_cached : end], 1))
        drawn = decoder.step(batch)
        assert [tokens[0].id for tokens in drawn] == [best[end - 1] for end in ends]
    first.release()
    (again,) = decoder.step([(first, ids[:31], 1)])
    assert again[0].id == best[30]


@pytest.mark.parametrize("name", ["bert-mean", "bert-cls"])
def test_vectors_of_tiny_berts(name: str, tmp_path: Path) -> None:
    convert(TINY / name, tmp_path / "model.gguf", tensor_type="F32")
    golden = np.load(TINY / name / "golden.npz")
    encoder = native.Encoder(native.GgufFile(str(tmp_path / "model.gguf")), native.ThreadPool(2))
    (vector,) = encoder.encode([golden["token_ids"]], normalize=True)
    assert float(vector @ golden["vector"]) >= 0.99999


@pytest.mark.parametrize(("tensor_type", "least"), [("F32", 0.9999), ("F16", 0.999)], ids=["F32", "F16"])
def test_minilm_on_a_hundred_texts(
    tensor_type: TensorType, least: float, starter_embedding_folder: Path, tmp_path: Path
) -> None:
    convert(starter_embedding_folder, tmp_path / "model.gguf", tensor_type=tensor_type)
    file = native.GgufFile(str(tmp_path / "model.gguf"))
    tokenizer = load_tokenizer(file)
    texts = json.loads((DATA / "minilm" / "texts.json").read_text(encoding="utf-8"))
    golden = np.load(DATA / "minilm" / "golden.npz")
    encoder = native.Encoder(file, native.ThreadPool(2))
    ids = [np.array(tokenizer.encode(text), np.int32) for text in texts]
    assert [len(row) for row in ids] == golden["n_tokens"].tolist()
    vectors = np.concatenate(
        [encoder.encode(ids[at : at + 8], normalize=True) for at in range(0, len(ids), 8)]
    )
    cosines = (vectors * golden["vectors"]).sum(axis=1)
    assert cosines.min() >= least, f"text {int(cosines.argmin())}"
