"""The cache in 8 bits: how far it moves the model's opinion, and that it is as exact as F16 in all else."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine import _native as native
from engine.engine import Engine
from engine.generation import GenerationParams
from engine.tokenizer import load_tokenizer
from tests.golden.smollm2_prompts import PROMPTS

# Measured 4.8e-4 with AVX-512, 4.2e-4 with AVX2; 4.1e-4 on the same weights in F32.
LARGEST_MEAN_KL = 1e-3


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    out: NDArray[np.float64] = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return out


def test_q8_0_hardly_moves_the_distributions(starter_chat_gguf: Path) -> None:
    file, pool = native.GgufFile(str(starter_chat_gguf)), native.ThreadPool(2)
    exact, rounded = (
        native.Decoder(file, pool, cache_tokens=1024, cache_type=name) for name in ("f16", "q8_0")
    )
    assert rounded.cache_bytes < 0.6 * exact.cache_bytes
    tokenizer = load_tokenizer(file)
    divergences, same = [], []
    for prompt in PROMPTS[:12]:
        ids = np.array(tokenizer.encode(prompt, parse_special=True), np.int32)
        p, q = (log_softmax(decoder.logits(ids)) for decoder in (exact, rounded))
        divergences.append((np.exp(p) * (p - q)).sum(axis=1))
        same.append(p.argmax(axis=1) == q.argmax(axis=1))
    assert 0 < np.concatenate(divergences).mean() < LARGEST_MEAN_KL
    assert np.concatenate(same).mean() > 0.96


@pytest.mark.parametrize("instruction_set", native.instruction_sets())
def test_slices_and_shared_beginnings_change_nothing(tiny_models: Path, instruction_set: str) -> None:
    decoder = native.Decoder(
        native.GgufFile(str(tiny_models / "llama-gqa-untied.gguf")),
        native.ThreadPool(2, instruction_set),
        cache_tokens=512,
        cache_type="q8_0",
    )
    ids = np.array([3 + i % 200 for i in range(100)], np.int32)
    sampling = native.SamplingParams(temperature=0.0, n_logprobs=5)
    told = []
    for n_slice in (100, 100, 33, 7):
        sequence = decoder.new_sequence(sampling, "a" if n_slice != 33 else None)
        at = sequence.reuse(ids[:-1])
        while at < len(ids):
            rows = ids[at : at + n_slice]
            at += len(rows)
            (drawn,) = decoder.step([(sequence, rows, int(at == len(ids)))])
        told.append((drawn[0].id, drawn[0].logprob, drawn[0].top_logprobs))
        sequence.release()
    assert told == [told[0]] * 4
    expected = decoder.logits(ids)[-1]
    assert told[0][0] == int(expected.argmax())


def test_an_unknown_type_is_named(tiny_models: Path) -> None:
    file = native.GgufFile(str(tiny_models / "llama-tied.gguf"))
    with pytest.raises(ValueError, match="cache type 'q5' is unknown; there are f16, q8_0"):
        native.Decoder(file, native.ThreadPool(1), cache_tokens=64, cache_type="q5")


@pytest.fixture
def engine(tiny_models: Path) -> Iterator[Engine]:
    engine = Engine.open(
        chat_model=tiny_models / "qwen3.gguf", embedding_model=None, cache_tokens=512, cache_type="q8_0"
    )
    yield engine
    engine.close()


def test_the_engine_answers_from_it(engine: Engine) -> None:
    assert engine.chat is not None
    params = GenerationParams(temperature=0, max_tokens=40, tenant="a")
    texts = ["".join(delta.text for delta in engine.chat.generate([5, 6, 7] * 20, params)) for _ in range(2)]
    assert texts[0] == texts[1]
    assert engine.status().scheduler.n_reused_tokens == 32
