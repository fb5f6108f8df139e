"""The folder arrives in the library: add, change, move, delete, fail; and stays across restarts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ingest.errors import DocumentsFolderMissing, EmbedderMismatch, LibraryClosed, LibraryLocked
from ingest.library import ChunkDraft, IngestProgress, Library
from tests.ingest.hashing_embedder import HashingEmbedder

if TYPE_CHECKING:
    from tests.ingest.conftest import Place

LEAVE = "# 员工手册\n\n## 年假\n\n每位员工每年享有十五天带薪年假。\n"
TRAVEL = "# Travel policy\n\nTrains are preferred to planes for journeys under five hours.\n"
LONG = "\n\n".join(
    f"## Part {n}\n\n" + f"Paragraph number {n} speaks about topic{n} and nothing else at all. " * 12
    for n in range(12)
)


def test_document_is_found_by_words_and_by_vector(place: Place) -> None:
    place.write("hr/leave.md", LEAVE)
    place.write("travel.md", TRAVEL)
    library = place.open()
    report = library.reconcile()
    assert (report.added, report.failed) == (2, [])
    assert place.lexical(library, "带薪年假")[0].path == "hr/leave.md"
    assert place.dense(library, "trains or planes")[0].path == "travel.md"
    (chunk,) = place.lexical(library, "带薪年假")
    assert chunk.heading_path == ("员工手册", "年假") or chunk.heading_path == ("员工手册",)
    assert chunk.collection == "hr"
    assert chunk.title == "员工手册"
    assert [(c.name, c.n_documents) for c in library.collections()] == [("default", 1), ("hr", 1)]
    assert library.collection_names() == ["default", "hr"]
    assert {d.path: d.state for d in library.documents()} == {
        "hr/leave.md": "indexed",
        "travel.md": "indexed",
    }


def test_collections_keep_apart(place: Place) -> None:
    place.write("hr/a.md", "The secret word is marmalade.")
    place.write("it/b.md", "The secret word is marmalade too.")
    library = place.open()
    library.reconcile()
    only = frozenset({"it"})
    assert {c.path for c in place.dense(library, "marmalade", collections=only)} == {"it/b.md"}
    hits = library.search_lexical("marmalade", limit=5, collections=only)
    assert [c.path for c in library.chunks([h.chunk_id for h in hits])] == ["it/b.md"]
    assert library.search_lexical("marmalade", limit=5, collections=frozenset()) == []
    asked = [None, only, frozenset({"hr", "no"}), frozenset({"no"}), frozenset[str]()]
    assert [library.is_empty(names) for names in asked] == [False, False, False, True, True]
    (place.documents / "it" / "b.md").unlink()
    library.reconcile()
    assert (library.is_empty(), library.is_empty(only)) == (False, True)


def test_document_is_found_by_its_name_and_after_a_rename_by_the_new_one(place: Place) -> None:
    place.write("hr/travel_policy.csv", "country,EUR\nAustria,40\n")
    library = place.open()
    library.reconcile()

    def found(query: str) -> set[str]:
        hits = library.search_lexical(query, limit=5, collections=None)
        return {chunk.path for chunk in library.chunks([hit.chunk_id for hit in hits])}

    assert found("travel policy") == {"hr/travel_policy.csv"}
    (place.documents / "hr/travel_policy.csv").rename(place.documents / "hr/allowances.csv")
    library.reconcile()
    assert (found("travel"), found("allowances")) == (set(), {"hr/allowances.csv"})


def test_second_pass_and_second_start_cost_nothing(place: Place) -> None:
    place.write("long.md", LONG)
    library = place.open()
    library.reconcile()
    embedded = place.embedder.n_embedded
    report = library.reconcile()
    assert (report.unchanged, report.added, report.changed) == (1, 0, 0)
    library = place.open()
    report = library.reconcile()
    assert report.unchanged == 1
    assert place.embedder.n_embedded == embedded
    assert library.status().n_index_rebuilds == 0
    assert place.dense(library, "topic7")


def test_changed_paragraph_embeds_only_its_chunk(place: Place) -> None:
    place.write("long.md", LONG)
    library = place.open()
    library.reconcile()
    before = place.embedder.n_embedded
    ids = {c.id for c in library.record.document_chunks(library.documents()[0].id)}
    place.write("long.md", LONG.replace("topic5", "gooseberries"))
    report = library.reconcile()
    assert report.changed == 1
    assert 1 <= place.embedder.n_embedded - before <= 2
    after = {c.id for c in library.record.document_chunks(library.documents()[0].id)}
    assert len(ids & after) >= len(ids) - 2
    assert place.lexical(library, "gooseberries")
    assert place.lexical(library, "topic5") == []
    assert library.documents()[0].version == 2
    assert library.check_indexes() is None


def test_moved_file_is_not_embedded_again(place: Place) -> None:
    file = place.write("hr/leave.md", LEAVE)
    library = place.open()
    library.reconcile()
    before = place.embedder.n_embedded
    (document,) = library.documents()
    (place.documents / "legal").mkdir()
    file.rename(place.documents / "legal" / "vacation.md")
    report = library.reconcile()
    assert (report.moved, report.removed, report.added) == (1, 0, 0)
    assert place.embedder.n_embedded == before
    (moved,) = library.documents()
    assert (moved.id, moved.path, moved.collection) == (document.id, "legal/vacation.md", "legal")
    assert place.dense(library, "带薪年假", collections=frozenset({"legal"}))
    assert place.dense(library, "带薪年假", collections=frozenset({"hr"})) == []
    assert library.check_indexes() is None


def test_copy_is_a_document_of_its_own_without_embedding(place: Place) -> None:
    place.write("a.md", TRAVEL)
    library = place.open()
    library.reconcile()
    before = place.embedder.n_embedded
    place.write("b.md", TRAVEL)
    assert library.reconcile().added == 1
    assert place.embedder.n_embedded == before
    (place.documents / "a.md").unlink()
    library.reconcile()
    assert [c.path for c in place.dense(library, "trains planes")] == ["b.md"]


def test_deleted_file_is_gone_at_once(place: Place) -> None:
    file = place.write("a.md", TRAVEL)
    library = place.open()
    library.reconcile()
    hits = library.search_lexical("trains", limit=5, collections=None)
    file.unlink()
    assert library.reconcile().removed == 1
    assert library.chunks([hit.chunk_id for hit in hits]) == []
    assert place.lexical(library, "trains") == []
    assert place.dense(library, "trains") == []
    assert library.documents() == []


def test_bad_file_costs_itself_only_and_recovers_when_it_changes(place: Place) -> None:
    place.write("bad.docx", b"PK\x03\x04 no zip at all")
    place.write("odd.xyz", b"?")
    place.write("good.md", TRAVEL)
    library = place.open()
    report = library.reconcile()
    assert report.added == 1
    assert {path for path, _ in report.failed} == {"bad.docx", "odd.xyz"}
    states = {d.path: d for d in library.documents()}
    assert states["odd.xyz"].state == "quarantined"
    assert states["odd.xyz"].reason == "no reader for .xyz"
    assert states["bad.docx"].state == "failed"
    library.reconcile()
    library.reconcile()
    assert {d.path: (d.state, d.attempts) for d in library.documents()}["bad.docx"] == ("quarantined", 3)
    assert library.reconcile().unchanged == 3
    (place.documents / "bad.docx").unlink()
    place.write("bad.docx.md", TRAVEL)
    assert library.reconcile().failed == []


def test_last_good_version_stays_when_a_change_cannot_be_read(place: Place) -> None:
    place.write("a.json", '{"answer": "marmalade"}')
    library = place.open()
    library.reconcile()
    place.write("a.json", '{"answer": ')
    library.reconcile()
    assert place.lexical(library, "marmalade")
    (document,) = library.documents()
    assert (document.state, document.version) == ("failed", 1)
    assert document.reason is not None
    assert "JSON" in document.reason


def test_progress_has_true_totals(place: Place) -> None:
    for n in range(5):
        place.write(f"{n}.md", f"Document number {n} about topic{n}.")
    seen: list[IngestProgress] = []
    place.open().reconcile(on_progress=seen.append)
    assert {p.n_total for p in seen} == {5}
    assert seen[-1].n_done == 5
    assert seen[-1].bytes_done == seen[-1].bytes_total > 0
    assert seen[-1].n_chunks_embedded == 5


def test_missing_folder_deletes_nothing(place: Place) -> None:
    place.write("a.md", TRAVEL)
    library = place.open()
    library.reconcile()
    place.documents.rename(place.documents.with_name("unmounted"))
    with pytest.raises(DocumentsFolderMissing, match="documents"):
        library.reconcile()
    assert place.lexical(library, "trains")


def test_second_owner_is_refused_and_writes_nothing(place: Place) -> None:
    place.write("a.md", TRAVEL)
    place.open().reconcile()
    before = {p: p.stat().st_mtime_ns for p in place.data.rglob("*") if p.is_file()}
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from ingest.errors import LibraryLocked
        from ingest.library import Library
        from tests.ingest.hashing_embedder import HashingEmbedder
        try:
            Library.open(Path(sys.argv[1]), documents_dir=Path(sys.argv[2]), embedder=HashingEmbedder())
        except LibraryLocked as error:
            print(error)
        """
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program, place.data, place.documents],
        cwd=root, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert f"in use by process {os.getpid()}" in done.stdout
    assert {p: p.stat().st_mtime_ns for p in place.data.rglob("*") if p.is_file()} == before


