"""Find the passages that a question is about: dense and lexical search, fused, floored, merged."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from threading import Lock
from typing import Literal

from engine.errors import ContextTooLong
from ingest.values import Chunk, embedding_text
from rag.language import is_chinese
from rag.ports import Embedder, Library, Reranker
from rag.relevance import UNKNOWN, Calibration, Nearness, calibrate

Side = Literal["both", "words", "meaning"]
"""Which search finds candidates."""

# What is clearly worse than the best is left out.
_LEAST_OF_BEST = 0.5


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

    def _search(
        self,
        query: str,
        collections: frozenset[str] | None,
        n_candidates: int,
        accepts: Callable[[str], bool] | None,
        side: Side,
    ) -> list[tuple[Chunk, float, float]]:
        nearness = UNKNOWN
        if side != "words":
            nearness = self._calibration().of(chinese=is_chinese(query)).for_question(query)
        least = nearness.least(with_words=side != "meaning")
        evidence: dict[int, float] = {}
        if side != "meaning":
            lexical = self.library.search_lexical(query, limit=n_candidates, collections=collections)
            evidence = {hit.chunk_id: hit.score for hit in lexical}
        cosines = self._cosines(query, collections, n_candidates, evidence) if nearness.trust else {}
        ranked = fuse(cosines, evidence, nearness)
        chunks = {chunk.id: chunk for chunk in self.library.chunks([chunk_id for chunk_id, _ in ranked])}
        found: list[tuple[Chunk, float, float]] = []
        for chunk_id, score in ranked:
            chunk = chunks.get(chunk_id)  # it may have gone between the search and now
            near = cosines.get(chunk_id, 0.0)
            if chunk is None or (accepts is not None and not accepts(chunk.path)):
                continue
            if score >= least or (found and score >= _LEAST_OF_BEST * found[0][1]):
                found.append((chunk, score, near))
        return found

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

    def _cosines(
        self,
        query: str,
        collections: frozenset[str] | None,
        limit: int,
        others: Mapping[int, float],
    ) -> dict[int, float]:
        """Give the cosine of the nearest chunks, and of `others`, with the query."""
        if self.embedder is None:
            return {}
        vector = self.embedder.embed([_shorten(query, self.embedder)], kind="query")[0]
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
