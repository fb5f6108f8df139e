"""What a caller asks of a generation, and the channel through which it comes back."""

import asyncio
import threading
import weakref
from collections.abc import Callable

import pytest

from engine.errors import GenerationFailed
from engine.generation import Delta, Generation, GenerationParams

LAST = Delta("!", finish_reason="stop")


class Recorder:
    """Counts cancellations, as the scheduler would hear of them."""

    def __init__(self) -> None:
        self.n_cancelled = 0

    def __call__(self) -> None:
        self.n_cancelled += 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GenerationParams(max_tokens=0), "max_tokens is 0; allowed are 1 to"),
        (lambda: GenerationParams(temperature=-0.1), "temperature is -0.1; allowed are 0 to 100"),
        (lambda: GenerationParams(temperature=float("nan")), "temperature is nan"),
        (lambda: GenerationParams(top_k=-1), "top_k is -1"),
        (lambda: GenerationParams(top_p=1.5), "top_p is 1.5; allowed are 0 to 1"),
        (lambda: GenerationParams(min_p=2), "min_p is 2"),
        (lambda: GenerationParams(repetition_penalty=0), "repetition_penalty is 0"),
        (lambda: GenerationParams(frequency_penalty=101), "frequency_penalty is 101"),
        (lambda: GenerationParams(presence_penalty=-101), "presence_penalty is -101"),
        (lambda: GenerationParams(seed=2**64), "seed is"),
        (lambda: GenerationParams(n_logprobs=21), "n_logprobs is 21; allowed are 0 to 20"),
        (lambda: GenerationParams(stop=("a", "")), "stop holds an empty string"),
    ],
    ids=[
        "max_tokens",
        "temperature",
        "not a number",
        "top_k",
        "top_p",
        "min_p",
        "repetition",
        "frequency",
        "presence",
        "seed",
        "logprobs",
        "stop",
    ],
)
def test_ranges_are_checked(make: Callable[[], GenerationParams], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_reader_in_a_thread_gets_pieces_in_order() -> None:
    generation = Generation(3, Recorder())

    def write() -> None:
        for delta in (Delta("a"), Delta("b"), LAST):
            generation.put(delta)

    writer = threading.Thread(target=write)
    writer.start()
    assert [delta.text for delta in generation] == ["a", "b", "!"]
    writer.join()


def test_what_was_read_stays_read_and_the_end_stays_the_end() -> None:
    generation = Generation(3, Recorder())
    for delta in (Delta("a"), Delta("b"), LAST):
        generation.put(delta)
    assert next(iter(generation)).text == "a"
    assert [delta.text for delta in generation] == ["b", "!"]
    assert list(generation) == []


def test_an_error_ends_the_iteration() -> None:
    generation = Generation(3, Recorder())
    generation.put(Delta("a"))
    generation.put(GenerationFailed("the model could not continue"))
    pieces = iter(generation)
    assert next(pieces).text == "a"
    with pytest.raises(GenerationFailed, match="could not continue"):
        next(pieces)
    assert list(generation) == []


async def test_a_reader_on_an_event_loop_gets_pieces_from_a_thread() -> None:
    recorder = Recorder()
    generation = Generation(3, recorder)
    has_first = threading.Event()

    def write() -> None:
        generation.put(Delta("a"))
        assert has_first.wait(60)
        generation.put(Delta("b"))
        generation.put(LAST)

    writer = threading.Thread(target=write)
    writer.start()
    texts = []
    async for delta in generation:
        texts.append(delta.text)
        has_first.set()
    writer.join()
    assert texts == ["a", "b", "!"]
    assert recorder.n_cancelled == 0


async def test_what_has_come_is_handed_over_together() -> None:
    generation = Generation(3, Recorder())
    generation.put(Delta("a"))
    batches = generation.batches()
    assert [delta.text for delta in await anext(batches)] == ["a"]
    generation.put(Delta("b"))
    generation.put(GenerationFailed("no"))
    assert [delta.text for delta in await anext(batches)] == ["b"]
    with pytest.raises(GenerationFailed, match="no"):
        await anext(batches)


async def test_an_error_reaches_the_event_loop() -> None:
    generation = Generation(3, Recorder())
    generation.put(GenerationFailed("no"))
    with pytest.raises(GenerationFailed, match="no"):
        _ = [delta async for delta in generation]


async def test_leaving_early_cancels() -> None:
    recorder = Recorder()
    generation = Generation(3, recorder)
    generation.put(Delta("a"))
    pieces = generation.__aiter__()
    assert (await anext(pieces)).text == "a"
    await pieces.aclose()  # type: ignore[attr-defined]  # it is an async generator
    assert recorder.n_cancelled == 1


async def test_cancelling_the_task_that_waits_cancels() -> None:
    recorder = Recorder()
    generation = Generation(3, recorder)
    waiting = asyncio.Event()

    async def read() -> list[Delta]:
        waiting.set()
        return [delta async for delta in generation]

    task = asyncio.create_task(read())
    await waiting.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert recorder.n_cancelled == 1


def test_a_writer_outlives_the_loop_of_its_reader() -> None:
    generation = Generation(3, Recorder())

    async def read_one() -> None:
        generation.put(Delta("a"))
        assert (await anext(generation.__aiter__())).text == "a"

    asyncio.run(read_one())
    generation.put(LAST)


@pytest.mark.parametrize(
    "last", [LAST, GenerationFailed("the model could not continue")], ids=["end", "error"]
)
def test_what_has_ended_holds_its_request_no_longer(last: Delta | GenerationFailed) -> None:
    recorder = Recorder()
    request = weakref.ref(recorder)
    generation = Generation(1, recorder)
    del recorder
    generation.put(Delta("a"))
    assert request() is not None
    generation.put(last)
    assert request() is None
    generation.cancel()
