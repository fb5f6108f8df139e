"""Measure retrieval and answers on a user's own questions.

A file of questions has one JSON object a line:

    {"question": "How long does the cake bake?", "gold": ["cake.md"], "answer": ["45 minutes"]}
    {"question": "And at what heat?", "history": ["How long does the cake bake?"], "kind": "follow-up",
     "gold": [{"path": "cake.md", "text": "180 degrees"}]}                  (on one line)
    {"question": "Who won the cup?", "gold": []}

gold: the documents that answer; with `text`, the passage must hold it. An empty list: the documents do not
answer, and finding nothing is right. answer: pieces of text that a right answer contains; of a list within,
any one. history: what the user asked before. kind: questions of one kind are counted together.
"""

import json
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rag.errors import RagError
from rag.language import is_chinese

DEPTH = 10
"""Passages looked at for each question."""
_CUTS = (1, 5, 10)


class BadQuestions(RagError):
    """A file of questions, or of results, cannot be read."""


class Gold(BaseModel):
    """A document that answers, and text that the passage must hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    path: str = Field(min_length=1)
    text: str = ""

    def is_met_by(self, passage: Mapping[str, Any]) -> bool:
        """Tell whether a found passage is the one."""
        path = str(passage["path"])
        is_there = path == self.path or path.endswith(f"/{self.path}")
        return is_there and _plain(self.text) in _plain(str(passage["text"]))


class Question(BaseModel):
    """A question with what should be found and said; see the module's docstring."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    question: str = Field(min_length=1)
    gold: tuple[Gold | str, ...]
    answer: tuple[str | tuple[str, ...], ...] = ()
    history: tuple[str, ...] = ()
    kind: str = ""

    def is_met_by(self, passage: Mapping[str, Any]) -> bool:
        """Tell whether a found passage answers."""
        return any(
            (gold if isinstance(gold, Gold) else Gold(path=gold)).is_met_by(passage) for gold in self.gold
        )

    def is_answered_by(self, text: str) -> bool:
        """Tell whether an answer contains all that it must."""
        said = _plain(text)
        return all(
            any(_plain(one) in said for one in ((piece,) if isinstance(piece, str) else piece))
            for piece in self.answer
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one question.

    rank: of the first passage that answers, from 1; 0: none of the first DEPTH. answered: None where no
    answer was asked for, or nothing says what it must contain.
    """

    question: str
    kind: str
    is_answerable: bool
    rank: int
    is_refused: bool
    answered: bool | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures over questions. recall: among the first 1, 5 and 10. None where nothing counts towards one."""

    n: int
    recall: tuple[float | None, ...]
    mrr: float | None
    answered: float | None
    refused_wrongly: float | None
    refused_rightly: float | None
    median_seconds: float


def read_questions(path: Path) -> list[Question]:
    """Read a file of questions. Raises: BadQuestions, naming the line; OSError."""
    questions = []
    for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1):
        if line.strip():
            try:
                questions.append(Question.model_validate_json(line))
            except ValidationError as error:
                fault = error.errors(include_url=False)[0]
                place = ".".join(str(part) for part in fault["loc"][:1]) or "the line"
                raise BadQuestions(f"{path}, line {number}: {place}: {fault['msg']}") from error
    if not questions:
        raise BadQuestions(f"{path} holds no questions")
    return questions


def evaluate(
    questions: Sequence[Question],
    *,
    search: Callable[[Question], list[dict[str, Any]]],
    ask: Callable[[Question], tuple[str, bool]] | None = None,
) -> Iterator[Outcome]:
    """Try each question. ask: gives the answer, and whether it rests on documents."""
    for question in questions:
        started = time.monotonic()
        found = search(question)
        seconds = time.monotonic() - started
        rank = next((i for i, passage in enumerate(found, 1) if question.is_met_by(passage)), 0)
        is_refused, answered = not found, None
        if ask is not None:
            text, has_sources = ask(question)
            is_refused = not has_sources
            answered = question.is_answered_by(text) if question.answer else None
        kind = question.kind or ("中文" if is_chinese(question.question) else "other languages")
        yield Outcome(question.question, kind, bool(question.gold), rank, is_refused, answered, seconds)


def summarize(outcomes: Sequence[Outcome]) -> Summary:
    """Count over outcomes, at least one."""
    answerable = [o for o in outcomes if o.is_answerable]
    others = [o for o in outcomes if not o.is_answerable]
    times = sorted(o.seconds for o in outcomes)
    return Summary(
        n=len(outcomes),
        recall=tuple(_share([0 < o.rank <= cut for o in answerable]) for cut in _CUTS),
        mrr=_share([1 / o.rank if o.rank else 0.0 for o in answerable]),
        answered=_share([o.answered for o in outcomes if o.answered is not None]),
        refused_wrongly=_share([o.is_refused for o in answerable]),
        refused_rightly=_share([o.is_refused for o in others]),
        median_seconds=times[len(times) // 2],
    )


def by_kind(outcomes: Sequence[Outcome]) -> dict[str, Summary]:
    """Summarize each kind, then all together."""
    kinds = list(dict.fromkeys(outcome.kind for outcome in outcomes))
    parts = {kind: summarize([o for o in outcomes if o.kind == kind]) for kind in kinds}
    return parts if len(kinds) == 1 else {**parts, "all": summarize(outcomes)}


def save(path: Path, label: str, outcomes: Sequence[Outcome]) -> None:
    """Keep a run, to compare later ones with. Raises: OSError."""
    kept = {
        "label": label,
        "summary": {kind: asdict(summary) for kind, summary in by_kind(outcomes).items()},
        "outcomes": [asdict(outcome) for outcome in outcomes],
    }
    path.write_text(json.dumps(kept, ensure_ascii=False, indent=1) + "\n", "utf-8")


def load(path: Path) -> tuple[str, list[Outcome]]:
    """Read a run that save() kept. Raises: BadQuestions, OSError."""
    try:
        kept = json.loads(path.read_text("utf-8"))
        return str(kept["label"]), [Outcome(**outcome) for outcome in kept["outcomes"]]
    except (ValueError, KeyError, TypeError) as error:
        raise BadQuestions(f"{path} is not a file that `quarry eval --out` wrote: {error}") from error


def _share(values: Sequence[float | bool | None]) -> float | None:
    return fmean(float(value or 0) for value in values) if values else None


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
