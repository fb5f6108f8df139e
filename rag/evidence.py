"""Read the best passages closely, where it is not clear from afar whether they speak of what is asked."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingest.rarity import information
from ingest.words import query_parts, words
from rag.language import sentences
from rag.ports import Embedder

MOST_SENTENCES = 32
_ANOTHER_NAME = 0.8


@dataclass(frozen=True, slots=True)
class Reading:
    """What the best passages say of a question.

    words: the evidence of the best one's, see LexicalIndex.search. sentence: the cosine of the nearest
    sentence, 0 without an embedder. information: see shared_information(); None for other languages.
    """

    words: float
    sentence: float
    information: float | None


def nearest_sentence(question: NDArray[np.float32], texts: Iterable[str], embedder: Embedder) -> float:
    """Give the cosine of a question with the sentence nearest to it; 0 without any. Blocking.

    The vector of a passage blurs what its sentences say: it is the nearer, the more of them speak of the
    same, and hardly of a single one that answers.
    """
    found = [sentence for text in texts for sentence in sentences(text) if len(sentence) > 3]
    readable = [cut_to_read(sentence, embedder) for sentence in found[:MOST_SENTENCES]]
    return float((embedder.embed(readable, kind="document") @ question).max()) if readable else 0.0


def shared_information(question: str, texts: Sequence[str]) -> float:
    """Tell how much that one of the texts has words of a Chinese question says at most, in nats.

    In a small library every word is rare. That two texts share 申请 (apply for) says little all the same.
    """
    parts = [
        (part.words, part.instead, _worth(part.words) or max(map(_worth, part.instead), default=0.0))
        for part in query_parts(question)
    ]
    most = 0.0
    for held in (set(words(text)) for text in texts):
        shared = 0.0
        for own, instead, worth in parts:
            named = _ANOTHER_NAME * worth if any(held.issuperset(other) for other in instead) else 0.0
            shared += max(_worth(word for word in own if word in held), named)
        most = max(most, shared)
    return most


def cut_to_read(text: str, embedder: Embedder) -> str:
    """Keep the beginning of a sentence that the embedder cannot read whole; it is only for ranking."""
    special = 2
    while (n := embedder.count_tokens(text) + special) > embedder.max_tokens:
        text = text[: min(len(text) - 1, len(text) * embedder.max_tokens // n)]
    return text


def _worth(found: Iterable[str]) -> float:
    return sum(map(information, found))
