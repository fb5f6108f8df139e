"""Vectors in Chroma: nearest neighbours by cosine. Derived from the record; may be deleted at any time.

Every collection of the library has a Chroma collection of its own: a search in some of them asks those,
and no metadata filter has to be evaluated over all rows (at 10,000 rows the filter costs more than HNSW).
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import numpy as np

from ingest.errors import IndexChanging, IndexDamaged
from ingest.values import Hit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection
    from numpy.typing import NDArray

# Chroma holds the GIL during writes: 32 rows stall other threads for ~50 ms, 500 for up to 0.9 s.
WRITE_ROWS = 32
# ef_search 400: recall@20 of 0.99 on random vectors, the worst case, at 10,000 rows and < 10 ms.
HNSW = {"hnsw": {"space": "cosine", "ef_construction": 200, "max_neighbors": 32, "ef_search": 400}}


_APART = 1e-3
# Of a server: a search waits no longer than this for it.
_SERVER_SECONDS, _CONNECT_SECONDS = 60.0, 5.0


@contextlib.contextmanager
def _damage() -> Iterator[None]:
    """Turn whatever a broken index raises into IndexDamaged.

    Chroma's Rust side panics on torn files; PyO3 raises that past `Exception`.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, IndexDamaged):
        raise
    except BaseException as error:
        kind = IndexChanging if "Error finding id" in str(error) else IndexDamaged
        raise kind(f"Chroma: {type(error).__name__}: {error}") from error


class DenseIndex:
    """One Chroma database, in a folder of ours or on a server."""

    def __init__(self, client: ClientAPI, prefix: str, sessions: Sequence[httpx.Client]) -> None:
        """Use `open`. sessions: the connections to a server, none for a folder."""
        self._client = client
        self._prefix = prefix
        self._sessions = sessions
        self._collections: dict[int, Collection] = {}

    @classmethod
    def open(cls, folder: Path, *, url: str | None, prefix: str) -> DenseIndex:
        """Open the folder, or the server where `url` is given; `prefix` keeps libraries apart on a server.

        Raises IndexDamaged when Chroma cannot open it.
        """
        # Set before the import: Chroma's telemetry reads them there.
        os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")
        import chromadb
        from chromadb.config import Settings

        settings = Settings(anonymized_telemetry=False)
        with _damage():
            client: ClientAPI
            sessions: tuple[httpx.Client, ...] = ()
            if url is None:
                folder.mkdir(parents=True, exist_ok=True)
                client = chromadb.PersistentClient(path=str(folder), settings=settings)
            else:
                parts = urlsplit(url)
                remote: Any = chromadb.HttpClient(
                    host=parts.hostname or "localhost",
                    port=parts.port or (443 if parts.scheme == "https" else 8000),
                    ssl=parts.scheme == "https",
                    settings=settings,
                )
                # Chroma gives its two sessions no time limit and closes neither.
                sessions = (remote._server._session, remote._admin_client._server._session)
                for session in sessions:
                    session.timeout = httpx.Timeout(_SERVER_SECONDS, connect=_CONNECT_SECONDS)
                client = remote
            index = cls(client, prefix, sessions)
            for listed in client.list_collections():
                number = listed.name.removeprefix(prefix)
                if listed.name.startswith(prefix) and number.isdigit():
                    index._collections[int(number)] = client.get_collection(
                        listed.name, embedding_function=None
                    )
        return index

    def collection_ids(self) -> set[int]:
        """Return the collections that exist in Chroma."""
        return set(self._collections)

    def count(self, collection_id: int) -> int:
        """Return the number of rows of a collection."""
        collection = self._collections.get(collection_id)
        if collection is None:
            return 0
        with _damage():
            return int(collection.count())

    def upsert(self, collection_id: int, ids: Sequence[int], vectors: NDArray[np.float32]) -> None:
        """Write vectors [n, dimension] in small batches; known ids are replaced."""
        with _damage():
            collection = self._collections.get(collection_id)
            if collection is None:
                configuration: Any = HNSW
                collection = self._client.get_or_create_collection(
                    f"{self._prefix}{collection_id}", embedding_function=None, configuration=configuration
                )
                self._collections[collection_id] = collection
            for start in range(0, len(ids), WRITE_ROWS):
                collection.upsert(
                    ids=[str(i) for i in ids[start : start + WRITE_ROWS]],
                    embeddings=apart(ids[start : start + WRITE_ROWS], vectors[start : start + WRITE_ROWS]),
                )

    def delete(self, collection_id: int, ids: Sequence[int]) -> None:
        """Remove rows; unknown ids are ignored."""
        collection = self._collections.get(collection_id)
        if collection is None:
            return
        with _damage():
            for start in range(0, len(ids), WRITE_ROWS):
                collection.delete(ids=[str(i) for i in ids[start : start + WRITE_ROWS]])

    def search(self, vector: NDArray[np.float32], *, limit: int, collection_ids: Sequence[int]) -> list[Hit]:
        """Return the nearest rows over all the given collections, best first; score = cosine."""
        hits: list[Hit] = []
        query = np.ascontiguousarray(vector, dtype=np.float32).reshape(1, -1)
        for collection_id in collection_ids:
            collection = self._collections.get(collection_id)
            if collection is None:
                continue
            with _damage():
                result = collection.query(query_embeddings=query, n_results=limit, include=["distances"])
                distances = result["distances"]
                if distances is None:
                    raise IndexDamaged("Chroma returned no distances")
                hits += [
                    Hit(int(i), 1.0 - float(d)) for i, d in zip(result["ids"][0], distances[0], strict=True)
                ]
        hits.sort(key=lambda hit: (-hit.score, hit.chunk_id))
        return hits[:limit]

    def drop(self) -> None:
        """Delete all collections of this prefix, for a server whose folder is not ours."""
        with _damage():
            for collection_id in sorted(self._collections):
                self._client.delete_collection(f"{self._prefix}{collection_id}")
        self._collections.clear()

    def close(self) -> None:
        """Let go of files and connections."""
        with contextlib.suppress(IndexDamaged), _damage():
            self._client.close()  # type: ignore[attr-defined] # Client has it, ClientAPI does not say so
        for session in self._sessions:
            session.close()
        self._collections.clear()


def apart(ids: Sequence[int], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Move each vector by a thousandth of its length, in a direction of its own; cosines move less than 1e-4.

    HNSW links a row to what is nearer to it than to the neighbours it has: of rows in one place, none is
    linked to anything else, and whole groups of copies cannot be reached. Among 2,000 texts of which many
    had equal vectors, 48 did not find themselves, 584 after some were replaced; 14 and 1 this way.
    """
    noise = np.stack([np.random.default_rng(i).standard_normal(vectors.shape[1]) for i in ids])
    noise *= _APART / np.linalg.norm(noise, axis=1, keepdims=True)
    return np.asarray(vectors + noise, dtype=np.float32)
