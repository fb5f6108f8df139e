"""Backup while documents come in, restore, and the commands that look after the library."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING

import pytest

from ingest.backup import restore
from ingest.errors import LibraryLocked, RecordError

if TYPE_CHECKING:
    from pathlib import Path

    from ingest.pipeline import IngestProgress
    from tests.ingest.conftest import Place


def test_restored_library_answers_without_embedding_anything(place: Place, tmp_path: Path) -> None:
    place.write("hr/leave.md", "# Leave\n\nFifteen days a year.")
    library = place.open()
    library.reconcile()
    library.backup(tmp_path / "out")
    place.write("hr/leave.md", "# Leave\n\nTwenty days a year.")
    library.reconcile()
    place.close()

    restore(tmp_path / "out", place.data)

    n_embedded = place.embedder.n_embedded
    library = place.open()
    assert [chunk.text for chunk in place.lexical(library, "days")] == ["Fifteen days a year."]
    assert [chunk.text for chunk in place.dense(library, "Fifteen days")] == ["Fifteen days a year."]
    assert place.embedder.n_embedded == n_embedded
    assert library.verify() == []
    assert library.reconcile().changed == 1


def test_backup_while_documents_come_in_is_a_consistent_cut(place: Place, tmp_path: Path) -> None:
    for n in range(60):
        place.write(f"{n}.md", f"# D{n}\n\n" + "\n\n".join(f"## S{m}\n\nword{n} {m} " * 20 for m in range(6)))
    library = place.open()
    begun = threading.Event()

    def on_progress(progress: IngestProgress) -> None:
        if progress.n_done:
            begun.set()

    thread = threading.Thread(target=lambda: library.reconcile(on_progress=on_progress))
    thread.start()
    assert begun.wait(60)
    library.backup(tmp_path / "out")
    thread.join()
    whole = {document.path: document.n_chunks for document in library.documents()}
    place.close()

    restore(tmp_path / "out", place.data)
    library = place.open()
    cut = {document.path: document.n_chunks for document in library.documents()}
    assert cut
    assert cut.items() <= whole.items()
    assert library.verify() == []
    n_embedded = place.embedder.n_embedded
    assert library.reconcile().added == len(whole) - len(cut)
    assert place.embedder.n_embedded - n_embedded <= sum(whole.values())


def test_restore_waits_for_no_service_to_run(place: Place, tmp_path: Path) -> None:
    place.write("a.md", "Words.")
    library = place.open()
    library.reconcile()
    library.backup(tmp_path / "out")
    with pytest.raises(LibraryLocked, match="in use by process"):
        restore(tmp_path / "out", place.data)


@pytest.mark.parametrize(
    "content", [b"", b"no database" * 500, None], ids=["empty", "text", "other-database"]
)
def test_what_is_no_backup_is_refused_and_changes_nothing(
    place: Place, tmp_path: Path, content: bytes | None
) -> None:
    place.write("a.md", "Words stay.")
    place.open().reconcile()
    place.close()
    wrong = tmp_path / "wrong"
    if content is None:
        connection = sqlite3.connect(wrong)
        connection.execute("CREATE TABLE t (x)")
        connection.commit()
        connection.close()
    else:
        wrong.write_bytes(content)

    with pytest.raises(RecordError, match="wrong"):
        restore(wrong, place.data)

    assert [chunk.text for chunk in place.lexical(place.open(), "stay")] == ["Words stay."]


def test_backup_that_fails_leaves_nothing(place: Place, tmp_path: Path) -> None:
    library = place.open()
    with pytest.raises(RecordError):
        library.backup(tmp_path / "missing" / "out")
    assert list(tmp_path.glob("*out*")) == []


def test_retry_reads_again_what_failed(place: Place) -> None:
    place.write("bad.docx", b"PK\x03\x04 cut off")
    place.write("good.md", "Words.")
    library = place.open()
    for _ in range(4):
        library.reconcile()
    assert [d.state for d in library.documents()] == ["quarantined", "indexed"]
    assert library.reconcile().failed == []
    assert library.retry("good.md") == []
    assert library.retry() == ["bad.docx"]
    assert [path for path, _ in library.reconcile().failed] == ["bad.docx"]


def test_reindex_and_verify(place: Place) -> None:
    place.write("a.md", "# A\n\nWords here.")
    library = place.open()
    library.reconcile()
    n_embedded = place.embedder.n_embedded
    library.reindex()
    assert library.verify() == []
    assert place.embedder.n_embedded == n_embedded
    assert [chunk.text for chunk in library.document_chunks("a.md")] == ["Words here."]
    assert library.document_chunks("b.md") == []
