"""What `quarry eval` does: try the questions against the service, and show the runs side by side."""

from collections.abc import Sequence

from rich.console import Console

from rag import evaluation, evaluation_report
from rag.client import Client, connect
from rag.evaluation import DEPTH, BadQuestions, Outcome, Question
from rag.settings import Settings
from rag.terminal import count_progress

SIDES = ("words", "meaning")
"""The two searches that can be measured alone."""


def run(
    settings: Settings,
    out: Console,
    questions: Sequence[Question],
    *,
    model: str,
    answers: bool,
    sides: bool,
    label: str,
    kept: dict[str, list[Outcome]],
) -> dict[str, list[Outcome]]:
    """Try the questions; show the runs side by side; give them by label.

    Raises: BadQuestions, where a kept run has this label; what the service raises.
    """
    if label in kept:
        raise BadQuestions(f"a kept run is called {label}, too: choose another --label")
    with connect(settings) as client:
        runs = {**kept, label: _run(client, questions, model=model, answers=answers, side="both")}
        for side in SIDES if sides else ():
            runs[side] = _run(client, questions, model=model, answers=False, side=side)
    out.print(evaluation_report.table_of(runs))
    missed = [o.question for o in runs[label] if o.is_answerable and not 0 < o.rank <= 5]
    if missed:
        out.print(f"Not among the first 5 ({len(missed)}): " + " | ".join(missed[:10]))
    return runs


def _run(
    client: Client, questions: Sequence[Question], *, model: str, answers: bool, side: str
) -> list[Outcome]:
    def search(question: Question) -> list[dict[str, object]]:
        return client.search(question.question, limit=DEPTH, model=model, history=question.history, side=side)

    def ask(question: Question) -> tuple[str, bool]:
        turns = (*question.history, question.question)
        parts = list(client.ask([{"role": "user", "content": turn} for turn in turns], model=model))
        return "".join(part.text for part in parts), any(part.sources for part in parts)

    outcomes: list[Outcome] = []
    with count_progress() as bars:
        task = bars.add_task("Asking" if answers else "Searching", total=len(questions))
        for outcome in evaluation.evaluate(questions, search=search, ask=ask if answers else None):
            outcomes.append(outcome)
            bars.advance(task)
    return outcomes
