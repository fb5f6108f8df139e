"""Words in tantivy: BM25 over segmented text. Derived from the record; may be deleted at any time."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingest.errors import IndexDamaged
from ingest.values import Hit
from ingest.words import Wanted, query_parts, synonyms, words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import tantivy

# A query is a question, not a document; more words than this only cost time.
MAX_QUERY_TERMS = 128
# A word that stands in more than this share of the chunks tells them apart too little to be worth its time.
_COMMON_SHARE = 0.3
# An identifier or a number that a question names says more than its rarity does.
_IDENTIFIER_BOOST = 1.5
# What a word of like meaning counts beside the word itself.
_LIKE = 0.7
# The best that questions about quite other things find: measured on libraries of 56 to 1,461 chunks.
_CHANCE, _CHANCE_GROWS = 0.6, 0.075
# BM25 as tantivy has it: a term's score tends to idf * (k1 + 1).
_K1 = 1.2
_WRITER_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Weight:
    """A term's inverse document frequency, the boost it gets, and whether any chunk has it."""

    idf: float
    boost: float
    is_known: bool

    @property
    def worth(self) -> float:
        return self.idf * self.boost


@contextlib.contextmanager
def _damage() -> Iterator[None]:
    """Turn whatever a broken index raises into IndexDamaged, a panic of tantivy included."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, IndexDamaged):
        raise
    except BaseException as error:
        raise IndexDamaged(f"tantivy: {type(error).__name__}: {error}") from error


class LexicalIndex:
    """One tantivy index in a folder of ours."""

    def __init__(self, index: tantivy.Index, schema: tantivy.Schema, analyzer: tantivy.TextAnalyzer) -> None:
        self._index = index
        self._schema = schema
        self._analyzer = analyzer
        self._writer: tantivy.IndexWriter | None = None
        self._like = {
            stem: tuple((other,) for other in others if other != stem)
            for name, alike in synonyms("en").items()
            if (stem := self._stem(name))
            for others in [dict.fromkeys(map(self._stem, alike))]
        }

    @classmethod
    def open(cls, folder: Path) -> LexicalIndex:
        """Open or create the index; raises IndexDamaged."""
        import tantivy

        folder.mkdir(parents=True, exist_ok=True)
        schema = (
            tantivy.SchemaBuilder()
            .add_unsigned_field("chunk_id", stored=True, indexed=True, fast=True)
            .add_unsigned_field("collection_id", stored=False, indexed=True, fast=True)
            # No positions: phrases are not asked for. Not stored: the record holds the text.
            .add_text_field("words", stored=False, tokenizer_name="words", index_option="freq")
            .build()
        )
        with _damage():
            index = tantivy.Index(schema, path=str(folder))
            # Words are cut by spaces, because words() is joined by them; English ones lose their endings,
            # and those that stand in every text are left out. Chinese passes through unchanged.
            analyzer = (
                tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace())
                .filter(tantivy.Filter.stopword("english"))
                .filter(tantivy.Filter.stemmer("english"))
                .build()
            )
            index.register_tokenizer("words", analyzer)
            index.config_reader("manual")
        return cls(index, schema, analyzer)

    def count(self) -> int:
        """Return the number of chunks in the index."""
        with _damage():
            return int(self._index.searcher().num_docs)

    def _open_writer(self) -> tantivy.IndexWriter:
        if self._writer is None:
            self._writer = self._index.writer(heap_size=_WRITER_BYTES, num_threads=1)
        return self._writer

    def add(self, rows: Iterable[tuple[int, int, str]]) -> None:
        """Add (chunk id, collection id, text); known ids are replaced. Visible after commit()."""
        import tantivy

        rows = list(rows)
        self.delete([chunk_id for chunk_id, _, _ in rows])
        with _damage():
            writer = self._open_writer()
            for chunk_id, collection_id, text in rows:
                document = tantivy.Document()
                document.add_unsigned("chunk_id", chunk_id)
                document.add_unsigned("collection_id", collection_id)
                document.add_text("words", " ".join(words(text)))
                writer.add_document(document)

    def delete(self, ids: Sequence[int]) -> None:
        """Remove chunks; unknown ids are ignored. Gone after commit()."""
        from tantivy import Query

        if ids:
            with _damage():
                # By query: delete_documents_by_term takes a Python int for signed and finds nothing.
                known = Query.term_set_query(self._schema, "chunk_id", list(ids))
                self._open_writer().delete_documents_by_query(known)

    def commit(self) -> None:
        """Make all changes durable and searchable."""
        with _damage():
            if self._writer is not None:
                self._writer.commit()
                self._index.reload()

    def search(self, query: str, *, limit: int, collection_ids: Sequence[int] | None) -> list[Hit]:
        """Return the best chunks by BM25; any text is a valid query, none of it is syntax.

        score: how much a chunk says of what was asked, comparable between queries and libraries. It is the
        geometric mean of two: the share of what the query's words could give at most, 0 to 1, which a single
        word too common to mean anything may fill; and the same in words that a single chunk has, of which a
        long question gathers some by chance. The more chunks, the more chance: so it is divided by what
        grows with their logarithm.
        """
        from tantivy import Occur, Query

        if limit < 1 or (collection_ids is not None and not collection_ids):
            return []
        with _damage():
            searcher = self._index.searcher()
            parts = self._parts(query)
            weights = self._weights(searcher, parts)
            clauses = [clause for part in parts if (clause := self._clause(part, weights)) is not None]
            if not clauses:
                return []
            asked = Query.boolean_query([(Occur.Should, clause) for clause in clauses])
            if collection_ids is not None:
                allowed = Query.term_set_query(self._schema, "collection_id", list(collection_ids))
                asked = Query.boolean_query(
                    [(Occur.Must, asked), (Occur.Must, Query.const_score_query(allowed, 0.0))]
                )
            found = searcher.search(asked, limit=limit, count=False).hits
            ids = searcher.fast_field_values("chunk_id", [address for _, address in found])
        most = sum(_worth(part, weights) for part in parts)
        n_chunks = searcher.num_docs
        whole = (
            (_K1 + 1) * math.sqrt(most * _idf(1, n_chunks)) * (_CHANCE + _CHANCE_GROWS * math.log1p(n_chunks))
        )
        hits = [
            Hit(int(i), float(score) / whole)
            for i, (score, _) in zip(ids, found, strict=True)
            if i is not None
        ]
        # Equals come in the order in which tantivy happens to keep them.
        return sorted(hits, key=lambda hit: (-hit.score, hit.chunk_id))

    def _parts(self, query: str) -> list[Wanted]:
        """Give what the query names, in the index's terms."""
        parts = []
        for part in query_parts(query):
            terms = self._terms(part.words)
            others = [self._terms(other) for other in part.instead]
            if len(terms) == 1:
                others += self._like.get(terms[0], ())
            parts.append(Wanted(terms, tuple(dict.fromkeys(other for other in others if other))))
        return list(dict.fromkeys(parts))[:MAX_QUERY_TERMS]

    def _terms(self, found: Sequence[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._analyzer.analyze(" ".join(found))))

    def _stem(self, word: str) -> str:
        return next(iter(self._analyzer.analyze(word)), "")

    def _weights(self, searcher: tantivy.Searcher, parts: Sequence[Wanted]) -> dict[str, _Weight]:
        """Weigh the terms that tell chunks apart."""
        n_chunks = searcher.num_docs
        terms = dict.fromkeys(term for part in parts for said in (part.words, *part.instead) for term in said)
        counts = {term: searcher.doc_freq("words", term) for term in terms}
        rare = {term: n for term, n in counts.items() if n <= n_chunks * _COMMON_SHARE}
        if not any(rare.values()):
            rare = counts
        return {
            term: _Weight(
                _idf(n, n_chunks),
                _IDENTIFIER_BOOST if any(character.isdigit() for character in term) else 1.0,
                n > 0,
            )
            for term, n in rare.items()
        }

    def _clause(self, part: Wanted, weights: Mapping[str, _Weight]) -> tantivy.Query | None:
        """Ask for one thing: any of its words, or all of another name's; the best of these counts."""
        from tantivy import Occur, Query

        names: list[tantivy.Query] = []
        for words_, must, factor in (
            (part.words, Occur.Should, 1.0),
            *((o, Occur.Must, _LIKE) for o in part.instead),
        ):
            known = [term for term in words_ if term in weights]
            if not known or (must == Occur.Must and not all(weights[term].is_known for term in known)):
                continue
            terms = [
                (must, _boosted(Query.term_query(self._schema, "words", term, "freq"), weights[term].boost))
                for term in known
            ]
            names.append(_boosted(terms[0][1] if len(terms) == 1 else Query.boolean_query(terms), factor))
        if len(names) < 2:
            return names[0] if names else None
        return Query.disjunction_max_query(names)

    def contains(self, chunk_id: int) -> bool:
        """Tell whether a chunk is in the index."""
        from tantivy import Query

        with _damage():
            query = Query.term_query(self._schema, "chunk_id", chunk_id)
            return bool(self._index.searcher().search(query, limit=1, count=False).hits)

    def close(self) -> None:
        """Wait for background merges and let go of the files."""
        with contextlib.suppress(IndexDamaged), _damage():
            if self._writer is not None:
                self._writer.wait_merging_threads()
        self._writer = None


def _idf(n: int, n_chunks: int) -> float:
    """Give the inverse document frequency of a term that n chunks have, as tantivy does."""
    return math.log1p((n_chunks - min(n, n_chunks) + 0.5) / (n + 0.5))


def _boosted(query: tantivy.Query, boost: float) -> tantivy.Query:
    from tantivy import Query

    return query if boost == 1.0 else Query.boost_query(query, boost)


def _worth(part: Wanted, weights: Mapping[str, _Weight]) -> float:
    """Tell what a chunk that has this thing by its best known name gains.

    Where no chunk has any of the names, the question's own count: a chunk that lacks them answers less of it.
    """
    own = sum(weights[term].worth for term in part.words if term in weights)
    if not part.words or any(weights[term].is_known for term in part.words if term in weights):
        return own
    known = (
        sum(weights[term].worth for term in other if term in weights)
        for other in part.instead
        if all(weights[term].is_known for term in other if term in weights)
    )
    return max(known, default=0.0) or own
