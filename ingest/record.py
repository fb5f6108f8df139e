"""The record: one SQLite file that holds the truth; Chroma and tantivy are derived from it."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ingest.connection import Connections, named_errors
from ingest.errors import EmbedderMismatch, RecordError
from ingest.index_feed import OWNERS, IndexFeed
from ingest.record_rows import (
    DELETED,
    delete_document,
    ensure_collection,
    move_document,
    note_deletion,
    read_place,
    replace_chunks,
    upsert_document,
    write_version,
)
from ingest.schema import migrate
from ingest.values import (
    Chunk,
    ChunkDraft,
    CollectionInfo,
    DocumentInfo,
    DocumentState,
    FileFacts,
    KnownFile,
    NewVersion,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

MAX_ATTEMPTS = 3
_CHUNK_COLUMNS = """
    SELECT c.id, d.id, d.path, v.title, k.name, c.ordinal, c.heading_path, c.page, c.text, c.n_tokens,
    c.start_offset, c.end_offset, c.n_overlap, c.indexed, c.place
"""
_LISTED_CHUNKS = f" FROM json_each(?) j CROSS JOIN chunks c ON c.id = j.value {OWNERS}"
_VISIBLE_CHUNKS = (
    f"SELECT c.id {_LISTED_CHUNKS}"  # noqa: S608 - put together from literals
    " WHERE ? IS NULL OR k.name IN (SELECT value FROM json_each(?))"
)
_VERSION_CHUNKS = f" FROM chunks c {OWNERS} WHERE c.version_id = ?"


class Record:
    """Read and write the record; safe from any thread, writes one after the other."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.feed = IndexFeed(connections)
        """What the derived indexes read."""

    @classmethod
    def open(cls, path: Path) -> Record:
        """Open or create the record at `path`; raises RecordError, RecordTooNew or StorageFull."""
        connections = Connections(path)
        try:
            with connections.maintaining() as writer:
                migrate(writer)
        except BaseException:
            connections.close()
            raise
        return cls(connections)

    def close(self) -> None:
        """Close the file; later calls raise LibraryClosed."""
        self._connections.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all reads inside see one state, whatever is published meanwhile."""
        with self._connections.reading():
            yield

    # --- chunks -------------------------------------------------------------------------------------

    def chunks(self, ids: Sequence[int]) -> list[Chunk]:
        """Return the visible chunks in the order of `ids`; one snapshot, so never two versions."""
        with self._connections.reading() as reader:
            rows = reader.execute(
                _CHUNK_COLUMNS + _LISTED_CHUNKS, (json.dumps([int(i) for i in ids]),)
            ).fetchall()
        found = {row[0]: _chunk(row) for row in rows}
        return [found[i] for i in ids if i in found]

    def neighbours(self, chunk_id: int, *, before: int, after: int) -> list[Chunk]:
        """Return the chunk with up to `before` and `after` others of its document, in reading order."""
        with self._connections.reading() as reader:
            place = reader.execute(
                "SELECT version_id, ordinal FROM chunks WHERE id = ?", (int(chunk_id),)
            ).fetchone()
            if place is None:
                return []
            rows = reader.execute(
                _CHUNK_COLUMNS + _VERSION_CHUNKS + " AND c.ordinal BETWEEN ? AND ? ORDER BY c.ordinal",
                (place[0], place[1] - before, place[1] + after),
            ).fetchall()
        return [_chunk(row) for row in rows]

    def document_chunks(self, document_id: int) -> list[Chunk]:
        """Return all visible chunks of a document, in reading order."""
        with self._connections.reading() as reader:
            version = reader.execute(
                "SELECT id FROM versions WHERE document_id = ?", (document_id,)
            ).fetchone()
            rows = reader.execute(
                _CHUNK_COLUMNS + _VERSION_CHUNKS + " ORDER BY c.ordinal",
                version or (0,),
            ).fetchall()
        return [_chunk(row) for row in rows]

    def drafts(self, document_id: int) -> list[ChunkDraft]:
        """Return a document's chunks as they were cut."""
        with self._connections.reading() as reader:
            rows = reader.execute(
                "SELECT c.text, c.heading_path, c.page, c.n_tokens, c.start_offset, c.end_offset,"
                " c.n_overlap, c.indexed OR c.words_hash IS NOT NULL, c.place"
                " FROM chunks c JOIN versions v ON v.id = c.version_id"
                " WHERE v.document_id = ? ORDER BY c.ordinal",
                (document_id,),
            ).fetchall()
        return [
            ChunkDraft(
                text,
                tuple(json.loads(path)),
                page,
                n_tokens,
                start,
                end,
                n_overlap,
                bool(searchable),
                read_place(place),
            )
            for text, path, page, n_tokens, start, end, n_overlap, searchable, place in rows
        ]

    def visible(self, ids: Iterable[int], collections: frozenset[str] | None = None) -> set[int]:
        """Return those of `ids` that are visible, and in one of `collections` where given."""
        names = None if collections is None else json.dumps(sorted(collections))
        with self._connections.reading() as reader:
            rows = reader.execute(
                _VISIBLE_CHUNKS,
                (json.dumps([int(i) for i in ids]), names, names),
            ).fetchall()
        return {row[0] for row in rows}

    # --- documents ----------------------------------------------------------------------------------

    def collections(self) -> list[CollectionInfo]:
        """Return the collections that hold at least one document, by name."""
        with self._connections.reading() as reader:
            rows = reader.execute(
                """SELECT k.name, count(DISTINCT d.id), count(c.id) FROM collections k
                JOIN documents d ON d.collection_id = k.id LEFT JOIN versions v ON v.document_id = d.id
                LEFT JOIN chunks c ON c.version_id = v.id GROUP BY k.id ORDER BY k.name"""
            ).fetchall()
        return [CollectionInfo(*row) for row in rows]

    def collection_names(self) -> list[str]:
        """Return their names alone: quickly, however many chunks they hold."""
        with self._connections.reading() as reader:
            rows = reader.execute(
                """SELECT name FROM collections WHERE id IN (SELECT collection_id FROM documents)
                ORDER BY name"""
            ).fetchall()
        return [row[0] for row in rows]

    def is_empty(self, names: frozenset[str] | None = None) -> bool:
        """Tell whether the named collections, or all, hold no chunk."""
        ids = self.collection_ids(names)
        with self._connections.reading() as reader:
            found = reader.execute(
                f"""SELECT EXISTS (SELECT 1 FROM documents d JOIN versions v ON v.document_id = d.id
                WHERE d.collection_id IN ({",".join("?" * len(ids))})
                AND EXISTS (SELECT 1 FROM chunks c WHERE c.version_id = v.id))""",  # noqa: S608 (marks only)
                ids,
            ).fetchone()
        return not found[0]

    def collection_ids(self, names: frozenset[str] | None = None) -> list[int]:
        """Return the ids of the named collections, or of all."""
        with self._connections.reading() as reader:
            rows = reader.execute("SELECT id, name FROM collections ORDER BY id").fetchall()
        return [row[0] for row in rows if names is None or row[1] in names]

    def documents(self) -> list[DocumentInfo]:
        """Return every document with its state, by path."""
        with self._connections.reading() as reader:
            rows = reader.execute(
                """SELECT d.id, d.path, k.name, coalesce(v.title, ''), d.state, coalesce(v.number, 0),
                count(c.id), coalesce(sum(c.n_tokens), 0), d.reason, d.attempts, d.size, d.mtime_ns,
                d.seconds, v.created_at, coalesce(v.offsets_in_file, 0)
                FROM documents d JOIN collections k ON k.id = d.collection_id
                LEFT JOIN versions v ON v.document_id = d.id LEFT JOIN chunks c ON c.version_id = v.id
                GROUP BY d.id ORDER BY d.path"""
            ).fetchall()
        return [DocumentInfo(*row) for row in rows]

    def known_files(self) -> dict[str, KnownFile]:
        """Return what was last seen of every file, by path."""
        with self._connections.reading() as reader:
            rows = reader.execute(
                "SELECT id, path, size, mtime_ns, inode, sha256, state, attempts FROM documents"
            ).fetchall()
        return {
            row[1]: KnownFile(row[0], row[1], FileFacts(*row[2:5]), row[5], row[6], row[7]) for row in rows
        }

    def publish(self, *versions: NewVersion) -> list[int]:
        """Make new versions visible and the old ones invisible in one transaction; return the documents' ids.

        A chunk whose text and headings did not change keeps its id, so the indexes need not touch it.
        """
        ids: list[int] = []
        with self._connections.writing() as writer:
            for new in versions:
                document_id, collection_id = upsert_document(
                    writer, new.path, new.facts, new.sha256, "indexed", None, 0, new.seconds, new.collection
                )
                version_id = write_version(writer, document_id, new)
                replace_chunks(writer, document_id, version_id, collection_id, new.chunks)
                ids.append(document_id)
        return ids

    def recut(self, document_id: int, drafts: Sequence[ChunkDraft]) -> None:
        """Replace the chunks of a document whose text did not change: another tokenizer, another budget."""
        with self._connections.writing() as writer:
            version_id, collection_id = writer.execute(
                "SELECT v.id, d.collection_id FROM versions v JOIN documents d ON d.id = v.document_id"
                " WHERE d.id = ?",
                (document_id,),
            ).fetchone()
            replace_chunks(writer, document_id, version_id, collection_id, drafts)

    def move(self, document_id: int, path: str, collection: str, facts: FileFacts) -> None:
        """Give a document its new path; text, chunks and vectors stay."""
        with self._connections.writing() as writer:
            move_document(writer, document_id, path, ensure_collection(writer, collection), facts)

    def touch(self, document_id: int, facts: FileFacts) -> None:
        """Note new file facts of unchanged content."""
        with self._connections.writing() as writer:
            writer.execute(
                "UPDATE documents SET size = ?, mtime_ns = ?, inode = ? WHERE id = ?",
                (facts.size, facts.mtime_ns, facts.inode, document_id),
            )

    def fail(
        self,
        path: str,
        collection: str,
        facts: FileFacts,
        sha256: bytes,
        reason: str,
        *,
        verdict: Literal["passing", "counted", "final"],
        seconds: float = 0.0,
    ) -> DocumentState:
        """Note that a file could not be read; the last good version, if any, stays visible.

        The third `counted` failure on the same content, or a `final` one, is quarantined until the file
        changes; a `passing` one (permissions, say) is tried again in every pass.
        """
        with self._connections.writing() as writer:
            row = writer.execute("SELECT sha256, attempts FROM documents WHERE path = ?", (path,)).fetchone()
            attempts = row[1] + 1 if row is not None and row[0] == sha256 else 1
            counted_out = verdict == "counted" and attempts >= MAX_ATTEMPTS
            state: DocumentState = "quarantined" if verdict == "final" or counted_out else "failed"
            upsert_document(writer, path, facts, sha256, state, reason, attempts, seconds, collection)
        return state

    def retry(self, path: str) -> bool:
        """Take a document out of quarantine; False when there is none at this path."""
        with self._connections.writing() as writer:
            return bool(
                writer.execute(
                    "UPDATE documents SET state = 'failed', attempts = 0"
                    " WHERE path = ? AND state != 'indexed'",
                    (path,),
                ).rowcount
            )

    def delete(self, document_ids: Sequence[int]) -> None:
        """Remove documents with all that was made of them, vectors included."""
        with self._connections.writing() as writer:
            for document_id in document_ids:
                delete_document(writer, document_id)
            note_deletion(writer)

    # --- vectors ------------------------------------------------------------------------------------

    def embedder_id(self, fingerprint: str, dimension: int) -> int:
        """Return the number under which vectors of this fingerprint are kept."""
        with self._connections.writing() as writer:
            writer.execute(
                "INSERT OR IGNORE INTO embedders (fingerprint, dimension) VALUES (?, ?)",
                (fingerprint, dimension),
            )
            row = writer.execute(
                "SELECT id, dimension FROM embedders WHERE fingerprint = ?", (fingerprint,)
            ).fetchone()
        if row[1] != dimension:
            raise EmbedderMismatch(
                f"the embedder gives {dimension} numbers a vector; the record has {row[1]}"
            )
        return int(row[0])

    def missing_vectors(self, embedder_id: int, hashes: Sequence[bytes]) -> set[bytes]:
        """Return those of `hashes` that have no vector yet."""
        with self._connections.reading() as reader:
            return {
                h
                for h in set(hashes)
                if reader.execute(
                    "SELECT 1 FROM vectors WHERE embedder_id = ? AND text_hash = ?", (embedder_id, h)
                ).fetchone()
                is None
            }

    def store_vectors(self, embedder_id: int, hashes: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        """Keep one float32 vector per text hash; raises EmbedderMismatch on another shape."""
        with self._connections.writing() as writer:
            (dimension,) = writer.execute(
                "SELECT dimension FROM embedders WHERE id = ?", (embedder_id,)
            ).fetchone()
            if vectors.shape != (len(hashes), dimension):
                raise EmbedderMismatch(f"got vectors {vectors.shape}, expected ({len(hashes)}, {dimension})")
            rows = np.ascontiguousarray(vectors, dtype="<f4")
            writer.executemany(
                "INSERT OR REPLACE INTO vectors (embedder_id, text_hash, vector) VALUES (?, ?, ?)",
                [(embedder_id, h, row.tobytes()) for h, row in zip(hashes, rows, strict=True)],
            )

    def drop_unused(self, keep_embedder: int) -> None:
        """Delete vectors of other embedders and of texts that no chunk has, and empty collections."""
        with self._connections.writing() as writer:
            writer.execute(
                "DELETE FROM vectors WHERE embedder_id != ?"
                " OR text_hash NOT IN (SELECT text_hash FROM chunks)",
                (keep_embedder,),
            )
            writer.execute("DELETE FROM embedders WHERE id != ?", (keep_embedder,))
            writer.execute("DELETE FROM collections WHERE id NOT IN (SELECT collection_id FROM documents)")

    # --- notes --------------------------------------------------------------------------------------

    def meta(self, key: str) -> str | None:
        """Return a note of the library's own, None when absent."""
        with self._connections.reading() as reader:
            row = reader.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, **notes: str) -> None:
        """Write notes in one transaction."""
        with self._connections.writing() as writer:
            writer.executemany("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", list(notes.items()))

    # --- upkeep -------------------------------------------------------------------------------------

    def holds_deleted(self) -> bool:
        """Tell whether text was deleted since the last compaction."""
        return self.meta(DELETED) == "1"

    def note_compacted(self) -> None:
        """Note that nothing deleted is left, in the indexes either."""
        self.set_meta(**{DELETED: "0"})

    def compact(self) -> None:
        """Rewrite the file and empty its log, so that deleted bytes are gone from the disk's files."""
        with self._connections.maintaining() as writer:
            writer.execute("VACUUM")
            (busy, _, _) = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise RecordError("the record's log cannot be emptied while somebody reads; compact again")

    def check(self) -> str | None:
        """Return what SQLite finds wrong with the file, None when nothing."""
        with self._connections.reading() as reader, named_errors(self._connections.path):
            row = reader.execute("PRAGMA quick_check(1)").fetchone()
        return None if row[0] == "ok" else str(row[0])


def _chunk(row: tuple[Any, ...]) -> Chunk:
    return Chunk(
        id=row[0],
        document_id=row[1],
        path=row[2],
        title=row[3],
        collection=row[4],
        ordinal=row[5],
        heading_path=tuple(json.loads(row[6])),
        page=row[7],
        text=row[8],
        n_tokens=row[9],
        start=row[10],
        end=row[11],
        n_overlap=row[12],
        indexed=bool(row[13]),
        place=read_place(row[14]),
    )
