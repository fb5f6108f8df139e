"""The contract of _native.pyi: errors that name things, and answers that do not depend on company."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine import _native as native

GREEDY = {"temperature": 0.0, "n_logprobs": 5}
PROMPTS = [[5, 6, 7], list(range(1, 71)), [200], list(range(100, 33, -1)), [9, 9, 9, 9]]
POOLS = [(name, n) for name in native.instruction_sets() for n in (1, 2)]
MODELS = ["llama-gqa-untied", "llama-odd-width", "llama-head24", "qwen3"]


def tokens(values: Sequence[int]) -> NDArray[np.int32]:
    return np.array(values, np.int32)


def open_decoder(
    folder: Path,
    name: str = "llama-gqa-untied",
    *,
    cache_tokens: int = 512,
    pool: native.ThreadPool | None = None,
) -> native.Decoder:
    return native.Decoder(
        native.GgufFile(str(folder / f"{name}.gguf")), pool or native.ThreadPool(2), cache_tokens=cache_tokens
    )


def new_greedy(decoder: native.Decoder) -> native.Sequence:
    return decoder.new_sequence(native.SamplingParams(temperature=0.0))


def feed(decoder: native.Decoder, sequence: native.Sequence, ids: Sequence[int]) -> int:
    ((sampled,),) = decoder.step([(sequence, tokens(ids), 1)])
    return sampled.id


def continuation(decoder: native.Decoder, prompt: Sequence[int], n: int) -> list[int]:
    """Greedy tokens after `prompt`, alone."""
    sequence = new_greedy(decoder)
    out = [feed(decoder, sequence, prompt)]
    while len(out) < n:
        out.append(feed(decoder, sequence, out[-1:]))
    return out


# Models under every instruction set.


@pytest.mark.parametrize(("instruction_set", "n_threads"), POOLS, ids=[f"{s}-{n}" for s, n in POOLS])
@pytest.mark.parametrize("name", MODELS)
def test_greedy_tokens_are_the_same_alone_and_in_a_batch(
    tiny_models: Path, name: str, instruction_set: str, n_threads: int
) -> None:
    pool = native.ThreadPool(n_threads, instruction_set)
    decoder = open_decoder(tiny_models, name, pool=pool)
    alone = [continuation(decoder, prompt, 12) for prompt in PROMPTS]
    sequences = [new_greedy(decoder) for _ in PROMPTS]
    pending = [list(prompt) for prompt in PROMPTS]
    out: list[list[int]] = [[] for _ in PROMPTS]
    while any(len(row) < 12 for row in out):
        # Slices of five, so that prompts are still being read while others write.
        plan = [(i, pending[i][:5]) for i in range(len(PROMPTS)) if len(out[i]) < 12]
        batch = [(sequences[i], tokens(ids), int(len(ids) == len(pending[i]))) for i, ids in plan]
        for (i, ids), drawn in zip(plan, decoder.step(batch), strict=True):
            pending[i] = pending[i][len(ids) :]
            if drawn:
                out[i].append(drawn[0].id)
                pending[i] = [drawn[0].id]
    assert out == alone


@pytest.mark.parametrize("name", MODELS)
def test_instruction_sets_agree(tiny_models: Path, name: str) -> None:
    ids = tokens(PROMPTS[1])
    logits = [open_decoder(tiny_models, name, pool=native.ThreadPool(n, s)).logits(ids) for s, n in POOLS]
    largest = float(np.abs(logits[0]).max())
    for other in logits[1:]:  # keys and values are rounded to f16: sums that differ by a bit may round apart
        assert float(np.abs(other - logits[0]).max()) <= 1e-3 * largest


@pytest.mark.parametrize(("instruction_set", "n_threads"), POOLS, ids=[f"{s}-{n}" for s, n in POOLS])
def test_vectors_are_the_same_alone_and_in_a_batch(
    tiny_models: Path, instruction_set: str, n_threads: int
) -> None:
    pool = native.ThreadPool(n_threads, instruction_set)
    encoder = native.Encoder(native.GgufFile(str(tiny_models / "bert-mean.gguf")), pool)
    batch = [tokens([2 + (i * 7 + j) % 40 for j in range(n)]) for i, n in enumerate((1, 3, 128, 17, 64, 2))]
    together = encoder.encode(batch)
    assert np.array_equal(together, np.concatenate([encoder.encode([row]) for row in batch]))
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    plain = encoder.encode(batch, normalize=False)
    assert np.allclose(plain / np.linalg.norm(plain, axis=1, keepdims=True), together, atol=1e-5)


def test_a_step_sees_the_logits_that_logits_returns(tiny_models: Path) -> None:
    decoder = open_decoder(tiny_models)
    ids = PROMPTS[1]
    logits = decoder.logits(tokens(ids))[-1].astype(np.float64)
    expected = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
    sequence = decoder.new_sequence(native.SamplingParams(temperature=0.0, n_logprobs=20))
    decoder.step([(sequence, tokens(ids[:33]), 0)])
    ((sampled,),) = decoder.step([(sequence, tokens(ids[33:]), 1)])
    assert sampled.id == int(expected.argmax())
    assert sampled.logprob == pytest.approx(expected.max(), abs=1e-5)
    assert [i for i, _ in sampled.top_logprobs] == np.argsort(-expected, kind="stable")[:20].tolist()
    assert [p for _, p in sampled.top_logprobs] == pytest.approx(np.sort(expected)[::-1][:20], abs=1e-5)


# The cache.


def test_a_full_cache_changes_nothing(tiny_models: Path) -> None:
    decoder = open_decoder(tiny_models, cache_tokens=96)
    undisturbed = continuation(decoder, PROMPTS[3], 10)
    assert (decoder.n_blocks, decoder.n_free_blocks, decoder.block_tokens) == (3, 3, 32)
    first, second = new_greedy(decoder), new_greedy(decoder)
    out = [feed(decoder, first, PROMPTS[3])]
    with pytest.raises(native.CacheFull, match="needs 2 cache blocks; 0 of 3 are free"):
        decoder.step([(first, tokens(out), 1), (second, tokens(range(1, 40)), 1)])
    assert (first.n_cached, first.n_blocks, second.n_cached, second.n_blocks) == (67, 3, 0, 0)
    assert decoder.n_free_blocks == 0
    while len(out) < 10:
        out.append(feed(decoder, first, out[-1:]))
    assert out == undisturbed


def test_release_gives_blocks_back_and_recomputing_continues_alike(tiny_models: Path) -> None:
    decoder = open_decoder(tiny_models)
    sampling = native.SamplingParams(temperature=1.5, seed=7, repetition_penalty=1.3, penalty_window=-1)
    kept, released = decoder.new_sequence(sampling), decoder.new_sequence(sampling)
    expected = [feed(decoder, kept, PROMPTS[1])]
    out = [feed(decoder, released, PROMPTS[1])]
    for n in range(20):
        expected.append(feed(decoder, kept, expected[-1:]))
        if n % 5 == 2:
            released.release()
            assert (released.n_cached, released.n_blocks) == (0, 0)
            out.append(feed(decoder, released, [*PROMPTS[1], *out]))
        else:
            out.append(feed(decoder, released, out[-1:]))
    assert out == expected
    kept.release()
    released.release()
    released.release()
    assert decoder.n_free_blocks == decoder.n_blocks


def test_a_forgotten_sequence_gives_its_blocks_back(tiny_models: Path) -> None:
    decoder = open_decoder(tiny_models)
    sequence = new_greedy(decoder)
    feed(decoder, sequence, PROMPTS[1])
    assert decoder.n_free_blocks == decoder.n_blocks - 3
    del sequence
    assert decoder.n_free_blocks == decoder.n_blocks


def test_logits_leave_the_cache_as_it_was(tiny_models: Path) -> None:
    decoder = open_decoder(tiny_models, cache_tokens=64)
    sequence = new_greedy(decoder)
    feed(decoder, sequence, [1, 2, 3])
    assert decoder.logits(tokens([4, 5])).shape == (2, decoder.vocab_size)
    with pytest.raises(native.CacheFull):
        decoder.logits(tokens([1] * 40))
    assert (decoder.n_free_blocks, sequence.n_cached) == (1, 3)


def test_a_mask_restricts_samples_until_it_is_lifted(tiny_models: Path) -> None:
    decoder = open_decoder(tiny_models)
    sequence = new_greedy(decoder)
    mask = np.zeros(-(-decoder.vocab_size // 32), np.uint32)
    mask[2] = 1 << 5
    sequence.set_mask(mask)
    assert feed(decoder, sequence, PROMPTS[0]) == 69
    sequence.set_mask(None)
    sequence.release()
    assert feed(decoder, sequence, PROMPTS[0]) == continuation(decoder, PROMPTS[0], 1)[0]


def test_an_empty_batch_is_no_work(tiny_models: Path) -> None:
    assert open_decoder(tiny_models).step([]) == []
    encoder = native.Encoder(native.GgufFile(str(tiny_models / "bert-cls.gguf")), native.ThreadPool(1))
    assert encoder.encode([]).shape == (0, encoder.embedding_length)


# Errors.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: native.ThreadPool(0), "n_threads is 0; allowed are 1 to 256"),
        (lambda: native.ThreadPool(257), "n_threads is 257"),
        (lambda: native.ThreadPool(1, "sse9"), "'sse9' is not available; this processor runs generic"),
        (lambda: native.SamplingParams(temperature=-1), "temperature is -1"),
        (lambda: native.SamplingParams(top_p=float("nan")), "top_p is nan"),
        (lambda: native.SamplingParams(n_logprobs=21), "n_logprobs is 21"),
        (lambda: native.SamplingParams(logit_bias={1: float("inf")}), "logit_bias is inf"),
    ],
    ids=["no thread", "many threads", "instruction set", "temperature", "not a number", "logprobs", "bias"],
)
def test_arguments_are_checked(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([(0, [])], "has no tokens"),
        ([(0, [1]), (1, [-1])], "token -1 is outside the vocabulary of 288"),
        ([(0, [1, 2, 288])], "token 288 is outside the vocabulary of 288"),
        ([(0, [1]), (0, [2])], "occurs twice"),
        ([(0, [1]), (1, [3] * 257)], "has 257 tokens; the model reads at most 256"),
    ],
    ids=["empty", "negative", "too large", "twice", "too long"],
)
def test_a_bad_batch_changes_nothing(
    tiny_models: Path, batch: list[tuple[int, list[int]]], message: str
) -> None:
    decoder = open_decoder(tiny_models)
    sequences = [new_greedy(decoder), new_greedy(decoder)]
    with pytest.raises(ValueError, match=message):
        decoder.step([(sequences[i], tokens(ids), 1) for i, ids in batch])
    assert [s.n_cached for s in sequences] == [0, 0]
    assert feed(decoder, sequences[0], PROMPTS[0]) == continuation(decoder, PROMPTS[0], 1)[0]


def test_bad_biases_and_masks_are_refused(tiny_models: Path) -> None:
    decoder = open_decoder(tiny_models)
    with pytest.raises(ValueError, match="logit_bias names token 288; the vocabulary has 288"):
        decoder.new_sequence(native.SamplingParams(logit_bias={288: 1.0}))
    with pytest.raises(ValueError, match="mask has 1 words; the vocabulary needs 9"):
        new_greedy(decoder).set_mask(np.zeros(1, np.uint32))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([[1], []], "sequence 1 has no tokens"),
        ([[1, 2, 99999]], "sequence 0 holds token 99999, which is outside the vocabulary"),
        ([[1], [2], [-7]], "sequence 2 holds token -7"),
        ([[1] * 129], "sequence 0 has 129 tokens; the model reads at most 128"),
    ],
    ids=["empty", "too large", "negative", "too long"],
)
def test_the_encoder_names_the_sequence(tiny_models: Path, batch: list[list[int]], message: str) -> None:
    encoder = native.Encoder(native.GgufFile(str(tiny_models / "bert-mean.gguf")), native.ThreadPool(1))
    with pytest.raises(ValueError, match=message):
        encoder.encode([tokens(ids) for ids in batch])


def test_files_that_are_none(tmp_path: Path, tiny_models: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.gguf"):
        native.GgufFile(str(tmp_path / "absent.gguf"))
    with pytest.raises(native.GgufError, match="is not a regular file"):
        native.GgufFile(str(tmp_path))
    (tmp_path / "text.gguf").write_bytes(b"not a model at all")
    with pytest.raises(native.GgufError, match=r"text\.gguf is not a GGUF file"):
        native.GgufFile(str(tmp_path / "text.gguf"))
    pool = native.ThreadPool(1)
    with pytest.raises(native.GgufError, match="architecture 'bert' is not supported for chat"):
        native.Decoder(native.GgufFile(str(tiny_models / "bert-mean.gguf")), pool, cache_tokens=32)
    with pytest.raises(native.GgufError, match="architecture 'llama' is not supported for embeddings"):
        native.Encoder(native.GgufFile(str(tiny_models / "llama-tied.gguf")), pool)


def test_a_file_tells_what_is_in_it(tiny_models: Path) -> None:
    path = tiny_models / "llama-gqa-untied.gguf"
    file = native.GgufFile(str(path))
    assert file.n_bytes == path.stat().st_size
    assert file.get("general.architecture") == "llama"
    assert "llama.block_count" in file.keys()  # noqa: SIM118 - a list of names, not a mapping
    with pytest.raises(KeyError, match=r"llama\.absent"):
        file.get("llama.absent")
    embeddings = next(t for t in file.tensors() if t.name == "token_embd.weight")
    assert (embeddings.type, embeddings.shape, embeddings.n_bytes) == ("F32", (64, 288), 64 * 288 * 4)
    stored = np.frombuffer(path.read_bytes(), "<f4", 64, embeddings.offset + 64 * 4 * 7)
    assert np.array_equal(file.row("token_embd.weight", 7), stored)
    with pytest.raises(IndexError, match="row 288 of 288"):
        file.row("token_embd.weight", 288)
    with pytest.raises(KeyError, match="nothing"):
        file.row("nothing", 0)


def test_the_interpreter_ends_without_a_word(tiny_models: Path) -> None:
    """Nothing is left behind, even when nobody closes the engine; a missing template is logged."""
    program = (
        "import logging, sys\nfrom pathlib import Path\nfrom engine.engine import Engine\n"
        "from engine.generation import GenerationParams\n"
        "logging.disable(logging.WARNING)\n"
        "engine = Engine.open(chat_model=Path(sys.argv[1]), embedding_model=None, threads=2)\n"
        "generation = engine.chat.generate([5, 6], GenerationParams())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tiny_models / "llama-tied.gguf")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
