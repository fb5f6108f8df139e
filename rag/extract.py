"""Answer without a chat model: the sentences that say the most about the question, quoted."""

import re
from collections.abc import Sequence

import numpy as np

from rag.citations import Source, quote_text
from rag.language import coverage, is_chinese, sentences, terms
from rag.ports import Embedder

_ENDED = re.compile(r"[.!?。！？；…]\W*$")
_MOST_SENTENCES = 48
_SHOWN = 3


def extract(question: str, sources: Sequence[Source], *, embedder: Embedder | None) -> str:
    """Quote at most three sentences in reading order, each with its source number. Blocking."""
    return "\n".join(
        f"- “{quote_text(' '.join(sentence.split()))}” [{number}]"
        for number, sentence in best_sentences(question, sources, embedder=embedder)
    )


def best_sentences(
    question: str, sources: Sequence[Source], *, embedder: Embedder | None, least: float = 0.5
) -> list[tuple[int, str]]:
    """Give the at most three sentences that say the most, in reading order, with their source numbers.

    least: what a sentence must score, as a share of the best one's score.
    """
    candidates: list[tuple[int, str]] = []
    for source in sources:
        candidates += [(source.number, sentence) for sentence in sentences(source.passage.text)]
    candidates = [(n, s) for n, s in candidates if len(s) > 3][:_MOST_SENTENCES]
    if not candidates:
        return []
    asked, chinese = terms(question), is_chinese(question)
    scores = np.array([coverage(asked, sentence) for _, sentence in candidates])
    if embedder is not None:
        scores = scores + _nearness(question, [sentence for _, sentence in candidates], embedder)
    # A heading or a label repeats the question's words and answers nothing.
    scores = scores * np.array([1.0 if _ENDED.search(sentence) else 0.6 for _, sentence in candidates])
    # A name that stands in a text of another language is not yet an answer.
    scores = scores * np.array([1.0 if is_chinese(s) == chinese else 0.6 for _, s in candidates])
    # Passages come best first: between equal sentences the earlier one wins.
    best = sorted(np.argsort(-scores, kind="stable")[:_SHOWN].tolist())
    top = float(scores.max())
    return [candidates[i] for i in best if scores[i] >= least * top]


def _nearness(
    question: str, texts: Sequence[str], embedder: Embedder
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    readable = [_cut(text, embedder) for text in texts]
    vectors = embedder.embed(readable, kind="document")
    asked = embedder.embed([_cut(question, embedder)], kind="query")[0]
    return np.asarray(vectors @ asked, dtype=np.float64)


def _cut(text: str, embedder: Embedder) -> str:
    """Keep the beginning of a sentence that the embedder cannot read whole; it is only for ranking."""
    special = 2
    while (n := embedder.count_tokens(text) + special) > embedder.max_tokens:
        text = text[: min(len(text) - 1, len(text) * embedder.max_tokens // n)]
    return text
