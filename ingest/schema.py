"""The record's tables, one migration per `user_version`."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from ingest.copies import rehash
from ingest.errors import RecordTooNew

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

# Every row of `chunks` is visible: a version's chunks come and go in one transaction, so no reader needs
# a flag. AUTOINCREMENT: an id left behind in a derived index must never name another chunk later.
# `index_queue` is what the derived indexes still have to do, written in the same transaction.
MIGRATIONS: tuple[str | Callable[[sqlite3.Connection], None], ...] = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE collections (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE);
    CREATE TABLE documents (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        path TEXT NOT NULL UNIQUE,
        collection_id INTEGER NOT NULL REFERENCES collections(id),
        size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        inode INTEGER NOT NULL,
        sha256 BLOB NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('indexed', 'failed', 'quarantined')),
        reason TEXT,
        attempts INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX documents_sha256 ON documents(sha256);
    CREATE TABLE versions (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        document_id INTEGER NOT NULL UNIQUE REFERENCES documents(id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        sha256 BLOB NOT NULL,
        title TEXT NOT NULL,
        created_at TEXT NOT NULL
    );
    CREATE TABLE chunks (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        version_id INTEGER NOT NULL REFERENCES versions(id) ON DELETE CASCADE,
        ordinal INTEGER NOT NULL,
        text TEXT NOT NULL,
        text_hash BLOB NOT NULL,
        n_tokens INTEGER NOT NULL,
        heading_path TEXT NOT NULL,
        page INTEGER,
        start_offset INTEGER NOT NULL,
        end_offset INTEGER NOT NULL
    );
    CREATE INDEX chunks_version ON chunks(version_id, ordinal);
    CREATE INDEX chunks_text_hash ON chunks(text_hash);
    CREATE TABLE embedders (
        id INTEGER PRIMARY KEY AUTOINCREMENT, fingerprint TEXT NOT NULL UNIQUE, dimension INTEGER NOT NULL
    );
    CREATE TABLE vectors (
        embedder_id INTEGER NOT NULL REFERENCES embedders(id) ON DELETE CASCADE,
        text_hash BLOB NOT NULL,
        vector BLOB NOT NULL,
        PRIMARY KEY (embedder_id, text_hash)
    );
    CREATE TABLE index_queue (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        chunk_id INTEGER NOT NULL,
        collection_id INTEGER NOT NULL,
        operation TEXT NOT NULL CHECK (operation IN ('add', 'remove'))
    );
    """,
    # n_overlap: characters that the chunk before has, too. words_hash: equal for what says the same words.
    # indexed: 0 for what is not searched: copies of the same words, repeated page headers and footers.
    # offsets_in_file: whether chunks' offsets are those of the file's text, or of the extracted text.
    """
    ALTER TABLE chunks ADD COLUMN n_overlap INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE chunks ADD COLUMN words_hash BLOB;
    ALTER TABLE chunks ADD COLUMN indexed INTEGER NOT NULL DEFAULT 1;
    CREATE INDEX chunks_words_hash ON chunks(words_hash, indexed);
    ALTER TABLE versions ADD COLUMN offsets_in_file INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE documents ADD COLUMN seconds REAL NOT NULL DEFAULT 0;
    """,
    # place: unit, first, last as JSON, where the file is no text: paragraphs, rows, lines, pages.
    """
    ALTER TABLE chunks ADD COLUMN place TEXT;
    """,
    # words_hash told 3.5 from 35 no more than "a-b" from "ab".
    rehash,
)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the open record to the newest schema, one transaction per step.

    Raises RecordTooNew when a newer Quarry wrote it.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise RecordTooNew(
            f"the record has schema {version}; this Quarry knows up to {len(MIGRATIONS)}: use a newer one"
        )
    for number, step in enumerate(MIGRATIONS[version:], start=version + 1):
        if isinstance(step, str):
            connection.executescript(f"BEGIN IMMEDIATE;\n{step}\nPRAGMA user_version = {number};\nCOMMIT;")
            continue
        connection.execute("BEGIN IMMEDIATE")
        try:
            step(connection)
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
    connection.execute(
        "INSERT OR IGNORE INTO meta (key, value) VALUES ('library_id', ?)", (uuid.uuid4().hex[:12],)
    )
