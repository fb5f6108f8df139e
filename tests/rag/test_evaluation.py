"""`quarry eval`: reading questions, counting what was found, comparing runs."""

import io
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from rag import evaluation
from rag.evaluation import BadQuestions, Outcome, Question, evaluate, read_questions, summarize
from rag.evaluation_report import plot, table_of

PASSAGES = [
    {"path": "a/cake.md", "text": "It bakes for  45 minutes."},
    {"path": "soup.md", "text": "Simmer."},
]


def outcome(*, rank: int = 1, answerable: bool = True, refused: bool = False, kind: str = "fact") -> Outcome:
    return Outcome("?", kind, answerable, rank, refused, None, 0.01)


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines), "utf-8")
    return path


@pytest.mark.parametrize(
    ("gold", "rank"),
    [
        pytest.param(["soup.md"], 2, id="path"),
        pytest.param(["cake.md"], 1, id="end of a path"),
        pytest.param(["ake.md"], 0, id="not a part of a name"),
        pytest.param([{"path": "cake.md", "text": "FOR 45"}], 1, id="text, spaces and case aside"),
        pytest.param([{"path": "cake.md", "text": "60 minutes"}], 0, id="other text"),
        pytest.param(["bread.md", "soup.md"], 2, id="any of them"),
    ],
)
def test_rank_of_the_first_passage_that_answers(gold: list[Any], rank: int) -> None:
    question = Question.model_validate({"question": "how long?", "gold": gold})
    (found,) = evaluate([question], search=lambda _: PASSAGES)
    assert found.rank == rank
    assert found.is_answerable


def test_answers_must_hold_every_piece_one_way_or_another() -> None:
    question = Question(question="how long?", gold=("cake.md",), answer=(("45 min", "45 minutes"), "oven"))
    assert question.is_answered_by("In the OVEN, 45 minutes.")
    assert not question.is_answered_by("45 minutes.")
    (found,) = evaluate([question], search=lambda _: PASSAGES, ask=lambda _: ("45 minutes", False))
    assert found.answered is False
    assert found.is_refused


def test_summary_counts_each_share_over_what_it_is_about() -> None:
    summary = summarize(
        [
            outcome(rank=1),
            outcome(rank=4),
            outcome(rank=0, refused=True),
            outcome(rank=0, answerable=False, refused=True),
            outcome(rank=0, answerable=False),
        ]
    )
    assert summary.recall == pytest.approx((1 / 3, 2 / 3, 2 / 3))
    assert summary.mrr == pytest.approx((1 + 0.25) / 3)
    assert summary.refused_wrongly == pytest.approx(1 / 3)
    assert summary.refused_rightly == pytest.approx(1 / 2)
    assert summary.answered is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param("{", "line 2: the line: Invalid JSON", id="no json"),
        pytest.param('{"question": "x"}', "line 2: gold: Field required", id="no gold"),
        pytest.param('{"question": "", "gold": []}', "line 2: question:", id="empty"),
        pytest.param(
            '{"question": "x", "gold": [], "gold_text": 1}', "line 2: gold_text: Extra", id="unknown key"
        ),
    ],
)
def test_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    good = '{"question": "怎么改名？", "gold": ["a.md"]}'
    with pytest.raises(BadQuestions, match=message):
        read_questions(write(tmp_path / "questions.jsonl", good, line))
    assert len(read_questions(write(tmp_path / "good.jsonl", "", good, ""))) == 1
    with pytest.raises(BadQuestions, match="holds no questions"):
        read_questions(write(tmp_path / "empty.jsonl", ""))


def test_kept_run_comes_back_and_stands_beside_the_next(tmp_path: Path) -> None:
    before = [outcome(rank=0), outcome(rank=3, kind="中文 <&>")]
    evaluation.save(tmp_path / "run.json", "before", before)
    assert evaluation.load(tmp_path / "run.json") == ("before", before)
    runs = {"before": before, "now": [outcome(rank=1), outcome(rank=3, kind="中文 <&>")]}
    written = io.StringIO()
    Console(width=140, file=written).print(table_of(runs))
    shown = written.getvalue()
    assert "before" in shown
    assert "100.0%" in shown
    bars = [e for e in ElementTree.fromstring(plot(runs)).iter() if e.tag.endswith("rect")]  # noqa: S314
    assert len(bars) == 2 + 3 * 2  # the legend; two kinds and all of them
    with pytest.raises(BadQuestions, match="is not a file that"):
        evaluation.load(write(tmp_path / "other.json", json.dumps([])))
