"""Find the passages that a question is about: dense and lexical search, fused, floored, merged."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from threading import Lock

from ingest.values import Chunk
from rag.language import coverage, is_chinese, terms
from rag.ports import Embedder, Library
from rag.relevance import Floor, calibrate

# Lexical evidence on its own: most of what the question says stands in the passage.
_STRONG_COVERAGE = 0.6
# With some nearness in meaning, a third will do.
_SOME_COVERAGE = 0.34


@dataclass(frozen=True, slots=True)
class Passage:
    """One or more neighbouring chunks of a document.

    score: reciprocal rank fusion; compares only within one search.
    similarity: cosine with the question, 0 where the dense side did not find it.
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


def fuse(rankings: Sequence[Sequence[int]], *, k: int = 60) -> list[tuple[int, float]]:
    """Merge rankings by reciprocal rank: score(c) = sum 1 / (k + rank); best first.

    Ranks, because BM25 and cosine scores do not compare.
    Source: Cormack, Clarke, Buettcher, SIGIR 2009.
    """
    scores: dict[int, float] = defaultdict(float)
    for ranking in rankings:
        for rank, chunk_id in enumerate(ranking, 1):
            scores[chunk_id] += 1 / (k + rank)
    return sorted(scores.items(), key=lambda item: -item[1])


class Retriever:
    """Searches a library for questions. Thread-safe; calls block."""

    def __init__(
        self, *, embedder: Embedder | None, library: Library, limit: int = 6, candidates: int = 40
    ) -> None:
        self.embedder = embedder
        self._library = library
        self._limit = limit
        self._candidates = candidates
        self._calibrating = Lock()
        self._measured: Floor | None = None

    def search(
        self,
        query: str,
        *,
        collections: frozenset[str] | None = None,
        limit: int | None = None,
        accepts: Callable[[str], bool] | None = None,
    ) -> list[Passage]:
        """Give at most `limit` relevant passages, best first; none where nothing is relevant.

        accepts: gets the path of a document, and says whether it counts.
        """
        if not query.strip():
            return []
        limit = limit or self._limit
        n_candidates = max(self._candidates, limit)
        n_chunks = self._n_chunks(collections) if accepts else 0
        while True:
            found = self._search(query, collections, n_candidates, accepts)
            # What is not accepted takes no place: look further down until there is enough, or nothing left.
            if accepts is None or len(found) >= limit or n_candidates >= n_chunks:
                return _merge(found[:limit])
            n_candidates *= 4

    def _search(
        self,
        query: str,
        collections: frozenset[str] | None,
        n_candidates: int,
        accepts: Callable[[str], bool] | None,
    ) -> list[tuple[Chunk, float, float]]:
        similarity = self._dense(query, collections, n_candidates)
        lexical = self._library.search_lexical(query, limit=n_candidates, collections=collections)
        ranked = fuse([list(similarity), [hit.chunk_id for hit in lexical]])
        chunks = {chunk.id: chunk for chunk in self._library.chunks([chunk_id for chunk_id, _ in ranked])}
        asked, floor = terms(query), self._floor().of(chinese=is_chinese(query))
        found: list[tuple[Chunk, float, float]] = []
        for chunk_id, score in ranked:
            chunk = chunks.get(chunk_id)  # it may have gone between the search and now
            near = similarity.get(chunk_id, 0.0)
            if chunk is None or (accepts is not None and not accepts(chunk.path)):
                continue
            if _is_relevant(asked, chunk, near, floor):
                found.append((chunk, score, near))
        return found

    def _n_chunks(self, collections: frozenset[str] | None) -> int:
        known = self._library.collections()
        return sum(info.n_chunks for info in known if collections is None or info.name in collections)

    def is_empty(self, collections: frozenset[str] | None = None) -> bool:
        """Tell whether there is nothing to search."""
        return not any(
            known.n_chunks
            for known in self._library.collections()
            if collections is None or known.name in collections
        )

    def _dense(self, query: str, collections: frozenset[str] | None, n_candidates: int) -> dict[int, float]:
        if self.embedder is None:
            return {}
        vector = self.embedder.embed([_shorten(query, self.embedder)], kind="query")[0]
        hits = self._library.search_dense(vector, limit=n_candidates, collections=collections)
        return {hit.chunk_id: hit.score for hit in hits}

    def _floor(self) -> Floor:
        with self._calibrating:
            if self._measured is None:
                self._measured = calibrate(self.embedder)
            return self._measured


def _is_relevant(asked: list[str], chunk: Chunk, similarity: float, floor: float) -> bool:
    if similarity >= floor:
        return True
    held = coverage(asked, " ".join((chunk.title, *chunk.heading_path, chunk.text)))
    return held >= _STRONG_COVERAGE or (similarity >= floor * 0.7 and held >= _SOME_COVERAGE)


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


def _passage(run: Sequence[tuple[Chunk, float, float]]) -> Passage:
    first = run[0][0]
    best = max(run, key=lambda item: item[1])
    parts = [first.text]
    for (before, *_), (after, *_) in pairwise(run):
        # A heading that changes within the passage must not get lost: it says what the next part is about.
        heading = after.heading_path[-1:] if after.heading_path != before.heading_path else ()
        parts.append("\n".join((*heading, after.text)))
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
