"""Perplexity and importance: against llama.cpp's definition, and against plain arithmetic."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest

from engine import _native
from engine.convert import convert
from engine.errors import ContextTooLong, UnsupportedModel
from engine.importance import read_importance
from engine.mixtures import MIXTURES
from engine.perplexity import collect_importance, cut_chunks, measure_perplexity
from engine.quantize import quantize
from engine.tokenizer import load_tokenizer

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "LICENSE").read_text(encoding="utf-8")
N_CTX = 128


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("perplexity") / "model.gguf"
    convert(ROOT / "tests" / "data" / "tiny" / "llama-tied", path, tensor_type="F32")
    return path


def test_perplexity_is_that_of_llama_cpp(model: Path) -> None:
    """Golden values from llama.cpp's logits: tests/golden/make_perplexity.py."""
    golden = json.loads((ROOT / "tests" / "golden" / "perplexity.json").read_text(encoding="utf-8"))
    heard: list[tuple[int, int, float]] = []
    result = measure_perplexity(
        model, TEXT, n_ctx=N_CTX, max_chunks=8, progress=lambda *news: heard.append(news)
    )
    assert result.n_scored == golden["n_scored"]
    assert result.value == pytest.approx(golden["perplexity"], rel=1e-4)
    assert result.error == pytest.approx(golden["error"], rel=1e-3)
    assert [(done, total) for done, total, _ in heard] == [(i, 8) for i in range(1, 9)]
    assert heard[-1][2] == result.value


def test_logprobs_are_those_of_the_logits(model: Path) -> None:
    decoder = _native.Decoder(_native.GgufFile(str(model)), _native.ThreadPool(1), cache_tokens=128)
    ids = np.random.default_rng(0).integers(0, decoder.vocab_size, 40).astype(np.int32)
    logits = decoder.logits(ids).astype(np.float64)
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    for first in (0, 7, 39):
        expected = [logprobs[i, ids[i + 1]] for i in range(first, 39)]
        np.testing.assert_allclose(decoder.next_logprobs(ids, first), expected, rtol=1e-5, atol=1e-5)


def test_importance_sums_the_squares_of_inputs(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "imatrix.gguf"
    result = collect_importance(model, TEXT, out, text_name="LICENSE", n_ctx=N_CTX, max_chunks=3)
    assert result.value == measure_perplexity(model, TEXT, n_ctx=N_CTX, max_chunks=3).value
    file = _native.GgufFile(str(model))
    importance = read_importance(out)
    widths = {t.name: t.shape[0] for t in file.tensors() if len(t.shape) > 1 and t.name.startswith("blk.")}
    assert {name: len(values) for name, values in importance.columns.items()} == widths
    # The first layer's queries read the normed embeddings.
    ids = np.concatenate(cut_chunks(load_tokenizer(file), TEXT, N_CTX, 3))
    rows = np.stack([file.row("token_embd.weight", int(i)) for i in ids]).astype(np.float64)
    epsilon = float(str(file.get("llama.attention.layer_norm_rms_epsilon")))
    normed = rows / np.sqrt((rows**2).mean(axis=1, keepdims=True) + epsilon)
    normed *= file.row("blk.0.attn_norm.weight", 0)
    for part in ("q", "k", "v"):
        found = importance.columns[f"blk.0.attn_{part}.weight"]
        np.testing.assert_allclose(found, (normed**2).mean(axis=0), rtol=1e-3)
    reader = gguf.GGUFReader(out)
    assert reader.fields["general.type"].contents() == "imatrix"
    assert reader.fields["imatrix.chunk_count"].contents() == 3
    counts = next(t for t in reader.tensors if t.name == "blk.0.attn_q.weight.counts")
    assert counts.data.ravel().tolist() == [3 * N_CTX]


def test_importance_that_we_make_quantises(model: Path, tmp_path: Path) -> None:
    collect_importance(model, TEXT, tmp_path / "i.gguf", text_name="LICENSE", n_ctx=N_CTX, max_chunks=3)
    result = quantize(
        model,
        tmp_path / "out.gguf",
        MIXTURES["Q4_0"],
        importance=read_importance(tmp_path / "i.gguf"),
    )
    assert result.without_importance == ("token_embd.weight",)


def test_what_cannot_be_measured_is_named(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ContextTooLong, match="the text has 2 tokens; two chunks of 128 need 256"):
        measure_perplexity(model, "aa", n_ctx=N_CTX)
    with pytest.raises(ContextTooLong, match=r"reads \d+ tokens; chunks have 65536"):
        measure_perplexity(model, TEXT, n_ctx=65536)
    (tmp_path / "no.gguf").write_bytes(b"no model")
    with pytest.raises(UnsupportedModel, match=r"no.gguf cannot be measured"):
        measure_perplexity(tmp_path / "no.gguf", TEXT)
