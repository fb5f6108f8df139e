"""What the derived indexes read of the record: the queue of their next steps, and the chunks themselves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal

import numpy as np

from ingest.values import embedding_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ingest.connection import Connections

# CROSS JOIN fixes the order: from the few chunks outward, not from all documents inward.
OWNERS = """
    CROSS JOIN versions v ON v.id = c.version_id CROSS JOIN documents d ON d.id = v.document_id
    CROSS JOIN collections k ON k.id = d.collection_id
"""


_VECTOR_ROWS = 4096


@dataclass(frozen=True, slots=True)
class IndexOperation:
    """One step that the derived indexes still have to take."""

    seq: int
    chunk_id: int
    collection_id: int
    operation: Literal["add", "remove"]


@dataclass(frozen=True, slots=True)
class IndexedChunk:
    """What the derived indexes need of a chunk; vector is None until it is embedded.

    name: what its document is called, which people ask for and the text often does not say.
    """

    chunk_id: int
    collection_id: int
    name: str
    text: str
    vector: NDArray[np.float32] | None


class IndexFeed:
    """Read what is to be indexed; safe from any thread."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def queue_after(self, seq: int, *, limit: int) -> list[IndexOperation]:
        """Return the next index operations, oldest first."""
        with self._connections.reading() as reader:
            rows = reader.execute(
                "SELECT seq, chunk_id, collection_id, operation FROM index_queue"
                " WHERE seq > ? ORDER BY seq LIMIT ?",
                (seq, limit),
            ).fetchall()
        return [IndexOperation(*row) for row in rows]

    def last_seq(self) -> int:
        """Return the number of the newest index operation ever queued."""
        with self._connections.reading() as reader:
            row = reader.execute("SELECT seq FROM sqlite_sequence WHERE name = 'index_queue'").fetchone()
        return 0 if row is None else int(row[0])

    def prune_queue(self, seq: int) -> None:
        """Forget the operations up to `seq`."""
        with self._connections.writing() as writer:
            writer.execute("DELETE FROM index_queue WHERE seq <= ?", (seq,))

    def indexed_chunks(self, embedder_id: int, ids: Sequence[int]) -> list[IndexedChunk]:
        """Return those of `ids` that are visible, with their current collection."""
        source = "json_each(?) j CROSS JOIN chunks c ON c.id = j.value"
        return self._indexed(embedder_id, source, (json.dumps([int(i) for i in ids]),))

    def indexed_chunks_after(self, embedder_id: int, chunk_id: int, *, limit: int) -> list[IndexedChunk]:
        """Return the next visible chunks by id, for rebuilding."""
        source = "(SELECT * FROM chunks WHERE id > ? AND indexed ORDER BY id LIMIT ?) c"
        return self._indexed(embedder_id, source, (chunk_id, limit))

    def _indexed(self, embedder_id: int, source: str, values: tuple[object, ...]) -> list[IndexedChunk]:
        with self._connections.reading() as reader:
            rows = reader.execute(
                f"""SELECT c.id, d.collection_id, v.title, d.path, c.heading_path, c.text, e.vector
                FROM {source} {OWNERS}
                LEFT JOIN vectors e ON e.embedder_id = ? AND e.text_hash = c.text_hash
                WHERE c.indexed ORDER BY c.id""",  # noqa: S608 - both sources are literals above
                (*values, embedder_id),
            ).fetchall()
        return [
            IndexedChunk(
                row[0],
                row[1],
                _name(row[2], row[3]),
                embedding_text(tuple(json.loads(row[4])), row[5]),
                None if row[6] is None else np.frombuffer(row[6], dtype="<f4"),
            )
            for row in rows
        ]

    def vectors(
        self, embedder_id: int, collection_ids: Sequence[int]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield ids [n] and vectors [n, dimension] of the chunks that searches look at, some at a time."""
        collections, after = json.dumps([int(i) for i in collection_ids]), 0
        while True:
            with self._connections.reading() as reader:
                rows = reader.execute(
                    """SELECT c.id, e.vector FROM chunks c CROSS JOIN versions v ON v.id = c.version_id
                    CROSS JOIN documents d ON d.id = v.document_id
                    CROSS JOIN vectors e ON e.embedder_id = ? AND e.text_hash = c.text_hash
                    WHERE c.id > ? AND c.indexed AND d.collection_id IN (SELECT value FROM json_each(?))
                    ORDER BY c.id LIMIT ?""",
                    (embedder_id, after, collections, _VECTOR_ROWS),
                ).fetchall()
            if not rows:
                return
            after = rows[-1][0]
            matrix = np.frombuffer(b"".join(row[1] for row in rows), dtype="<f4").reshape(len(rows), -1)
            yield np.array([row[0] for row in rows], np.int64), matrix

    def chunk_counts(self) -> dict[int, int]:
        """Return the number of chunks that searches look at, by collection id."""
        with self._connections.reading() as reader:
            return dict(
                reader.execute(
                    """SELECT d.collection_id, count(*) FROM chunks c JOIN versions v ON v.id = c.version_id
                    JOIN documents d ON d.id = v.document_id WHERE c.indexed GROUP BY d.collection_id"""
                ).fetchall()
            )

    def sample_chunks(self, n: int) -> list[int]:
        """Return up to `n` random visible chunk ids."""
        with self._connections.reading() as reader:
            rows = reader.execute(
                "SELECT id FROM chunks WHERE indexed ORDER BY random() LIMIT ?", (n,)
            ).fetchall()
        return [row[0] for row in rows]


def _name(title: str, path: str) -> str:
    """Give title and path, without the ending that tells the format."""
    place = PurePosixPath(path)
    return f"{title} {place.with_suffix('').as_posix() if place.name else path}"
