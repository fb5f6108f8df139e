"""Steps of the record's writing transactions; each is called inside one."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from ingest.values import ChunkDraft, DocumentState, FileFacts

# A note of the library's own; written in the transaction that deletes, so that a kill cannot lose it.
DELETED = "deleted_since_compaction"


def note_deletion(writer: sqlite3.Connection) -> None:
    writer.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, '1')", (DELETED,))


def ensure_collection(writer: sqlite3.Connection, name: str) -> int:
    writer.execute("INSERT OR IGNORE INTO collections (name) VALUES (?)", (name,))
    (collection_id,) = writer.execute("SELECT id FROM collections WHERE name = ?", (name,)).fetchone()
    return int(collection_id)


def upsert_document(
    writer: sqlite3.Connection,
    path: str,
    collection: str,
    facts: FileFacts,
    sha256: bytes,
    state: DocumentState,
    reason: str | None,
    attempts: int,
) -> tuple[int, int | None]:
    """Write the document's row; return its id, and its old collection when that differs."""
    collection_id = ensure_collection(writer, collection)
    old = writer.execute("SELECT id, collection_id FROM documents WHERE path = ?", (path,)).fetchone()
    values = (collection_id, facts.size, facts.mtime_ns, facts.inode, sha256, state, reason, attempts, path)
    if old is None:
        writer.execute(
            "INSERT INTO documents (collection_id, size, mtime_ns, inode, sha256, state, reason, attempts,"
            " path) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        )
    else:
        writer.execute(
            "UPDATE documents SET collection_id = ?, size = ?, mtime_ns = ?, inode = ?, sha256 = ?,"
            " state = ?, reason = ?, attempts = ? WHERE path = ?",
            values,
        )
    (document_id,) = writer.execute("SELECT id FROM documents WHERE path = ?", (path,)).fetchone()
    return int(document_id), None if old is None or old[1] == collection_id else int(old[1])


def queue_document(writer: sqlite3.Connection, document_id: int, collection_id: int, operation: str) -> None:
    writer.execute(
        "INSERT INTO index_queue (chunk_id, collection_id, operation)"
        " SELECT c.id, ?, ? FROM chunks c JOIN versions v ON v.id = c.version_id WHERE v.document_id = ?",
        (collection_id, operation, document_id),
    )


def replace_chunks(
    writer: sqlite3.Connection,
    version_id: int,
    collection_id: int,
    drafts: Sequence[ChunkDraft],
    *,
    reindex: bool,
) -> None:
    """Turn the version's chunks into `drafts`; equal ones keep their row, others are queued for indexing."""
    kept: dict[tuple[str, str], list[int]] = defaultdict(list)
    for chunk_id, headings, text in writer.execute(
        "SELECT id, heading_path, text FROM chunks WHERE version_id = ? ORDER BY ordinal DESC", (version_id,)
    ):
        kept[headings, text].append(chunk_id)
    queue: list[tuple[int, int, str]] = []
    for ordinal, draft in enumerate(drafts):
        headings = json.dumps(draft.heading_path, ensure_ascii=False)
        same = kept.get((headings, draft.text))
        place = (ordinal, draft.n_tokens, draft.page, draft.start, draft.end)
        if same:
            chunk_id = same.pop()
            writer.execute(
                "UPDATE chunks SET ordinal = ?, n_tokens = ?, page = ?, start_offset = ?, end_offset = ?"
                " WHERE id = ?",
                (*place, chunk_id),
            )
            if not reindex:
                continue
        else:
            inserted = writer.execute(
                "INSERT INTO chunks (ordinal, n_tokens, page, start_offset, end_offset, version_id, text,"
                " text_hash, heading_path) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*place, version_id, draft.text, draft.text_hash, headings),
            ).lastrowid
            if inserted is None:
                raise AssertionError("SQLite returned no row id for an inserted chunk")
            chunk_id = inserted
        queue.append((chunk_id, collection_id, "add"))
    gone = [chunk_id for ids in kept.values() for chunk_id in ids]
    if gone:
        note_deletion(writer)
    writer.executemany("DELETE FROM chunks WHERE id = ?", [(chunk_id,) for chunk_id in gone])
    queue += [(chunk_id, collection_id, "remove") for chunk_id in gone]
    writer.executemany("INSERT INTO index_queue (chunk_id, collection_id, operation) VALUES (?, ?, ?)", queue)
