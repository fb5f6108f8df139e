"""Steps of the record's writing transactions; each is called inside one."""

from __future__ import annotations

import datetime
import json
from collections import defaultdict
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ingest.copies import is_wanted, promote, put_in, queue, take_out
from ingest.values import Place

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from ingest.values import ChunkDraft, DocumentState, FileFacts, NewVersion

# A note of the library's own; written in the transaction that deletes, so that a kill cannot lose it.
DELETED = "deleted_since_compaction"


def place_json(place: Place | None) -> str | None:
    """Write a place as the record keeps it."""
    return None if place is None else json.dumps([place.unit, place.first, place.last])


def read_place(stored: str | None) -> Place | None:
    """Read a place as the record keeps it."""
    return None if stored is None else Place(*json.loads(stored))


def note_deletion(writer: sqlite3.Connection) -> None:
    writer.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, '1')", (DELETED,))


def ensure_collection(writer: sqlite3.Connection, name: str) -> int:
    writer.execute("INSERT OR IGNORE INTO collections (name) VALUES (?)", (name,))
    (collection_id,) = writer.execute("SELECT id FROM collections WHERE name = ?", (name,)).fetchone()
    return int(collection_id)


def upsert_document(
    writer: sqlite3.Connection,
    path: str,
    facts: FileFacts,
    sha256: bytes,
    state: DocumentState,
    reason: str | None,
    attempts: int,
    seconds: float,
    collection: str,
) -> tuple[int, int]:
    """Write the document's row; return its id and its collection's. A path never changes its collection."""
    collection_id = ensure_collection(writer, collection)
    writer.execute(
        "INSERT INTO documents (path, collection_id, size, mtime_ns, inode, sha256, state, reason, attempts,"
        " seconds) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (path) DO UPDATE SET"
        " size = excluded.size, mtime_ns = excluded.mtime_ns, inode = excluded.inode,"
        " sha256 = excluded.sha256, state = excluded.state, reason = excluded.reason,"
        " attempts = excluded.attempts, seconds = excluded.seconds",
        (
            path, collection_id, facts.size, facts.mtime_ns, facts.inode, sha256, state, reason, attempts,
            seconds,
        ),
    )  # fmt: skip
    row = writer.execute("SELECT id, collection_id FROM documents WHERE path = ?", (path,)).fetchone()
    return int(row[0]), int(row[1])


def write_version(writer: sqlite3.Connection, document_id: int, new: NewVersion) -> int:
    """Write the row of a document's next version; return its id."""
    created_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    writer.execute(
        "INSERT INTO versions (document_id, number, sha256, title, created_at, offsets_in_file)"
        " VALUES (?, 1, ?, ?, ?, ?) ON CONFLICT (document_id) DO UPDATE SET number = number + 1,"
        " sha256 = excluded.sha256, title = excluded.title, created_at = excluded.created_at,"
        " offsets_in_file = excluded.offsets_in_file",
        (document_id, new.sha256, new.title, created_at, new.offsets_in_file),
    )
    (version_id,) = writer.execute("SELECT id FROM versions WHERE document_id = ?", (document_id,)).fetchone()
    return int(version_id)


def delete_document(writer: sqlite3.Connection, document_id: int) -> None:
    """Remove a document with its chunks, and let copies of them elsewhere take their place."""
    (collection_id,) = writer.execute(
        "SELECT collection_id FROM documents WHERE id = ?", (document_id,)
    ).fetchone()
    hashes = take_out(writer, document_id, collection_id)
    writer.execute("DELETE FROM documents WHERE id = ?", (document_id,))
    for words_hash in hashes:
        promote(writer, collection_id, words_hash)


