"""Which message is the question, and what is searched for it."""

import json
from pathlib import Path

import pytest

from rag.query import read_conversation, search_query

_PROMPTS = Path(__file__).parents[3] / "shared" / "nextchat-prompts.json"
_HISTORY = [
    {"role": "user", "content": "How many vacation days may I carry over?"},
    {"role": "assistant", "content": "Five [1].\n\n---\n**Sources**\n\n- [1] handbook.md, Guide, p. 3"},
]


def _prompts() -> dict[str, dict[str, str]]:
    if not _PROMPTS.is_file():
        pytest.skip("the prompts of ChatGPT-Next-Web (shared/nextchat-prompts.json) are not here")
    found: dict[str, dict[str, str]] = json.loads(_PROMPTS.read_text("utf-8"))
    return found


def test_titles_and_summaries_of_nextchat_are_recognised() -> None:
    prompts = _prompts()
    assert len(prompts) >= 19
    for language, texts in prompts.items():
        title = read_conversation([*_HISTORY, {"role": "user", "content": texts["topic"]}])
        summary = read_conversation([*_HISTORY, {"role": "system", "content": texts["summarize"]}])
        assert (language, title.task, summary.task) == (language, "title", "summary")


def test_summary_that_comes_back_is_no_question() -> None:
    for texts in _prompts().values():
        recap = {"role": "system", "content": texts["history_prefix"] + "leave"}
        conversation = read_conversation([recap, {"role": "user", "content": "Who signs the form?"}])
        assert conversation.task == "question"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("What is the title of the four to five page report?", id="first message"),
        pytest.param("Summarize the discussion briefly in 200 words or less", id="summary asked by a person"),
    ],
)
def test_first_message_is_always_a_question(text: str) -> None:
    assert read_conversation([{"role": "user", "content": text}]).task == "question"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("Which punctuation does the title need?", id="title words"),
        pytest.param("Is it valid for four to five weeks?", id="length words"),
        pytest.param("总结一下报销流程", id="chinese summary word"),
    ],
)
def test_later_questions_stay_questions(text: str) -> None:
    assert read_conversation([*_HISTORY, {"role": "user", "content": text}]).task == "question"


def test_own_footer_is_stripped_from_history() -> None:
    conversation = read_conversation([*_HISTORY, {"role": "user", "content": "Why?"}])
    assert conversation.history[-1]["content"] == "Five [1]."


@pytest.mark.parametrize(
    ("question", "joined"),
    [
        pytest.param("And how do I undo that?", True, id="pronoun"),
        pytest.param("那需要谁批准？", True, id="chinese follow-up"),
        pytest.param("Why?", True, id="few words"),
        pytest.param("Which printer drivers support duplex paper on Linux?", False, id="stands alone"),
    ],
)
def test_follow_up_is_searched_with_the_turn_before(question: str, joined: bool) -> None:
    query = search_query(read_conversation([*_HISTORY, {"role": "user", "content": question}]))
    assert query == (f"{_HISTORY[0]['content']} {question}" if joined else question)


def test_follow_up_of_a_follow_up_is_searched_with_what_both_are_about() -> None:
    turns = ["How many vacation days may I carry over?", "And until when?", "Who decides that?"]
    conversation = read_conversation([{"role": "user", "content": turn} for turn in turns])
    assert search_query(conversation) == " ".join(turns)


def test_two_user_messages_in_a_row_ask_the_last() -> None:
    conversation = read_conversation(
        [{"role": "user", "content": "first"}, {"role": "user", "content": "second"}]
    )
    assert (conversation.question, conversation.turns) == ("second", ["first"])
