"""Small models: what they read, and what of their words is shown."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from rag.app import create_app
from rag.focus import GroundedSentences
from rag.settings import Settings

QUOTES = [(2, "The waiting queue holds sixty-four requests."), (5, "The oven heats to 180 degrees.")]


def shown(reply: str, *, step: int = 1000, is_whole: bool = True) -> str:
    grounded = GroundedSentences("How many requests does the queue hold?", QUOTES)
    pieces = [grounded.feed(reply[i : i + step]) for i in range(0, len(reply), step)]
    return "".join(pieces) + grounded.flush(is_whole=is_whole)


@pytest.mark.parametrize("step", [pytest.param(n, id=f"{n}-at-a-time") for n in (1, 3, 1000)])
@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        pytest.param("Sixty-four are waiting.", "Sixty-four are waiting. [2]", id="grounded"),
        pytest.param("It heats to 180 degrees.", "It heats to 180 degrees. [5]", id="other-source"),
        pytest.param("The moon is made of cheese.", "", id="invented"),
        pytest.param("The queue does hold requests.", "", id="only-the-question-again"),
        pytest.param("Sixty-four wait. The moon shines.", "Sixty-four wait. [2]", id="ends-at-invention"),
        pytest.param("Sixty-four wait. Sixty-four wait. Sixty-four wait.", "Sixty-four wait. [2]", id="loop"),
        pytest.param("Sixty-four wait [9].", "Sixty-four wait. [2]", id="own-markers-go"),
        pytest.param(
            "Sixty-four wait.\nIt heats to 180 degrees.\n",
            "Sixty-four wait. [2] It heats to 180 degrees. [5]",
            id="two-lines",
        ),
    ],
)
def test_only_grounded_sentences_pass(reply: str, expected: str, step: int) -> None:
    assert shown(reply, step=step) == expected


def test_fragment_of_a_cut_off_answer_is_left_out() -> None:
    assert shown("Sixty-four wait. It heats to 180", is_whole=False) == "Sixty-four wait. [2]"


@pytest.fixture
async def client(engine: Any, library: Any) -> AsyncIterator[httpx.AsyncClient]:
    engine.chat.n_weights = 135_000_000
    app = create_app(Settings(), engine=engine, library=library)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
        yield client


async def answer(client: httpx.AsyncClient, question: str) -> str:
    body = {"model": "quarry", "messages": [{"role": "user", "content": question}], "sources_footer": False}
    response = await client.post("/v1/chat/completions", json=body)
    text: str = response.json()["choices"][0]["message"]["content"]
    return text


async def test_small_model_reads_sentences_and_its_words_are_cited(
    client: httpx.AsyncClient, engine: Any
) -> None:
    engine.chat.reply = "Up to five vacation days."
    assert await answer(client, "How many days carry over?") == "Up to five vacation days. [1]"
    (prompt,) = engine.chat.prompts
    assert "Employees may carry over five vacation days." in prompt
    assert "[1]" not in prompt


async def test_invention_of_a_small_model_becomes_a_quotation(client: httpx.AsyncClient, engine: Any) -> None:
    engine.chat.reply = "The moon is made of green cheese."
    text = await answer(client, "How many vacation days carry over?")
    assert "“Employees may carry over five vacation days.” [1]" in text
    assert "cheese" not in text


async def test_chinese_question_to_a_small_model_is_answered_by_quotation(
    client: httpx.AsyncClient, engine: Any
) -> None:
    assert "二十五天年假" in await answer(client, "员工每年有几天年假？")
    assert engine.chat.prompts == []
