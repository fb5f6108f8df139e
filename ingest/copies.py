"""Which of several chunks that say the same words are searched; steps of the record's transactions.

All of them stay in the record. A collection's index holds one of each document, and of COPIES documents.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ingest import values

if TYPE_CHECKING:
    import sqlite3

COPIES = 3
"""So many documents may be found by a text that stands in more: enough to choose, and no page of one text."""

_HOLDERS = (
    " FROM chunks c CROSS JOIN versions v ON v.id = c.version_id"
    " CROSS JOIN documents d ON d.id = v.document_id"
    " WHERE c.words_hash = ? AND c.indexed = ? AND d.collection_id = ?"
)
_OLDEST_OTHER = (
    f"SELECT c.id{_HOLDERS}"  # noqa: S608 - put together from literals
    " AND d.id NOT IN (SELECT value FROM json_each(?)) ORDER BY c.id LIMIT 1"
)


def is_wanted(
    writer: sqlite3.Connection, collection_id: int, document_id: int, words_hash: bytes | None
) -> bool:
    """Tell whether a chunk adds something to the index: no copy in its document, not too many in others."""
    if words_hash is None:
        return True
    holders = writer.execute("SELECT d.id" + _HOLDERS, (words_hash, 1, collection_id)).fetchall()
    return len(holders) < COPIES and (document_id,) not in holders


def promote(writer: sqlite3.Connection, collection_id: int, words_hash: bytes | None) -> None:
    """After an indexed chunk went: let the oldest copy take its place, of a document that has none there."""
    if words_hash is None:
        return
    holders = writer.execute("SELECT d.id" + _HOLDERS, (words_hash, 1, collection_id)).fetchall()
    if len(holders) >= COPIES:
        return
    row = writer.execute(
        _OLDEST_OTHER,
        (words_hash, 0, collection_id, json.dumps([holder[0] for holder in holders])),
    ).fetchone()
    if row is not None:
        put_in(writer, collection_id, row[0])


def put_in(writer: sqlite3.Connection, collection_id: int, chunk_id: int) -> None:
    writer.execute("UPDATE chunks SET indexed = 1 WHERE id = ?", (chunk_id,))
    queue(writer, chunk_id, collection_id, "add")


def take_out(writer: sqlite3.Connection, document_id: int, collection_id: int) -> list[bytes | None]:
    """Take a document's chunks out of the index; return the hashes of their words."""
    rows = writer.execute(
        "SELECT c.id, c.words_hash FROM chunks c JOIN versions v ON v.id = c.version_id"
        " WHERE v.document_id = ? AND c.indexed",
        (document_id,),
    ).fetchall()
    for chunk_id, words_hash in rows:
        queue(writer, chunk_id, collection_id, "remove")
        if words_hash is not None:
            writer.execute("UPDATE chunks SET indexed = 0 WHERE id = ?", (chunk_id,))
    return [words_hash for _, words_hash in rows]


def queue(writer: sqlite3.Connection, chunk_id: int, collection_id: int, operation: str) -> None:
    writer.execute(
        "INSERT INTO index_queue (chunk_id, collection_id, operation) VALUES (?, ?, ?)",
        (chunk_id, collection_id, operation),
    )


def rehash(writer: sqlite3.Connection) -> None:
    """Hash the words of all chunks anew, and let in what is a copy no more."""
    rows = writer.execute("SELECT id, text FROM chunks WHERE words_hash IS NOT NULL").fetchall()
    writer.executemany(
        "UPDATE chunks SET words_hash = ? WHERE id = ?",
        ((values.words_hash(text), chunk_id) for chunk_id, text in rows),
    )
    left_out = writer.execute(
        "SELECT c.id, d.collection_id, d.id, c.words_hash FROM chunks c"
        " JOIN versions v ON v.id = c.version_id JOIN documents d ON d.id = v.document_id"
        " WHERE NOT c.indexed AND c.words_hash IS NOT NULL ORDER BY c.id"
    ).fetchall()
    for chunk_id, collection_id, document_id, hashed in left_out:
        if is_wanted(writer, collection_id, document_id, hashed):
            put_in(writer, collection_id, chunk_id)