def test_owner_that_was_killed_while_it_started_a_reader_is_waited_for(place: Place) -> None:
    """The forked process holds a copy of the lock until it runs its own program."""
    program = textwrap.dedent(
        """
        import os, signal, sys, threading
        from pathlib import Path
        from ingest.ownership import acquire
        acquire(Path(sys.argv[1]))
        if os.fork():
            os.kill(os.getpid(), signal.SIGKILL)
        threading.Event().wait(1)
        """
    )
    root = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", program, place.data], cwd=root, check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    place.open().close()


def test_lock_is_released_on_close(place: Place) -> None:
    library = place.open()
    with pytest.raises(LibraryLocked):
        Library.open(place.data, documents_dir=place.documents, embedder=place.embedder)
    library.close()
    place.open().close()
    with pytest.raises(LibraryClosed):
        library.search_lexical("x", limit=1, collections=None)


def test_changed_embedder_is_never_mixed(place: Place) -> None:
    place.write("a.md", TRAVEL)
    place.write("b.md", LEAVE)
    place.open().reconcile()
    library = place.open(HashingEmbedder(salt="b", dimension=48))
    assert library.status().embedder_changed
    assert place.dense(library, "trains planes") == []
    assert place.lexical(library, "trains")[0].path == "a.md"
    library.reconcile()
    assert not library.status().embedder_changed
    assert place.dense(library, "trains planes")[0].path == "a.md"
    assert library.check_indexes() is None
    with pytest.raises(EmbedderMismatch, match="48"):
        library.search_dense(HashingEmbedder().embed(["x"], kind="query")[0], limit=1, collections=None)


