"""Find the passages that a question is about: dense and lexical search, fused, floored, merged."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from threading import Lock
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.errors import ContextTooLong
from ingest.values import Chunk, embedding_text
from rag.evidence import Reading, nearest_sentence, shared_information
from rag.language import is_chinese
from rag.ports import Embedder, Library, Reranker
from rag.relevance import UNKNOWN, Calibration, Nearness, calibrate

Side = Literal["both", "words", "meaning"]
"""Which search finds candidates."""

# What is clearly worse than the best is left out.
_LEAST_OF_BEST = 0.5
# Passages that are read closely where it is not clear whether any speaks of what is asked.
_READ_FOR_MEANING, _READ_FOR_WORDS = 3, 5


@dataclass(frozen=True, slots=True)
class Passage:
    """One or more neighbouring chunks of a document.

    score: 0 to about 1, see fuse(); the reranker's where there is one.
    similarity: cosine with the question, 0 without an embedder.
    """

    chunk_ids: tuple[int, ...]
    document_id: int
    path: str
    title: str
    collection: str
    heading_path: tuple[str, ...]
    page: int | None
    text: str
    score: float
    similarity: float


@dataclass(frozen=True, slots=True)
class _Ranked:
    """What a search found, best first: chunk, score, cosine; and what the scores were made of.

    language: what cosines mean in the question's; nearness: the same for this question.
    """

    found: list[tuple[Chunk, float, float]]
    evidence: Mapping[int, float]
    vector: NDArray[np.float32] | None
    language: Nearness
    nearness: Nearness


def fuse(
    cosines: Mapping[int, float], evidence: Mapping[int, float], nearness: Nearness
) -> list[tuple[int, float]]:
    """Merge both sides by Nearness.score, best first; ties by id.

    By rank alone, the best of a side that found little would count as much as the other's.
    """
    scores = {
        chunk_id: nearness.score(cosines.get(chunk_id, nearness.unrelated), evidence.get(chunk_id, 0.0))
        for chunk_id in {**cosines, **evidence}
    }
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


class Retriever:
    """Searches a library for questions. Thread-safe; calls block."""

    def __init__(
        self,
        *,
        embedder: Embedder | None,
        library: Library,
        reranker: Reranker | None = None,
        limit: int = 6,
        candidates: int = 40,
        rerank_candidates: int = 20,
    ) -> None:
        """`rerank_candidates`: how many of the best that the searches found the reranker reads."""
        self.embedder = embedder
        self._reranker = reranker
        self.library = library
        self._limit = limit
        self._candidates = candidates
        self._reranked_most = rerank_candidates
        self._calibrating = Lock()
        self._measured: Calibration | None = None

    def search(
        self,
        query: str,
        *,
        collections: frozenset[str] | None = None,
        limit: int | None = None,
        accepts: Callable[[str], bool] | None = None,
        side: Side = "both",
    ) -> list[Passage]:
        """Give at most `limit` relevant passages, best first; none where nothing is relevant.

        accepts: gets the path of a document, and says whether it counts. side: one search alone, to compare.
        """
        if not query.strip():
            return []
        limit = limit or self._limit
        n_candidates = max(self._candidates, limit)
        n_chunks = self._n_chunks(collections) if accepts else 0
        while True:
            found = self._search(query, collections, n_candidates, accepts, side)
            # What is not accepted takes no place: look further down until there is enough, or nothing left.
            if accepts is None or len(found) >= limit or n_candidates >= n_chunks:
                return _merge(self._reranked(query, found, limit))
            n_candidates *= 4

    def read(self, query: str) -> Reading:
        """Read closely what is best for a question, relevant or not."""
        return self._read(query, self._ranked(query, None, self._candidates, None, "both"))

    def _search(
        self,
        query: str,
        collections: frozenset[str] | None,
        n_candidates: int,
        accepts: Callable[[str], bool] | None,
        side: Side,
    ) -> list[tuple[Chunk, float, float]]:
        ranked = self._ranked(query, collections, n_candidates, accepts, side)
        if not ranked.found:
            return []
        best, least = ranked.found[0][1], ranked.nearness.least(with_words=side != "meaning")
        is_answered = best >= least if side == "meaning" else ranked.nearness.seems(best)
        if is_answered is None:
            is_answered = ranked.language.proves(self._read(query, ranked))
        least = min(least, _LEAST_OF_BEST * best)
        return [item for item in ranked.found if item[1] >= least] if is_answered else []

    def _ranked(
        self,
        query: str,
        collections: frozenset[str] | None,
        n_candidates: int,
        accepts: Callable[[str], bool] | None,
        side: Side,
    ) -> _Ranked:
        language = UNKNOWN if side == "words" else self._calibration().of(chinese=is_chinese(query))
        nearness = language.for_question(query)
        evidence: dict[int, float] = {}
        if side != "meaning":
            lexical = self.library.search_lexical(query, limit=n_candidates, collections=collections)
            evidence = {hit.chunk_id: hit.score for hit in lexical}
        vector = self._vector(query) if nearness.trust else None
        cosines = self._cosines(vector, collections, n_candidates, evidence)
        scores = fuse(cosines, evidence, nearness)
        chunks = {chunk.id: chunk for chunk in self.library.chunks([chunk_id for chunk_id, _ in scores])}
        found = [
            (chunks[chunk_id], score, cosines.get(chunk_id, 0.0))
            for chunk_id, score in scores
            # It may have gone between the search and now.
            if chunk_id in chunks and (accepts is None or accepts(chunks[chunk_id].path))
        ]
        return _Ranked(found, evidence, vector, language, nearness)

    def _read(self, query: str, ranked: _Ranked) -> Reading:
        chunks = [chunk for chunk, *_ in ranked.found]
        sentence, information = 0.0, None
        if ranked.language.trust and self.embedder is not None:
            vector = self._vector(query) if ranked.vector is None else ranked.vector
            texts = [chunk.text for chunk in chunks[:_READ_FOR_MEANING]]
            sentence = nearest_sentence(vector, texts, self.embedder) if vector is not None else 0.0
        if ranked.language.trust < 1 and is_chinese(query):
            read = chunks[:_READ_FOR_WORDS]
            information = shared_information(
                query, [" ".join((c.path, *c.heading_path, c.text)) for c in read]
            )
        said = max((ranked.evidence.get(chunk.id, 0.0) for chunk in chunks), default=0.0)
        return Reading(said, sentence, information)

    def _reranked(
        self, query: str, found: list[tuple[Chunk, float, float]], limit: int
    ) -> list[tuple[Chunk, float, float]]:
        """Let the reranker choose among the first, where there is one."""
        if self._reranker is None or not found:
            return found[:limit]
        first = found[: max(limit, self._reranked_most)]
        texts = [embedding_text(chunk.heading_path, chunk.text) for chunk, _, _ in first]
        try:
            scores = self._reranker.rerank(query, texts)
        except ContextTooLong:  # a question that leaves no room for passages
            return found[:limit]
        ranked = sorted(zip(first, scores, strict=True), key=lambda item: -item[1])
        return [(chunk, float(score), near) for (chunk, _, near), score in ranked[:limit]]

    def _n_chunks(self, collections: frozenset[str] | None) -> int:
        known = self.library.collections()
        return sum(info.n_chunks for info in known if collections is None or info.name in collections)

    def embedder_for(self, question: str) -> Embedder | None:
        """Give the embedder where it can tell texts apart in the question's language."""
        return self.embedder if self._calibration().of(chinese=is_chinese(question)).trust else None

    def is_empty(self, collections: frozenset[str] | None = None) -> bool:
        """Tell whether there is nothing to search."""
        return self.library.is_empty(collections)

    def _vector(self, query: str) -> NDArray[np.float32] | None:
        if self.embedder is None:
            return None
        vector: NDArray[np.float32] = self.embedder.embed([_shorten(query, self.embedder)], kind="query")[0]
        return vector

    def _cosines(
        self,
        vector: NDArray[np.float32] | None,
        collections: frozenset[str] | None,
        limit: int,
        others: Mapping[int, float],
    ) -> dict[int, float]:
        """Give the cosine of the nearest chunks, and of `others`, with the query."""
        if vector is None:
            return {}
        hits = self.library.search_dense(vector, limit=limit, collections=collections)
        cosines = {hit.chunk_id: hit.score for hit in hits}
        missing = [chunk_id for chunk_id in others if chunk_id not in cosines]
        return cosines | self.library.cosines(vector, missing)

    def _calibration(self) -> Calibration:
        with self._calibrating:
            if self._measured is None:
                self._measured = calibrate(self.embedder)
            return self._measured


