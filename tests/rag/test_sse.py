"""Events as they are written, and the source that is waited for with a limit."""

import asyncio
import json
import math
from collections.abc import AsyncGenerator

import pytest

from rag import sse


@pytest.mark.parametrize("end", ["\n", "\r\n", "\x0b", "\x1c", "\x85", "\u2028", "\u2029"])
def test_no_client_finds_a_line_end_in_an_event(end: str) -> None:
    text = f"before{end}after, 中文"
    written = sse.event({"text": text}).decode()
    assert written.splitlines() == [written.removesuffix("\n\n"), ""]
    assert json.loads(written.removeprefix("data: "))["text"] == text


async def numbers(n: int, taken: list[int]) -> AsyncGenerator[int, None]:
    for number in range(n):
        taken.append(number)
        yield number


async def test_what_has_come_is_handed_over_together() -> None:
    taken: list[int] = []
    patient = sse.Patient(numbers(3, taken))
    assert await patient.next(within=math.inf) == [0, 1, 2]
    assert await patient.next(within=math.inf) == []
    await patient.aclose()


async def test_reading_ahead_is_bounded() -> None:
    taken: list[int] = []
    patient = sse.Patient(numbers(1000, taken))
    first = await patient.next(within=math.inf)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(taken) <= 2 * len(first)
    rest = []
    while come := await patient.next(within=math.inf):
        rest += come
    assert first + rest == list(range(1000))
    await patient.aclose()


async def waiting(gate: asyncio.Event, closed: list[str]) -> AsyncGenerator[str, None]:
    try:
        await gate.wait()
        yield "late"
        raise ValueError("the source broke")
    finally:
        closed.append("closed")


async def test_item_that_was_not_waited_for_is_not_lost() -> None:
    gate, closed = asyncio.Event(), list[str]()
    patient = sse.Patient(waiting(gate, closed))
    with pytest.raises(TimeoutError):
        await patient.next(within=0.01)
    gate.set()
    assert await patient.next(within=math.inf) == ["late"]
    with pytest.raises(ValueError, match="broke"):
        await patient.next(within=math.inf)
    await patient.aclose()
    assert closed == ["closed"]


async def test_failure_from_outside_comes_before_what_the_source_says() -> None:
    gate, closed = asyncio.Event(), list[str]()
    patient = sse.Patient(waiting(gate, closed))
    asking = asyncio.ensure_future(patient.next(within=math.inf))
    await asyncio.sleep(0)
    patient.fail(RuntimeError("the service ends"))
    with pytest.raises(RuntimeError, match="ends"):
        await asking
    with pytest.raises(RuntimeError, match="ends"):
        await patient.next(within=math.inf)
    await patient.aclose()
    assert closed == ["closed"]