def test_smaller_budget_cuts_the_stored_chunks_again(place: Place) -> None:
    place.write("long.md", LONG)
    library = place.open(HashingEmbedder(max_tokens=256))
    library.reconcile()
    n_before = library.status().n_chunks
    small = HashingEmbedder(salt="small", max_tokens=64)
    library = place.open(small)
    library.reconcile()
    assert small.longest <= 64
    assert library.status().n_chunks > n_before
    assert place.dense(library, "topic7")
    assert library.check_indexes() is None


def test_widths_and_case_find_each_other(place: Place) -> None:
    place.write("a.md", "Model ＡＢＣ１２３ is the newest.")
    library = place.open()
    library.reconcile()
    assert place.lexical(library, "abc123")


def test_neighbours_come_in_reading_order(place: Place) -> None:
    place.write("long.md", LONG)
    library = place.open()
    library.reconcile()
    middle = place.lexical(library, "topic5")[0]
    around = library.neighbours(middle.id, before=1, after=1)
    assert [c.ordinal for c in around] == [middle.ordinal - 1, middle.ordinal, middle.ordinal + 1]
    assert library.neighbours(10**9, before=1, after=1) == []


def test_watching_brings_a_new_file(place: Place) -> None:
    import threading

    library = place.open()
    library.start_watching()
    place.write("a.md", TRAVEL)
    waiting = threading.Event()
    for _ in range(300):
        if library.documents():
            break
        waiting.wait(0.1)
    assert [d.path for d in library.documents()] == ["a.md"]


