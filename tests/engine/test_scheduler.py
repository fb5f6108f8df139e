"""One thread, many callers: shared steps, cancellation, a cache that is too small, an end for everybody."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from engine import _native as native
from engine.engine import Engine
from engine.errors import ContextTooLong, EngineClosed, QueueFull
from engine.generation import Delta, Generation, GenerationParams
from engine.scheduler import Scheduler
from engine.tokenizer import load_tokenizer
from tests.engine.gguf_metadata import read_metadata

QUESTIONS = [
    "What is the capital of France?",
    "Count from one to ten.",
    "Write a line about the sea.",
    "Why is the sky blue? Answer in a sentence.",
]
TINY_PROMPTS = [[5 + i, *range(10 + i, 69 + i)] for i in range(4)]  # 60 tokens each
GREEDY = GenerationParams(temperature=0, max_tokens=24)


@pytest.fixture(scope="module")
def engine(starter_chat_gguf: Path, starter_embedding_gguf: Path) -> Iterator[Engine]:
    """The starter models: slow enough for a request to be caught at its work."""
    engine = Engine.open(
        chat_model=starter_chat_gguf, embedding_model=starter_embedding_gguf, threads=2, cache_tokens=6144
    )
    yield engine
    engine.close()


@pytest.fixture
def tiny(tiny_models: Path) -> Iterator[Engine]:
    """A tiny model with a cache of 256 tokens, its whole context."""
    engine = Engine.open(
        chat_model=tiny_models / "llama-gqa-untied.gguf",
        embedding_model=tiny_models / "bert-mean.gguf",
        threads=2,
        cache_tokens=256,
        queue_limit=8,
        check_models=False,
    )
    yield engine
    engine.close()


def ask(engine: Engine, question: str, params: GenerationParams) -> Generation:
    assert engine.chat is not None
    return engine.chat.generate(engine.chat.prompt_tokens([{"role": "user", "content": question}]), params)


def generate(engine: Engine, prompt: list[int], params: GenerationParams) -> Generation:
    assert engine.chat is not None
    return engine.chat.generate(prompt, params)


def endless(engine: Engine, *, max_tokens: int = 1500) -> GenerationParams:
    """Greedy, and the model cannot end by itself."""
    return GenerationParams(temperature=0, max_tokens=max_tokens, logit_bias=no_end(engine))


def no_end(engine: Engine) -> dict[int, float]:
    return dict.fromkeys(engine._scheduler._tokenizer.eos_ids, -1e5)  # type: ignore[union-attr]  # a chat model is open


def text_of(deltas: Generation | list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def end_of(generation: Generation) -> Delta:
    *_, last = generation
    return last


@contextmanager
def at_once(engine: Engine) -> Iterator[None]:
    """Let the scheduler see nothing of what is handed in before all of it is."""
    with engine._scheduler._work:
        yield


def settle(engine: Engine) -> None:
    """Wait until the scheduler has seen every cancellation: two rounds of its loop."""
    assert engine.embedder is not None
    for _ in range(2):
        engine.embedder.embed(["a"], kind="query")


def assert_all_free(engine: Engine) -> None:
    settle(engine)
    status = engine.status().scheduler
    assert (status.n_running, status.n_waiting, status.n_embedding) == (0, 0, 0)
    assert status.n_free_blocks == status.n_blocks


# Sharing.


def test_chats_share_steps_and_say_what_they_say_alone(engine: Engine) -> None:
    alone = [text_of(ask(engine, question, GREEDY)) for question in QUESTIONS]
    assert len(set(alone)) == len(QUESTIONS)
    with at_once(engine):
        together = [ask(engine, question, GREEDY) for question in QUESTIONS]
    assert [text_of(generation) for generation in together] == alone
    assert_all_free(engine)


def test_a_long_prompt_does_not_freeze_a_running_stream(engine: Engine) -> None:
    stream = generate(engine, [1, 2, 3], endless(engine))
    pieces = iter(stream)
    next(pieces)
    n_before = stream.n_completion_tokens
    long = generate(engine, [5 + i % 1000 for i in range(1400)], endless(engine, max_tokens=1))
    assert end_of(long).finish_reason == "length"
    # The prompt takes at least three slices of 512 tokens, and the stream wrote in each of these steps.
    assert stream.n_completion_tokens - n_before >= 2
    assert engine.status().scheduler.n_running == 1
    stream.cancel()
    assert [delta.finish_reason for delta in pieces][-1] == "cancelled"
    assert_all_free(engine)


def test_embedding_runs_while_a_chat_does(engine: Engine) -> None:
    assert engine.embedder is not None
    texts = [f"{question} {i}" for i, question in enumerate(QUESTIONS * 5)]
    alone = engine.embedder.embed(texts, kind="document")
    stream = generate(engine, [1, 2, 3], endless(engine))
    next(iter(stream))
    with ThreadPoolExecutor(2) as threads:
        documents = threads.submit(engine.embedder.embed, texts, kind="document")
        query = threads.submit(engine.embedder.embed, QUESTIONS[:1], kind="query")
        assert query.result(60).shape == (1, 384)
        assert np.array_equal(documents.result(60), alone)
    assert engine.status().scheduler.n_running == 1
    stream.cancel()
    assert end_of(stream).finish_reason == "cancelled"


def test_more_chats_than_a_batch_holds_all_complete(tiny: Engine) -> None:
    prompts = [[i, i + 1, i + 2] for i in range(5, 13)]
    alone = [text_of(generate(tiny, prompt, GREEDY)) for prompt in prompts]
    with at_once(tiny):
        together = [generate(tiny, prompt, GREEDY) for prompt in prompts]
    assert [text_of(generation) for generation in together] == alone
    assert_all_free(tiny)


def test_a_full_cache_harms_no_bystander(tiny: Engine) -> None:
    params = GenerationParams(temperature=0, max_tokens=68, logit_bias=no_end(tiny))
    alone = [text_of(generate(tiny, prompt, params)) for prompt in TINY_PROMPTS]
    assert tiny.status().scheduler.n_blocks * 32 * 2 == sum(len(p) + 68 for p in TINY_PROMPTS)
    n_preempted = tiny.status().scheduler.n_preempted
    with at_once(tiny):
        together = [generate(tiny, prompt, params) for prompt in TINY_PROMPTS]
    ends = [list(generation) for generation in together]
    assert [deltas[-1].finish_reason for deltas in ends] == ["length"] * 4
    assert [text_of(deltas) for deltas in ends] == alone
    assert [generation.n_completion_tokens for generation in together] == [68] * 4
    assert tiny.status().scheduler.n_preempted > n_preempted
    assert_all_free(tiny)


def test_a_preempted_draw_continues_alike(tiny: Engine) -> None:
    def params(seed: int) -> GenerationParams:
        return GenerationParams(
            max_tokens=68, seed=seed, repetition_penalty=1.2, frequency_penalty=0.3, logit_bias=no_end(tiny)
        )

    alone = [text_of(generate(tiny, prompt, params(i))) for i, prompt in enumerate(TINY_PROMPTS)]
    with at_once(tiny):
        together = [generate(tiny, prompt, params(i)) for i, prompt in enumerate(TINY_PROMPTS)]
    assert [text_of(generation) for generation in together] == alone
    assert tiny.status().scheduler.n_preempted > 0


# Leaving.


@pytest.mark.parametrize("phase", ["queued", "prefill", "decode"])
def test_cancellation_frees_everything(engine: Engine, phase: str) -> None:
    n_prompt = 20 if phase == "decode" else 3000
    stream = generate(engine, [5 + i % 1000 for i in range(n_prompt)], endless(engine))
    if phase == "prefill":
        settle(engine)  # at least one slice has been read
        assert 0 < engine.status().scheduler.n_free_blocks < engine.status().scheduler.n_blocks
    if phase == "decode":
        assert next(iter(stream)).finish_reason is None
    stream.cancel()
    stream.cancel()
    assert end_of(stream).finish_reason == "cancelled"
    assert (stream.n_completion_tokens > 0) == (phase == "decode")
    assert_all_free(engine)
    stream.cancel()
    assert_all_free(engine)


def test_cancelling_one_of_the_queue_leaves_the_others(tiny: Engine) -> None:
    alone = [text_of(generate(tiny, prompt, GREEDY)) for prompt in TINY_PROMPTS]
    with at_once(tiny):
        together = [generate(tiny, prompt, GREEDY) for prompt in TINY_PROMPTS]
        together[2].cancel()
    texts = [text_of(generation) for generation in together]
    assert texts == [alone[0], alone[1], "", alone[3]]
    assert_all_free(tiny)


async def test_fifty_streams_of_which_thirty_leave(engine: Engine) -> None:
    params = endless(engine, max_tokens=6)
    long = [5 + i % 1000 for i in range(300)]

    async def run(i: int) -> str | None:
        """Cancelled in the queue, while its prompt is read, in its answer, left by its reader; or whole."""
        stream = generate(engine, long if i % 5 == 1 else [7, 8, 9, 10 + i], params)
        if i % 5 == 0:
            stream.cancel()
        if i % 5 == 1:
            await asyncio.sleep(0)
            stream.cancel()
        last = None
        async for delta in stream:
            last = delta.finish_reason
            if i % 5 == 2:
                break
        return last

    ends = await asyncio.gather(*(run(i) for i in range(50)))
    assert [ends[i] for i in range(50) if i % 5 >= 3] == ["length"] * 20
    assert {ends[i] for i in range(50) if i % 5 < 2} == {"cancelled"}
    await asyncio.to_thread(assert_all_free, engine)


async def test_readers_on_the_loop_and_a_cancel_from_it(engine: Engine) -> None:
    alone = text_of(ask(engine, QUESTIONS[0], GREEDY))
    stream = generate(engine, [1, 2, 3], endless(engine))
    pieces = aiter(stream)
    await anext(pieces)
    answer = [delta async for delta in ask(engine, QUESTIONS[0], GREEDY)]
    assert text_of(answer) == alone
    stream.cancel()
    assert [delta.finish_reason async for delta in pieces][-1] == "cancelled"
    await asyncio.to_thread(assert_all_free, engine)


# Refusing and ending.


def test_a_full_queue_refuses_with_a_time(tiny: Engine) -> None:
    with at_once(tiny):
        waiting = [generate(tiny, [5, 6], GREEDY) for _ in range(8)]
        with pytest.raises(QueueFull, match="8 requests are waiting; the queue holds 8") as refused:
            generate(tiny, [5, 6], GREEDY)
    assert refused.value.retry_after >= 1
    assert {end_of(generation).finish_reason for generation in waiting} <= {"stop", "length"}
    assert end_of(generate(tiny, [5, 6], GREEDY)).finish_reason in {"stop", "length"}


def test_a_refused_request_touches_no_other(tiny: Engine) -> None:
    alone = text_of(generate(tiny, TINY_PROMPTS[0], GREEDY))
    with at_once(tiny):
        running = generate(tiny, TINY_PROMPTS[0], GREEDY)
        with pytest.raises(
            ContextTooLong, match="the prompt has 256 tokens; llama-gqa-untied reads at most 255"
        ):
            generate(tiny, [1] * 256, GREEDY)
        with pytest.raises(ValueError, match="the prompt has no tokens"):
            generate(tiny, [], GREEDY)
        with pytest.raises(ValueError, match="token 288 is outside the vocabulary of 288"):
            generate(tiny, [1, 288], GREEDY)
        with pytest.raises(ValueError, match="logit_bias names token 999"):
            generate(tiny, [1], GenerationParams(logit_bias={999: 1.0}))
    assert text_of(running) == alone
    assert_all_free(tiny)


def test_texts_too_long_to_embed_are_named(tiny: Engine) -> None:
    assert tiny.embedder is not None
    with pytest.raises(ContextTooLong, match=r"text 1 has \d+ tokens; bert-mean reads at most 128"):
        tiny.embedder.embed(["a", "a b c " * 100], kind="document")
    assert tiny.embedder.embed([], kind="document").shape == (0, tiny.embedder.dimension)
    assert np.isfinite(tiny.embedder.embed([""], kind="document")).all()


def test_close_ends_everybody(starter_chat_gguf: Path, starter_embedding_gguf: Path) -> None:
    engine = Engine.open(
        chat_model=starter_chat_gguf, embedding_model=starter_embedding_gguf, threads=2, cache_tokens=1024
    )
    assert engine.embedder is not None
    streams = [generate(engine, [5 + i, 6, 7], endless(engine, max_tokens=900)) for i in range(3)]
    next(iter(streams[0]))
    with ThreadPoolExecutor(1) as threads:
        embedding = threads.submit(engine.embedder.embed, QUESTIONS * 500, kind="document")
        while engine.status().scheduler.n_embedding == 0:
            next(iter(streams[0]))
        engine.close()
        with pytest.raises(EngineClosed):
            embedding.result(60)
    for stream in streams:
        with pytest.raises(EngineClosed, match="the engine was closed"):
            list(stream)
    with pytest.raises(EngineClosed, match="the engine is closed"):
        generate(engine, [1], GREEDY)
    with pytest.raises(EngineClosed):
        engine.embedder.embed(["a"], kind="query")
    status = engine.status().scheduler
    assert (status.n_running, status.n_waiting, status.n_free_blocks) == (0, 0, status.n_blocks)
    engine.close()


# What comes out.


def test_length_ends_an_answer(engine: Engine) -> None:
    for n in (1, 5):
        generation = ask(engine, QUESTIONS[1], GenerationParams(temperature=0, max_tokens=n))
        assert end_of(generation).finish_reason == "length"
        assert generation.n_completion_tokens == n


def test_the_context_ends_an_answer(tiny: Engine) -> None:
    generation = generate(tiny, [5] * 250, GenerationParams(temperature=0, logit_bias=no_end(tiny)))
    assert end_of(generation).finish_reason == "length"
    assert generation.n_completion_tokens == 6


def test_the_model_ends_an_answer(tiny: Engine) -> None:
    eager = {token_id: -bias for token_id, bias in no_end(tiny).items()}
    generation = generate(tiny, [5, 6], GenerationParams(max_tokens=20, logit_bias=eager))
    deltas = list(generation)
    assert (text_of(deltas), deltas[-1].finish_reason) == ("", "stop")
    assert generation.n_completion_tokens == 1


def test_a_stop_string_across_tokens_ends_an_answer(engine: Engine) -> None:
    params = GenerationParams(temperature=0, max_tokens=24, n_logprobs=0)
    deltas = list(ask(engine, QUESTIONS[0], params))
    tokens = [logprob.token for delta in deltas for logprob in delta.logprobs]
    at = next(i for i in range(3, len(tokens)) if len(tokens[i]) > 1 and len(tokens[i + 1]) > 1)
    stop = tokens[at][-1] + tokens[at + 1][:2]
    cut = list(
        ask(engine, QUESTIONS[0], GenerationParams(temperature=0, max_tokens=24, stop=("never", stop)))
    )
    assert cut[-1].finish_reason == "stop"
    assert text_of(cut) == text_of(deltas).split(stop)[0] != text_of(deltas)


def test_an_answer_cut_in_a_character_ends_before_it(engine: Engine, starter_chat_gguf: Path) -> None:
    tokenizer = load_tokenizer(native.GgufFile(str(starter_chat_gguf)))
    half = next(i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i) == b"\xc3")
    generation = generate(engine, [5], GenerationParams(temperature=0, max_tokens=1, logit_bias={half: 1e5}))
    assert text_of(generation) == ""


def test_seeds_repeat_and_differ(engine: Engine) -> None:
    def answer(seed: int | None) -> str:
        return text_of(ask(engine, QUESTIONS[2], GenerationParams(temperature=1.5, max_tokens=12, seed=seed)))

    assert answer(1) == answer(1) != answer(2)
    assert answer(-1) == answer(-1)
    assert answer(None) != answer(None)


def test_logprobs_name_tokens_and_are_probabilities(engine: Engine) -> None:
    params = GenerationParams(temperature=0, max_tokens=8, n_logprobs=20)
    logprobs = [lp for delta in ask(engine, QUESTIONS[0], params) for lp in delta.logprobs]
    assert 1 < len(logprobs) <= 8
    for logprob in logprobs:
        assert logprob.bytes.decode() == logprob.token
        assert len(logprob.top) == 20
        assert logprob.top[0] == (logprob.token, logprob.bytes, logprob.logprob)
        assert 0 < sum(np.exp(p) for _, _, p in logprob.top) <= 1.0001
    bare = list(ask(engine, QUESTIONS[0], GREEDY))
    assert all(delta.logprobs == () for delta in bare)


def test_rows_without_a_token_are_never_drawn(tiny_models: Path) -> None:
    """Some files pad the matrices beyond the vocabulary; here by eight rows."""
    path = tiny_models / "llama-gqa-untied.gguf"
    metadata = read_metadata(path)
    for key in ("tokens", "token_type"):
        metadata[f"tokenizer.ggml.{key}"] = metadata[f"tokenizer.ggml.{key}"][:280]  # type: ignore[index]  # lists
    decoder = native.Decoder(native.GgufFile(str(path)), native.ThreadPool(1), cache_tokens=256)
    scheduler = Scheduler(decoder, load_tokenizer(metadata), queue_limit=1)
    try:
        params = GenerationParams(
            temperature=100, seed=3, n_logprobs=20, logit_bias=dict.fromkeys(range(280, 288), 300)
        )
        deltas = list(scheduler.chat([5, 6], params, n_most=200))
    finally:
        scheduler.close()
    assert deltas[-1].finish_reason in {"stop", "length"}
