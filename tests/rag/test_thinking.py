"""Thoughts of a model: split from the answer, shown where clients look for them."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from rag.app import create_app
from rag.settings import Settings
from rag.thinking import ThoughtFilter


def split(text: str, *, size: int, is_open: bool = False) -> tuple[str, str]:
    thoughts = ThoughtFilter(is_open=is_open)
    parts = [part for i in range(0, len(text), size) for part in thoughts.feed(text[i : i + size])]
    parts += thoughts.flush()
    return tuple("".join(t for kind, t in parts if kind == wanted) for wanted in ("thought", "answer"))  # type: ignore[return-value]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize(
    ("text", "is_open", "expected"),
    [
        pytest.param("<think>\nHm, 1 < 2.\n</think>\n\nYes.", False, ("Hm, 1 < 2.", "Yes."), id="tags"),
        pytest.param("Hm.\n</think>\n\nYes.", True, ("Hm.", "Yes."), id="opened by the prompt"),
        pytest.param("<think>\n\n</think>\n\nYes.", False, ("", "Yes."), id="empty thought"),
        pytest.param("No <think>tags</think>.", False, ("", "No <think>tags</think>."), id="tags later"),
        pytest.param("<think>\ncut of", False, ("cut of", ""), id="cut in the thought"),
        pytest.param("<thin air", False, ("", "<thin air"), id="almost a tag"),
        pytest.param("<think>a\n\nb</think>  ", False, ("a\n\nb", ""), id="no answer"),
    ],
)
def test_thoughts_are_split_from_the_answer(
    text: str, is_open: bool, expected: tuple[str, str], size: int
) -> None:
    assert split(text, size=size, is_open=is_open) == expected


@pytest.fixture
async def client(engine: Any, library: Any) -> AsyncIterator[httpx.AsyncClient]:
    engine.chat.thinks = True
    engine.chat.reply = "<think> Five days, says the handbook. </think> Five vacation days carry over [1]."
    app = create_app(Settings(), engine=engine, library=library)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
        yield client


def body(model: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "How many vacation days carry over?"}]
    return {"model": model, "messages": messages, **more}


@pytest.mark.parametrize("model", ["quarry", "parrot"])
async def test_thoughts_come_as_reasoning_content(client: httpx.AsyncClient, model: str) -> None:
    answer = (await client.post("/v1/chat/completions", json=body(model))).json()
    message = answer["choices"][0]["message"]
    assert message["reasoning_content"].strip() == "Five days, says the handbook."
    assert message["content"].startswith("Five vacation days carry over [1].")
    details = answer["usage"]["completion_tokens_details"]
    assert 0 < details["reasoning_tokens"] < answer["usage"]["completion_tokens"]
    stream = await client.post("/v1/chat/completions", json=body(model, stream=True))
    chunks = [json.loads(line[6:]) for line in stream.text.split("\n\n") if line and line[6] == "{"]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(d.get("reasoning_content", "") for d in deltas) == message["reasoning_content"]
    assert "".join(d.get("content", "") for d in deltas) == message["content"]


@pytest.mark.parametrize(
    ("more", "thinking"),
    [
        pytest.param({}, None, id="by itself"),
        pytest.param({"reasoning_effort": "none"}, False, id="none"),
        pytest.param({"reasoning_effort": "minimal"}, False, id="minimal"),
        pytest.param({"reasoning_effort": "high"}, True, id="high"),
        pytest.param({"response_format": {"type": "json_object"}}, False, id="form"),
    ],
)
async def test_effort_decides_whether_the_model_thinks(
    client: httpx.AsyncClient, engine: Any, more: dict[str, Any], thinking: bool | None
) -> None:
    for model in ("quarry", "parrot"):
        assert (await client.post("/v1/chat/completions", json=body(model, **more))).status_code == 200
        assert engine.chat.thinking is thinking


async def test_titles_are_not_thought_about(client: httpx.AsyncClient, engine: Any) -> None:
    request = body("quarry")
    request["messages"] += [
        {"role": "assistant", "content": "Five."},
        {"role": "user", "content": "使用四到五个字直接返回这句话的简要主题，不要解释、不要标点"},
    ]
    await client.post("/v1/chat/completions", json=request)
    assert engine.chat.thinking is False