def _merge(found: Sequence[tuple[Chunk, float, float]]) -> list[Passage]:
    """Join chunks that follow one another in a document; a passage ranks as its best chunk does."""
    documents: dict[int, list[tuple[Chunk, float, float]]] = defaultdict(list)
    for item in found:
        documents[item[0].document_id].append(item)
    passages = []
    for items in documents.values():
        items.sort(key=lambda item: item[0].ordinal)
        run = [items[0]]
        for before, after in pairwise(items):
            if after[0].ordinal != before[0].ordinal + 1:
                passages.append(_passage(run))
                run = []
            run.append(after)
        passages.append(_passage(run))
    return sorted(passages, key=lambda passage: -passage.score)


def passage_of(chunks: Sequence[Chunk]) -> Passage:
    """Make a passage of chunks that follow one another in a document, found without a search."""
    return _passage([(chunk, 0.0, 0.0) for chunk in chunks])


def _passage(run: Sequence[tuple[Chunk, float, float]]) -> Passage:
    first = run[0][0]
    best = max(run, key=lambda item: item[1])
    parts = [first.text]
    for (before, *_), (after, *_) in pairwise(run):
        # A heading that changes within the passage must not get lost: it says what the next part is about.
        heading = after.heading_path[-1:] if after.heading_path != before.heading_path else ()
        # What a chunk repeats of the one before it stands there already.
        parts.append("\n".join((*heading, after.text[after.n_overlap :])))
    return Passage(
        chunk_ids=tuple(chunk.id for chunk, *_ in run),
        document_id=first.document_id,
        path=first.path,
        title=first.title,
        collection=first.collection,
        heading_path=first.heading_path,
        page=first.page,
        text="\n\n".join(parts),
        score=best[1],
        similarity=max(near for *_, near in run),
    )


def _shorten(query: str, embedder: Embedder) -> str:
    """Keep the end of a query that the embedder cannot read whole: the question mostly comes last."""
    special = 2
    while query and (n := embedder.count_tokens(query) + special) > embedder.max_tokens:
        keep = max(1, len(query) * embedder.max_tokens // n - 1)
        query = query[-keep:] if keep < len(query) else query[1:]
    return query