def test_close_waits_for_those_who_read(place: Place) -> None:
    """SQLite crashes the process when a connection is closed under a statement."""
    (place.documents / "a.md").write_text("# A\n\nSomething to list.\n", "utf-8")
    library = place.open()
    library.reconcile()
    reading = threading.Barrier(5)
    ended: list[bool] = []

    def read() -> None:
        library.documents()
        reading.wait()
        try:
            while library.documents():
                pass
        except LibraryClosed:
            ended.append(True)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    reading.wait()
    place.close()
    for reader in readers:
        reader.join()
    assert ended == [True] * 4


def test_nothing_is_watched_after_close(place: Place) -> None:
    library = place.open()
    place.close()
    with pytest.raises(LibraryClosed):
        library.start_watching()


def test_passages_tell_where_they_stand_in_the_original(place: Place) -> None:
    from tests.ingest.test_office import workbook
    from tests.ingest.test_partition import PDF, docx

    place.write("a.docx", docx())
    place.write("b.xlsx", workbook())
    place.write("c.pdf", PDF)
    place.write("d.txt", "Plain text has offsets.")
    library = place.open()
    library.reconcile()

    def places(path: str) -> list[tuple[str, int, int] | None]:
        found = (chunk.place for chunk in library.document_chunks(path))
        return [where and (where.unit, where.first, where.last) for where in found]

    assert places("a.docx") == [("paragraph", 3, 6)]
    assert places("b.xlsx")[0] == ("row", 1, 9)
    assert places("c.pdf") == [("line", 2, 3), ("line", 2, 2)]
    assert places("d.txt") == [None]
    (chunk,) = library.document_chunks("a.docx")
    (document,) = [document for document in library.documents() if document.path == "a.docx"]
    # What re-embedding reads back is what was cut.
    assert library.record.drafts(document.id)[0].place == chunk.place


def test_equal_vectors_do_not_hide_one_another(place: Place) -> None:
    """They cut HNSW's graph into pieces: nearly every chunk must still find itself, after changes too."""
    library = place.open()

    def put(mark: str, n: int) -> list[str]:
        texts = [
            f"# {k}.md {mark if k % 4 == 0 else 'v1'}\n\nThis is what {k}.md says in v1." for k in range(n)
        ]
        drafts = [ChunkDraft(text, (), None, 2, 0, len(text)) for text in texts]
        library.insert("many.md", drafts, place.embedder.embed(texts, kind="query"))
        return texts

    for mark in ("v1", "v2", "v3"):
        texts = put(mark, 600)
    vectors = place.embedder.embed(texts, kind="query")
    best = [library.search_dense(vector, limit=4, collections=None) for vector in vectors]
    assert sum(not hits or hits[0].score < 0.999 for hits in best) <= 6
