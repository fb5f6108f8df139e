"""What a conversation asks for: which message is the question, and what to search for.

Clients ask for titles and summaries on their own. These are instructions about the conversation, not
questions about documents; ChatGPT-Next-Web 2.16 sends them in 20 languages, so both shape and words count.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rag.citations import strip_own_marks
from rag.language import terms
from rag.ports import Message

Task = Literal["question", "title", "summary"]

# The length that title prompts ask for: an ordinary question hardly ever has it. A word for title or
# punctuation must stand beside it.
_FOUR_TO_FIVE = (
    r"four to five|\b4\s?[-–]\s?5\b|at most 6 words"
    r"|四到五|四至五|四から五|네 글자에서 다섯|أربع إلى خمس|চার থেকে পাঁচ|čtyři až pět|vier bis fünf"
    r"|cuatro a cinco|quatre à cinq|empat hingga lima|quattro o cinque|fire til fem|quatro a cinco"
    r"|четырех-пяти|четырёх-пяти|štvor- až päť|dört ila beş|bốn đến năm"
)
_TITLE = (
    r"\btitle\b|\btopic\b|主题|主題|テーマ|주제|ملخص|থিম|\btéma|overskrift|\bthema\b|\btema\b|\bsujet\b"
    r"|\btopik\b|\boppsummering\b|\btítulo\b|\btitul\b|\bтему\b|başlı|chủ đề"
    r"|punctuation|quotation marks|不要标点|不要標點|句読点|문장 부호|علامات ترقيم|বিরাম চিহ্ন|interpunkc"
    r"|tegnsætning|satzzeichen|puntuación|ponctuation|tanda baca|punteggiatura|tegnsetting|pontuação"
    r"|aspas|знаков препинания|noktalama|dấu câu"
)
_SUMMARY = (
    r"summari[sz]e|总结|總結|要約|요약|تلخيص|সারাংশ|shrňte|resumé|fassen sie|resume|résumé|ringkasan"
    r"|riassumi|oppsummer|resuma|подведите итоги|zhrňte|özetle|tóm tắt"
)
_TITLES = tuple(re.compile(words, re.IGNORECASE) for words in (_FOUR_TO_FIVE, _TITLE))
_SUMMARIES = tuple(re.compile(words, re.IGNORECASE) for words in (_SUMMARY, r"200|২০০"))
_LONGEST_INSTRUCTION = 1200

_FOLLOW_UP = re.compile(
    r"^(?:and|but|so|then|also|what about|how about|why|how so|really|more|go on|continue|in that case)\b"
    r"|\b(?:it|its|that|this|these|those|they|them|their|there|he|she|him|her|his|the same|former|latter)\b"
    r"|^(?:那|还有|另外|然后|那么|如果)|它|他们|她们|这个|那个|这些|那些|其中|前者|后者|上述|刚才|为什么[?？]?$",
    re.IGNORECASE,
)
_FEW_TERMS = 3
_MOST_TURNS = 2


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation as the service reads it.

    history: what came before the question, our own footers and marks removed; system messages kept.
    question: the last user message (for a title or summary: the instruction).
    """

    task: Task
    history: tuple[dict[str, Any], ...]
    question: str

    @property
    def turns(self) -> list[str]:
        """The user messages before the question."""
        return [m["content"] for m in self.history if m["role"] == "user"]


def read_conversation(messages: Sequence[Message]) -> Conversation:
    """Find the question, or the title or summary that a client wants for itself."""
    cleaned = [_clean(message) for message in messages]
    task = _task(cleaned)
    if task != "question":
        return Conversation(task, tuple(cleaned[:-1]), cleaned[-1]["content"])
    last = max((i for i, m in enumerate(cleaned) if m["role"] == "user"), default=None)
    if last is None:
        return Conversation("question", tuple(cleaned), "")
    # What follows the question (a system message that a client appends) still counts as instruction.
    history = (*cleaned[:last], *(m for m in cleaned[last + 1 :] if m["role"] == "system"))
    return Conversation("question", history, cleaned[last]["content"])


def search_query(conversation: Conversation) -> str:
    """Give what to search for: the question, with the turns before it where it does not stand alone.

    Back to the last turn that does: after "how many holidays?" and "how early do I ask?", "and who agrees?"
    is about holidays still.
    """
    question = conversation.question.strip()
    asked = [question]
    for turn in reversed(conversation.turns):
        if not _leans_on_others(asked[0]) or len(asked) > _MOST_TURNS:
            break
        if turn.strip() and turn.strip() not in asked:
            asked.insert(0, turn.strip())
    return " ".join(asked)


def _leans_on_others(question: str) -> bool:
    return len(terms(question)) < _FEW_TERMS or _FOLLOW_UP.search(question) is not None


def _task(messages: Sequence[dict[str, Any]]) -> Task:
    if len(messages) < 2:
        return "question"
    last = messages[-1]
    text = last["content"]
    if len(text) > _LONGEST_INSTRUCTION:
        return "question"
    before = messages[-2]["role"]
    if last["role"] == "system" and (before == "assistant" or _all_in(_SUMMARIES, text)):
        return "summary"  # nothing else ends a conversation with a system message
    answered = any(m["role"] == "assistant" for m in messages[:-1])
    if last["role"] == "user" and answered and _all_in(_TITLES, text):
        return "title"
    return "question"


def _all_in(patterns: Sequence[re.Pattern[str]], text: str) -> bool:
    return all(pattern.search(text) for pattern in patterns)


def _clean(message: Message) -> dict[str, Any]:
    role = "system" if message["role"] == "developer" else str(message["role"])
    content = str(message.get("content") or "")
    return {"role": role, "content": strip_own_marks(content) if role == "assistant" else content}
