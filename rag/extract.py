"""Answer without a chat model: the sentences that say the most about the question, quoted."""

import re
from collections.abc import Sequence

import numpy as np

from ingest.words import query_words, words
from rag.citations import Source, quote_text
from rag.evidence import cut_to_read
from rag.language import coverage, is_chinese, sentences, terms
from rag.ports import Embedder

_ENDED = re.compile(r"[.!?。！？；…]\W*$")
_MOST_SENTENCES = 48
_SHOWN = 3
_ROW, _LABEL = 0.6, 0.25
_PLACE = re.compile(r"(?:§|第)\d")


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
    above: dict[int, str] = {}
    for source in sources:
        candidates += [(source.number, sentence) for sentence in sentences(source.passage.text)]
        above[source.number] = " ".join((source.passage.title, *source.passage.heading_path))
    candidates = [(n, s) for n, s in candidates if len(s) > 3][:_MOST_SENTENCES]
    if not candidates:
        return []
    asked, chinese = terms(question), is_chinese(question)
    # What its document and its section are about holds for a sentence, too: it hardly repeats their names.
    scores = np.array([coverage(asked, f"{above[n]} {sentence}") for n, sentence in candidates])
    if embedder is not None:
        scores = scores + _nearness(question, [sentence for _, sentence in candidates], embedder)
    # A heading or a label repeats the question's words and answers nothing.
    scores = scores * np.array([_completeness(sentence) for _, sentence in candidates])
    # Who asks for an article by its number wants that one, however little else they say.
    scores = scores + np.array(_in_place(question, candidates))
    # A name that stands in a text of another language is not yet an answer.
    scores = scores * np.array([1.0 if is_chinese(s) == chinese else 0.6 for _, s in candidates])
    # Passages come best first: between equal sentences the earlier one wins.
    best = sorted(np.argsort(-scores, kind="stable")[:_SHOWN].tolist())
    top = float(scores.max())
    return [candidates[i] for i in best if scores[i] >= least * top]


def _in_place(question: str, candidates: Sequence[tuple[int, str]]) -> list[float]:
    """Give 1 to each sentence of the article or section that is asked for by its number, 0 to others."""
    wanted = {word for word in query_words(question) if _PLACE.match(word)}
    found: list[float] = []
    place, is_there = 0, False
    for number, sentence in candidates if wanted else ():
        is_named = bool(wanted.intersection(words(sentence)))
        if number != place or _completeness(sentence) == _LABEL:
            place, is_there = number, is_named
        found.append(float((is_there or is_named) and _completeness(sentence) != _LABEL))
    return found or [0.0] * len(candidates)


def _completeness(sentence: str) -> float:
    if _ENDED.search(sentence):
        return 1.0
    return _ROW if sentence.startswith("|") else _LABEL


def _nearness(
    question: str, texts: Sequence[str], embedder: Embedder
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    readable = [cut_to_read(text, embedder) for text in texts]
    vectors = embedder.embed(readable, kind="document")
    asked = embedder.embed([cut_to_read(question, embedder)], kind="query")[0]
    return np.asarray(vectors @ asked, dtype=np.float64)
