"""Find what a close reading of passages must come to, and how well it then tells answers from none.

    python -m bench.questions.fit FOLDER

FOLDER: what `python -m bench.questions` wrote and `quarry ingest` read, as `make eval` does. For each
language it prints the shares that are refused where at most 5 % of the answerable questions are,
cross-validated over documents: weight and threshold come from five sixths of the documents with their
questions, the shares from the rest. Last come the weight and the threshold of all of them, for
rag/relevance.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.questions.source import Asked, read
from engine.engine import Engine
from ingest.library import Library
from rag.query import Conversation, search_query
from rag.relevance import calibrate
from rag.retriever import Retriever

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_FOLDS = 6
_FALSE_NO = 0.05
_RIDGE = 3.0
# A question on another matter must be refused; of those close to the matter, few can be told.
_WEIGHTS = {"near": 0.3, "absent": 2.0}


def measure(folder: Path, language: str, model: Path) -> tuple[list[Asked], Array]:
    """Give the questions, and of each the evidence of words and the nearest sentence or information."""
    engine = Engine.open(chat_model=None, embedding_model=model, check_models=False)
    assert engine.embedder is not None
    root = folder / language
    library = Library.open(root / "data", documents_dir=root / "documents", embedder=engine.embedder)
    library.reconcile()
    retriever = Retriever(embedder=engine.embedder, library=library)
    nearness = calibrate(engine.embedder).of(chinese=language == "zh")
    _, questions = read(language)
    rows = []
    for asked in questions:
        history = tuple({"role": "user", "content": turn} for turn in asked.history)
        reading = retriever.read(search_query(Conversation("question", history, asked.question)))
        second = nearness.of(reading.sentence) if language == "en" else (reading.information or 0.0)
        rows.append((reading.words, second))
    library.close()
    engine.close()
    return questions, np.asarray(rows)


def weigh(features: Array, is_answered: Array, weights: Array) -> Array:
    """Fit a logistic regression by Newton's method; give the weights of the features as they are."""
    spread = features.std(axis=0)
    x = np.column_stack([np.ones(len(features)), features / spread])
    ridge = np.diag([0.0, _RIDGE, _RIDGE])
    found = np.zeros(3)
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ found))
        gradient = x.T @ (weights * (p - is_answered)) + ridge @ found
        found -= np.linalg.solve((x.T * (weights * p * (1 - p))) @ x + ridge, gradient)
    return np.asarray(found[1:] / spread)


def threshold(scores: Array) -> float:
    """Give the score that at most the allowed share of the answerable questions falls short of."""
    return float(np.sort(scores)[int(_FALSE_NO * len(scores))])


def report(questions: list[Asked], features: Array, language: str) -> None:
    """Cross-validate, then fit all."""
    kinds = np.array([q.kind if not q.path else "answered" for q in questions])
    is_answered = (kinds == "answered").astype(np.float64)
    weights = np.array([_WEIGHTS.get(kind, 1.0) for kind in kinds])
    groups = {path: n % _FOLDS for n, path in enumerate(dict.fromkeys(q.path for q in questions if q.path))}
    folds = np.array([groups.get(q.path, n % _FOLDS) for n, q in enumerate(questions)])
    refused = np.zeros(len(questions), dtype=bool)
    for fold in range(_FOLDS):
        rest = folds != fold
        found = weigh(features[rest], is_answered[rest], weights[rest])
        scores = features @ found
        refused[~rest] = scores[~rest] < threshold(scores[rest & (is_answered == 1)])
    shares = ", ".join(
        f"{kind} {refused[kinds == kind].mean():.1%} of {(kinds == kind).sum()}"
        for kind in ("answered", "near", "absent")
    )
    overall = refused[is_answered == 0].mean()
    print(f"{language}: refused, cross-validated: {shares}; of all without an answer {overall:.1%}")
    for allowed in (0.02, 0.05, 0.1, 0.2, 0.4):
        found = weigh(features, is_answered, weights)
        scores = features @ found
        least = np.sort(scores[is_answered == 1])[int(allowed * is_answered.sum())]
        parts = [f"{kind} {(scores[kinds == kind] < least).mean():.0%}" for kind in ("near", "absent")]
        print(f"  false no {allowed:.0%}: {', '.join(parts)}")
    words, second = weigh(features, is_answered, weights)
    scores = features @ np.array([words, second])
    least = threshold(scores[is_answered == 1])
    print(f"  all: words {words / second:.4f}, second 1, least {least / second:.4f};", end=" ")
    print(f"or words 1, second {second / words:.5f}, least {least / words:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.questions.fit", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path, required=True, help="the embedding model's file")
    arguments = parser.parse_args()
    for language in ("en", "zh"):
        report(*measure(arguments.folder, language, arguments.model), language)


if __name__ == "__main__":
    main()
