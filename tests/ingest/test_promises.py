"""SECURITY.md 1, 9, 13, 14 and 18, sentence by sentence, where no other test would fail."""

from __future__ import annotations

import hashlib
import shutil
import threading
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest

from ingest import index_sync
from ingest.backup import restore
from ingest.errors import EmbedderMismatch
from ingest.partition.limits import Limits
from ingest.partition.page_log import PageStore
from tests.ingest.conftest import Place
from tests.ingest.hashing_embedder import HashingEmbedder
from tests.ingest.test_ocr import long_pdf

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ingest.library import Library

QUERIES = ("word3 topic4", "what topic7 says", "topic1 topic2 word9")


def fill(place: Place, n: int = 12, *, mark: str = "v1") -> None:
    for k in range(n):
        sections = "\n\n".join(
            f"## Part {m}\n\n{mark} topic{k} " + f"word{m} word{m + k} and more. " * 20 for m in range(4)
        )
        place.write(f"c{k % 2}/{k}.md", f"# {mark} topic{k}\n\n{sections}")


def answers(place: Place, library: Library) -> list[list[int]]:
    """Return what both searches find, in their order."""
    found = []
    for query in QUERIES:
        (vector,) = place.embedder.embed([query], kind="query")
        found.append([hit.chunk_id for hit in library.search_lexical(query, limit=20, collections=None)])
        found.append([hit.chunk_id for hit in library.search_dense(vector, limit=20, collections=None)])
    return found


def test_rebuilt_indexes_give_the_same_answers(place: Place) -> None:
    """SECURITY 1: after changes and deletions too, and nothing is embedded."""
    fill(place)
    library = place.open()
    library.reconcile()
    fill(place, 3, mark="v2")
    (place.documents / "c1" / "9.md").unlink()
    library.reconcile()
    before = answers(place, library)
    assert all(before)
    place.close()
    n_embedded = place.embedder.n_embedded
    shutil.rmtree(place.data / "indexes")
    library = place.open()
    assert answers(place, library) == before
    assert place.embedder.n_embedded == n_embedded