def move_document(
    writer: sqlite3.Connection, document_id: int, path: str, new: int, facts: FileFacts
) -> None:
    """Give a document its path and collection; text, chunks and vectors stay."""
    old, old_path = writer.execute(
        "SELECT collection_id, path FROM documents WHERE id = ?", (document_id,)
    ).fetchone()
    # A title of its own stays; the file's name in its place does not.
    writer.execute(
        "UPDATE versions SET title = ? WHERE document_id = ? AND title = ?",
        (PurePosixPath(path).stem, document_id, PurePosixPath(old_path).stem),
    )
    hashes = take_out(writer, document_id, old) if old != new else []
    writer.execute(
        "UPDATE documents SET path = ?, collection_id = ?, size = ?, mtime_ns = ?, inode = ? WHERE id = ?",
        (path, new, facts.size, facts.mtime_ns, facts.inode, document_id),
    )
    if old == new:
        # The words of its name are indexed with it.
        _index_anew(writer, document_id, new)
        return
    for words_hash in hashes:
        promote(writer, old, words_hash)
    chunks = writer.execute(
        "SELECT c.id, c.words_hash FROM chunks c JOIN versions v ON v.id = c.version_id"
        " WHERE v.document_id = ? AND (c.words_hash IS NOT NULL OR c.indexed) ORDER BY c.ordinal",
        (document_id,),
    ).fetchall()
    for chunk_id, words_hash in chunks:
        if is_wanted(writer, new, document_id, words_hash):
            put_in(writer, new, chunk_id)


def _index_anew(writer: sqlite3.Connection, document_id: int, collection_id: int) -> None:
    rows = writer.execute(
        "SELECT c.id FROM chunks c JOIN versions v ON v.id = c.version_id"
        " WHERE v.document_id = ? AND c.indexed",
        (document_id,),
    ).fetchall()
    for (chunk_id,) in rows:
        put_in(writer, collection_id, chunk_id)


def replace_chunks(
    writer: sqlite3.Connection,
    document_id: int,
    version_id: int,
    collection_id: int,
    drafts: Sequence[ChunkDraft],
) -> None:
    """Turn the version's chunks into `drafts`; equal ones keep their row, others are queued for indexing."""
    kept: dict[tuple[str, str], list[tuple[int, bytes | None, int]]] = defaultdict(list)
    for chunk_id, headings, text, words_hash, indexed in writer.execute(
        "SELECT id, heading_path, text, words_hash, indexed FROM chunks WHERE version_id = ?"
        " ORDER BY ordinal DESC",
        (version_id,),
    ):
        kept[headings, text].append((chunk_id, words_hash, indexed))
    fresh: list[tuple[int, str, ChunkDraft]] = []
    for ordinal, draft in enumerate(drafts):
        headings = json.dumps(draft.heading_path, ensure_ascii=False)
        if same := kept.get((headings, draft.text)):
            place = (
                ordinal, draft.n_tokens, draft.page, draft.start, draft.end, draft.n_overlap,
                place_json(draft.place),
            )  # fmt: skip
            writer.execute(
                "UPDATE chunks SET ordinal = ?, n_tokens = ?, page = ?, start_offset = ?, end_offset = ?,"
                " n_overlap = ?, place = ? WHERE id = ?",
                (*place, same.pop()[0]),
            )
        else:
            fresh.append((ordinal, headings, draft))
    gone = [row for rows in kept.values() for row in rows]
    if gone:
        note_deletion(writer)
    writer.executemany("DELETE FROM chunks WHERE id = ?", [(row[0],) for row in gone])
    for chunk_id, words_hash, indexed in gone:
        if indexed:
            queue(writer, chunk_id, collection_id, "remove")
            promote(writer, collection_id, words_hash)
    for ordinal, headings, draft in fresh:
        _insert(writer, document_id, version_id, collection_id, ordinal, headings, draft)


def _insert(
    writer: sqlite3.Connection,
    document_id: int,
    version_id: int,
    collection_id: int,
    ordinal: int,
    headings: str,
    draft: ChunkDraft,
) -> None:
    # Without a hash and not indexed: kept and never searched, whatever else comes and goes.
    words_hash = draft.words_hash if draft.searchable else None
    wanted = draft.searchable and is_wanted(writer, collection_id, document_id, words_hash)
    chunk_id = writer.execute(
        "INSERT INTO chunks (ordinal, n_tokens, page, start_offset, end_offset, n_overlap, version_id, text,"
        " text_hash, heading_path, words_hash, place, indexed)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
        (
            ordinal, draft.n_tokens, draft.page, draft.start, draft.end, draft.n_overlap, version_id,
            draft.text, draft.text_hash, headings, words_hash, place_json(draft.place),
        ),
    ).lastrowid  # fmt: skip
    if chunk_id is None:
        raise AssertionError("SQLite returned no row id for an inserted chunk")
    if wanted:
        put_in(writer, collection_id, chunk_id)
