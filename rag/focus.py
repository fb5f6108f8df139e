"""Answers of the smallest models, which lose the thread in a page of sources and invent the rest.

They get a few sentences instead of passages, and each sentence that they write is held against those before
it is shown: one that rests on none of them, or comes a second time, ends the answer.
"""

import re
from collections.abc import Sequence

from rag.language import coverage, terms
from rag.ports import ChatModel, Message

# SmolLM2-135M needs it, Qwen3-0.6B does not.
SMALL_BELOW = 300_000_000
LONGEST_ANSWER = 96
# A sentence beside the point leads these models astray.
CLOSE_TO_BEST = 0.9

_LEAST_SUPPORT = 0.6
_SENTENCE_END = re.compile(r"[.!?](?=\s)\s*|\n+")
_MARKER = re.compile(r"\s*\[\d+\]")


def is_small(chat: ChatModel) -> bool:
    """Tell whether a model is too small to read passages and to cite them."""
    return chat.n_weights < SMALL_BELOW


def short_prompt(question: str, sentences: Sequence[str], *, rule: str) -> list[Message]:
    """Ask a small model one question about a few sentences."""
    return [
        {"role": "system", "content": rule},
        {"role": "user", "content": f"{' '.join(sentences)}\n\n{question}"},
    ]


class GroundedSentences:
    """Let those sentences of an answer pass that rest on what the model read, each with its source's number.

    quotes: source number and sentence. `ended` is set once a sentence does not pass: what follows it is not
    better.
    """

    def __init__(self, question: str, quotes: Sequence[tuple[int, str]]) -> None:
        self._asked = set(terms(question))
        self._quotes = quotes
        self._held = ""
        self._seen: set[tuple[str, ...]] = set()
        self.ended = False

    def feed(self, text: str) -> str:
        """Take the next piece; give the sentences that are complete and pass."""
        self._held += text
        ready = ""
        while not self.ended and (end := _SENTENCE_END.search(self._held)):
            sentence, self._held = self._held[: end.end()], self._held[end.end() :]
            ready += self._check(sentence)
        return ready

    def flush(self, *, is_whole: bool) -> str:
        """Give what was held back. is_whole: the model came to its end, so that this is no fragment."""
        rest, self._held = self._held, ""
        return self._check(rest) if is_whole and not self.ended else ""

    def _check(self, sentence: str) -> str:
        plain = _MARKER.sub("", sentence).rstrip()
        if not plain.strip():
            return ""
        words = tuple(terms(plain))
        # What the question has said already proves nothing.
        said = [word for word in words if word not in self._asked]
        support, number = max(((coverage(said, quote), -n) for n, quote in self._quotes), default=(0.0, 0))
        if words in self._seen or support < _LEAST_SUPPORT:
            self.ended = True
            return ""
        separator = " " if self._seen else ""
        self._seen.add(words)
        return f"{separator}{plain.strip()} [{-number}]"
