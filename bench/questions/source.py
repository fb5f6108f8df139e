"""Read en.txt and zh.txt: documents in a plain notation, each with the questions that it answers.

    === folder/name.docx        a document, and the format it becomes
    # Title                     headings, paragraphs, `- ` lists, `| a | b |` tables, as in Markdown
    ? fact | question | what the passage that answers holds
    ? follow-up | first question >> second >> the one that is asked | what the passage holds
    ? near | a question about the same things that neither it nor another document answers
    === none
    ? absent | a question about other things; "near" here as well: about something alike

All of it was written for this purpose; names and figures are invented.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Half = Literal["development", "held-out"]

_HALVES: tuple[Half, Half] = ("development", "held-out")


@dataclass(frozen=True, slots=True)
class Source:
    """A document as it is written down; path: with the ending of its format."""

    path: str
    text: str

    @property
    def format(self) -> str:
        return self.path.rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, the turns before it, and where its answer stands; path "": nowhere."""

    kind: str
    question: str
    history: tuple[str, ...]
    path: str
    gold: str
    half: Half

    def as_json(self) -> dict[str, object]:
        """Give the line of a file of questions for `quarry eval`."""
        gold = [{"path": self.path, "text": self.gold}] if self.path else []
        return {"question": self.question, "history": list(self.history), "gold": gold, "kind": self.kind}


def read(language: str) -> tuple[list[Source], list[Asked]]:
    """Read one language's documents and questions.

    Every other document belongs to the held-out half with all its questions, and every other question that
    nothing answers.
    """
    text = Path(__file__).with_name(f"{language}.txt").read_text("utf-8")
    sources, asked = [], []
    for number, block in enumerate(text.removeprefix("=== ").split("\n=== ")):
        path, _, rest = block.partition("\n")
        body, _, questions = rest.partition("\n? ")
        if path != "none":
            sources.append(Source(path, body))
        for place, line in enumerate(questions.strip().split("\n")):
            half = _HALVES[(place if path == "none" else number) % 2]
            asked.append(_asked(line.removeprefix("? "), path, half))
    return sources, asked


def _asked(line: str, path: str, half: Half) -> Asked:
    kind, _, rest = line.partition(" | ")
    turns, _, gold = rest.partition(" | ")
    *history, question = turns.split(" >> ")
    return Asked(kind, question, tuple(history), path if gold else "", gold, half)
