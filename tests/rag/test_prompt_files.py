"""Prompts from files: shipped ones, a user's own, and what is wrong with them."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from rag.app import create_app
from rag.prompt_files import KNOWN, BadPrompt, load_prompts, shipped_text
from rag.settings import Settings

QUESTION = {
    "model": "quarry",
    "messages": [{"role": "user", "content": "How many vacation days carry over?"}],
}
UNKNOWN = {"model": "quarry", "messages": [{"role": "user", "content": "Who won the chess olympiad?"}]}


def _write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


@pytest.mark.parametrize(("language", "name"), KNOWN)
def test_shipped_prompts_pass_the_check_for_a_users_own(tmp_path: Path, language: str, name: str) -> None:
    text = shipped_text(language, name)
    prompts = load_prompts(_write(tmp_path, f"{language}/{name}.txt", text))
    assert prompts.texts[language, name] == text


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        pytest.param("en/question.txt", "{sources} {date}", "unknown placeholder {date}", id="unknown"),
        pytest.param("en/question.txt", "{sources}", "must hold {question}", id="missing"),
        pytest.param("en/rules.txt", "Answer {question}", "{question}; it may hold none", id="none"),
        pytest.param("en/rules.txt", "Answer as {", "braces that are no placeholder are doubled", id="brace"),
        pytest.param("en/rule.txt", "Answer", "rule.txt is no prompt", id="name"),
        pytest.param("fr/rules.txt", "Répondez", "is no prompt: there may be en/rules.txt, ", id="language"),
        pytest.param("zh/short.txt", "回答", "is no prompt", id="never-asked"),
        pytest.param("en/summary.txt", "Summarise", "must hold {title}", id="no-title"),
        pytest.param("zh/rules.txt", "回答".encode("gbk"), "is not UTF-8", id="encoding"),
        pytest.param("en/rules.txt", "a" * 20_000, "has 20000 characters", id="length"),
    ],
)  # fmt: skip
def test_prompt_that_cannot_be_used_is_refused_with_the_reason(
    tmp_path: Path, name: str, text: str | bytes, reason: str
) -> None:
    with pytest.raises(BadPrompt) as refused:
        load_prompts(_write(tmp_path, name, text))
    assert reason in str(refused.value)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadPrompt, match="nowhere is not a folder"):
        load_prompts(tmp_path / "nowhere")


async def _ask(engine: Any, library: Any, body: dict[str, Any], **settings: Any) -> dict[str, Any]:
    app = create_app(Settings(**settings), engine=engine, library=library)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8080"
    ) as client:
        response = await client.post("/v1/chat/completions", json=body)
    answer: dict[str, Any] = response.json()
    return answer


async def test_own_prompt_is_what_the_model_reads(engine: Any, library: Any, tmp_path: Path) -> None:
    folder = _write(tmp_path, "en/rules.txt", "Speak like a {{pirate}}.")
    await _ask(engine, library, QUESTION, prompts_dir=folder)
    assert "Speak like a {pirate}." in engine.chat.prompts[-1]
    assert "Question: How many vacation days carry over?" in engine.chat.prompts[-1]


async def test_own_prompt_is_what_the_smallest_models_read(engine: Any, library: Any, tmp_path: Path) -> None:
    engine.chat.n_weights = 135_000_000
    folder = _write(tmp_path, "en/short.txt", "Say it in three words.")
    await _ask(engine, library, QUESTION, prompts_dir=folder)
    assert engine.chat.prompts[-1].startswith("system: Say it in three words.")


async def test_own_prompts_are_what_summaries_are_asked_with(
    engine: Any, library: Any, tmp_path: Path
) -> None:
    library.put("a.txt", *(f"Chapter {i}. " + "The zeppelin flies on. " * 40 for i in range(12)))
    _write(tmp_path, "en/part.txt", "Notes on {title}, please.")
    folder = _write(tmp_path, "en/summary.txt", "A limerick on {title}, please.")
    asked = {"model": "quarry", "messages": [{"role": "user", "content": "Summarise a.txt"}]}
    await _ask(engine, library, asked, prompts_dir=folder)
    *parts, last = engine.chat.prompts
    assert len(parts) > 1
    assert all(prompt.startswith("system: Notes on a.txt, please.") for prompt in parts)
    assert last.startswith("system: A limerick on a.txt, please.")


async def test_mixed_answer_sets_apart_what_is_not_from_the_documents(engine: Any, library: Any) -> None:
    engine.chat.reply = "Somebody did."
    answer = await _ask(engine, library, UNKNOWN, answers="mixed")
    assert answer["choices"][0]["message"]["content"] == (
        "The documents do not say anything about this.\n\n---\n"
        "**A general answer, not from your documents:**\n\nSomebody did."
    )
    assert answer["sources"] == []
    assert "do not answer this question" in engine.chat.prompts[-1]


@pytest.mark.parametrize(
    ("setting", "wanted", "general"),
    [
        pytest.param("strict", None, False, id="strict by default"),
        pytest.param("strict", "mixed", True, id="mixed by the request"),
        pytest.param("mixed", "strict", False, id="strict by the request"),
    ],
)
async def test_request_decides_before_the_setting(
    engine: Any, library: Any, setting: str, wanted: str | None, general: bool
) -> None:
    answer = await _ask(engine, library, {**UNKNOWN, "answers": wanted}, answers=setting)
    assert ("general answer" in answer["choices"][0]["message"]["content"]) is general


async def test_sources_found_are_answered_from_in_mixed_mode(engine: Any, library: Any) -> None:
    answer = await _ask(engine, library, {**QUESTION, "answers": "mixed"})
    assert "general answer" not in answer["choices"][0]["message"]["content"]
    assert "Not from the documents:" in engine.chat.prompts[-1]