@pytest.mark.parametrize("harm", ["row-missing", "row-too-many", "wrong-vectors"])
def test_audit_after_many_deletions_notices_and_mends(
    place: Place, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    """SECURITY 9: while it runs, by counts and by passages that look for themselves."""
    monkeypatch.setattr(index_sync, "DELETES_BEFORE_AUDIT", 8)
    fill(place)
    library = place.open()
    library.reconcile()
    kept = [f"c{k % 2}/{k}.md" for k in range(3, 12)]
    dense, (collection,) = library._index._dense, library.record.collection_ids(frozenset({"c1"}))
    assert dense is not None
    ids = [c.id for path in kept if path.startswith("c1") for c in library.document_chunks(path)]
    wrong = np.random.default_rng(1).standard_normal((len(ids), place.embedder.dimension))
    unit = (wrong / np.linalg.norm(wrong, axis=1, keepdims=True)).astype(np.float32)
    if harm == "row-missing":
        dense.delete(collection, ids[:1])
    elif harm == "row-too-many":
        dense.upsert(collection, [10**9], unit[:1])
    else:
        dense.upsert(collection, ids, unit)
    (place.documents / "c0" / "0.md").unlink()
    library.reconcile()
    assert library.status().n_index_rebuilds == 0  # four deletions: not yet
    for k in (1, 2):
        (place.documents / f"c{k % 2}" / f"{k}.md").unlink()
    library.reconcile()
    assert library.status().n_index_rebuilds == 1
    assert library.check_indexes() is None
    alive = [c.id for path in kept for c in library.document_chunks(path)]
    for chunk in library.record.feed.indexed_chunks(library.embedder_id, alive):
        assert chunk.vector is not None
        hits = library.search_dense(chunk.vector, limit=8, collections=None)
        assert hits[0].score > 0.999
        assert chunk.chunk_id in {hit.chunk_id for hit in hits if hit.score > 0.999}


def test_pages_of_a_deleted_document_leave_no_byte(place: Place) -> None:
    """SECURITY 13: what was kept of a document that was never read to its end."""
    content = long_pdf()
    file = place.write("a.pdf", content)
    library = place.open(limits=Limits(text_characters=400_000))
    library.reconcile()
    kept = PageStore(place.data / "reading").path(hashlib.sha256(content).digest())
    assert b"Page 7 says something" in kept.read_bytes()
    file.unlink()
    library.reconcile()
    library.compact()
    for path in (p for p in place.data.rglob("*") if p.is_file()):
        assert b"says something of its own" not in path.read_bytes(), path


class Stopped(Exception):
    """Stands for a kill between two batches."""


class EndsEarly(HashingEmbedder):
    """Another model, whose process is gone after so many calls."""

    def __init__(self, n_calls: int) -> None:
        super().__init__(salt="other")
        self._n_calls = n_calls

    def embed(self, texts: Sequence[str], *, kind: Literal["document", "query"]) -> NDArray[np.float32]:
        if kind == "document":
            self._n_calls -= 1
            if self._n_calls < 0:
                raise Stopped
        return super().embed(texts, kind=kind)


def test_reembedding_that_was_cut_off_mixes_nothing_and_goes_on(place: Place) -> None:
    """SECURITY 14: two models of one dimension, which only the fingerprint tells apart."""
    fill(place)
    old = place.embedder
    library = place.open()
    library.reconcile()
    n_chunks = library.status().n_chunks
    library = place.open(EndsEarly(5))
    with pytest.raises(Stopped):
        library.reconcile()
    assert library.status().embedder_changed
    assert place.dense(library, "topic7") == []  # the index holds the old model's vectors
    assert place.lexical(library, "topic7")
    # A new process goes on where that one ended.
    new = HashingEmbedder(salt="other")
    library = place.open(new)
    assert place.dense(library, "topic7") == []
    library.reconcile()
    assert 0 < new.n_embedded < n_chunks
    ids = [c.id for d in library.documents() for c in library.document_chunks(d.path)]
    for chunk in library.record.feed.indexed_chunks(library.embedder_id, ids):
        (expected,) = new.embed([chunk.text], kind="query")
        assert chunk.vector is not None
        np.testing.assert_array_equal(chunk.vector, expected)
        dense = library._index._dense
        assert dense is not None
        assert dense.search(expected, limit=1, collection_ids=[chunk.collection_id])[0].score > 0.999
    # Back to the first: its vectors are gone, none is taken for the other's.
    library = place.open(old)
    assert place.dense(library, "topic7") == []
    before = old.n_embedded
    library.reconcile()
    assert old.n_embedded - before == n_chunks


def test_query_vector_of_another_length_is_refused(place: Place) -> None:
    fill(place, 1)
    library = place.open()
    library.reconcile()
    with pytest.raises(EmbedderMismatch, match="64"):
        library.search_dense(np.ones(32, np.float32), limit=1, collections=None)


def test_backups_during_a_pass_hold_whole_versions_with_their_vectors(place: Place, tmp_path: Path) -> None:
    """SECURITY 18: every document is as it was or as it became, and nothing has to be embedded."""
    fill(place, 40)
    library = place.open()
    library.reconcile()
    fill(place, 40, mark="v2")
    passing = threading.Thread(target=library.reconcile)
    passing.start()
    backups = []
    while passing.is_alive() and len(backups) < 6:
        backups.append(tmp_path / f"backup-{len(backups)}")
        library.backup(backups[-1])
    passing.join()
    place.close()
    marks: set[str] = set()
    for n, backup in enumerate(backups):
        folder = tmp_path / f"restored-{n}"
        folder.mkdir()
        restored = Place(folder)
        restored.data.mkdir()
        restore(backup, restored.data)
        library = restored.open()
        assert library.verify() == []
        for document in library.documents():
            said = {m for c in library.document_chunks(document.path) for m in ("v1", "v2") if m in c.text}
            assert len(said) == 1, f"{document.path} holds {said}"
            marks |= said
        assert len(library.documents()) == 40
        assert all(answers(restored, library))
        assert restored.embedder.n_embedded == 0
        restored.close()
    assert "v1" in marks
