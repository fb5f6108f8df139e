"""What must survive: kills at named steps, damaged indexes, deletion down to the byte, a full disk."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from engine.errors import EngineError
from ingest.dense_index import DenseIndex, _damage, apart
from ingest.errors import RecordError, RecordTooNew, StorageFull
from ingest.pipeline import EMBED_TEXTS
from ingest.record import Record
from ingest.values import ChunkDraft, FileFacts, NewVersion
from tests.ingest.damage_campaign import campaign as damage_campaign
from tests.ingest.kill_campaign import KILLED, campaign
from tests.ingest.test_partition import pdf

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ingest.library import Library
    from ingest.values import Hit
    from tests.ingest.conftest import Place


def reconcile_killed(place: Place, step: str, n: int, when: str) -> int:
    place.close()
    return subprocess.run(
        [sys.executable, "-c", KILLED, place.data, place.documents, step, str(n), when],
        cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL, check=False, timeout=120,
    ).returncode  # fmt: skip


def versions(library: Library) -> dict[str, set[str]]:
    """Return the generations of text that each document shows: its chunks carry `v1` or `v2`."""
    return {
        document.path: {
            mark
            for chunk in library.record.document_chunks(document.id)
            for mark in ("v1", "v2")
            if mark in chunk.text
        }
        for document in library.documents()
    }


def many(generation: str) -> str:
    return "\n".join(f'"key{n}": "{generation} entry {n} ' + f"word{n} " * 60 + '",' for n in range(12))


def write_all(place: Place, generation: str) -> None:
    for n in range(3):
        place.write(f"{n}.json", "{" + many(f"{generation} doc{n}") + '"end": 0}')


@pytest.mark.parametrize(
    ("step", "n", "when"),
    [
        pytest.param("ingest.record:Record:store_vectors", 1, "before", id="before-vectors"),
        pytest.param("ingest.record:Record:store_vectors", 1, "after", id="after-vectors"),
        pytest.param("ingest.record:Record:publish", 1, "before", id="before-publish"),
        pytest.param("ingest.record:Record:publish", 1, "after", id="after-publish"),
        pytest.param("ingest.record:Record:delete", 1, "before", id="before-delete"),
        pytest.param("ingest.record:Record:delete", 1, "after", id="after-delete"),
        pytest.param("ingest.dense_index:DenseIndex:upsert", 1, "before", id="before-upsert"),
        pytest.param("ingest.dense_index:DenseIndex:upsert", 1, "after", id="after-upsert"),
        pytest.param("ingest.dense_index:DenseIndex:delete", 1, "after", id="after-dense-delete"),
        pytest.param("ingest.lexical_index:LexicalIndex:add", 1, "after", id="after-words"),
        pytest.param("ingest.lexical_index:LexicalIndex:commit", 1, "before", id="before-commit"),
        pytest.param("ingest.lexical_index:LexicalIndex:commit", 1, "after", id="after-commit"),
        pytest.param("ingest.index_feed:IndexFeed:prune_queue", 1, "after", id="after-prune"),
        pytest.param("ingest.record:Record:drop_unused", 1, "after", id="after-drop"),
    ],
)
def test_kill_loses_and_mixes_nothing(place: Place, step: str, n: int, when: str) -> None:
    write_all(place, "v1")
    place.write("gone.json", '{"x": "v1 farewell"}')
    place.open().reconcile()
    write_all(place, "v2")
    (place.documents / "gone.json").unlink()
    assert reconcile_killed(place, step, n, when) == -signal.SIGKILL

    library = place.open()
    assert all(len(marks) == 1 for marks in versions(library).values())
    library.reconcile()
    assert versions(library) == {"0.json": {"v2"}, "1.json": {"v2"}, "2.json": {"v2"}}
    assert library.check_indexes() is None
    assert place.lexical(library, "farewell") == []
    found = place.dense(library, "v2 doc1 entry 7 " + "word7 " * 60)
    assert {"v2"} == {mark for chunk in found for mark in ("v1", "v2") if mark in chunk.text}
    chunks = [c for d in library.documents() for c in library.record.document_chunks(d.id)]
    assert len({(c.path, c.ordinal) for c in chunks}) == len(chunks)


@pytest.fixture
def indexed(place: Place) -> Place:
    for n in range(4):
        place.write(f"c{n % 2}/{n}.json", "{" + many(f"v1 doc{n}") + '"end": 0}')
    place.open().reconcile()
    place.close()
    return place


def damage_files(place: Place) -> list[Path]:
    return sorted(p for p in (place.data / "indexes").rglob("*") if p.is_file())


def is_sound(place: Place) -> int:
    """Open, compare with the record, return how often the indexes were rebuilt."""
    embedded = place.embedder.n_embedded
    library = place.open()
    assert place.lexical(library, "doc3")[0].path == "c1/3.json"
    assert place.dense(library, "v1 doc2 entry 7 " + "word7 " * 60)
    assert library.check_indexes() is None
    assert place.embedder.n_embedded == embedded
    rebuilt = library.status().n_index_rebuilds
    place.close()
    return rebuilt


def test_indexes_are_rebuilt_from_the_record(indexed: Place) -> None:
    shutil.rmtree(indexed.data / "indexes")
    assert is_sound(indexed) == 1
    assert is_sound(indexed) == 0


@pytest.mark.parametrize("part", ["dense", "lexical"])
def test_missing_folder_is_rebuilt(indexed: Place, part: str) -> None:
    (folder,) = (indexed.data / "indexes").glob(f"*/{part}")
    shutil.rmtree(folder)
    assert is_sound(indexed) == 1


@pytest.mark.parametrize("how", ["truncated", "deleted"])
@pytest.mark.parametrize(
    "pattern",
    [
        "chroma.sqlite3",
        "data_level0.bin",
        "header.bin",
        "link_lists.bin",
        "length.bin",
        "meta.json",
        "*.store",
        "*.idx",
    ],
)
def test_damaged_file_is_detected(indexed: Place, pattern: str, how: str) -> None:
    files = [p for p in damage_files(indexed) if p.match(pattern) and p.stat().st_size]
    if not files:
        pytest.skip(f"these indexes have no {pattern} with content")
    for file in files:
        if how == "deleted":
            file.unlink()
        else:
            os.truncate(file, file.stat().st_size // 2)
    is_sound(indexed)


def test_deleted_text_and_vectors_leave_no_byte(place: Place) -> None:
    secret = "xylophonistquartermaster"
    place.write("keep.json", '{"a": "ordinary words stay"}')
    file = place.write("secret.json", f'{{"a": "the {secret} 绝密内容 knows"}}')
    library = place.open()
    library.reconcile()
    (row,) = place.embedder.embed([f"a: the {secret} 绝密内容 knows"], kind="document")
    (chunk,) = library.document_chunks("secret.json")
    in_chroma = apart([chunk.id], row[None, :])[0]
    needles = [secret.encode(), "绝密内容".encode(), row.tobytes(), in_chroma.tobytes()]
    assert all(any(n in p.read_bytes() for p in place.data.rglob("*") if p.is_file()) for n in needles)
    file.unlink()
    library.reconcile()
    library.compact()
    for path in (p for p in place.data.rglob("*") if p.is_file()):
        data = path.read_bytes()
        assert not any(needle in data for needle in needles), path
    assert place.lexical(library, "ordinary")
    place.close()
    assert not any(n in p.read_bytes() for p in place.data.rglob("*") if p.is_file() for n in needles)


def test_deleted_text_leaves_the_disk_without_being_told(place: Place) -> None:
    secret = "xylophonistquartermaster"
    place.write("keep.md", "ordinary words stay")
    file = place.write("secret.md", f"what the {secret} knows")
    library = place.open()
    library.reconcile()
    assert not library.record.holds_deleted()
    library.start_watching()
    file.write_text("nothing of importance")
    deadline = time.monotonic() + 60
    noticed = False
    while library.record.holds_deleted() or not noticed:
        noticed |= library.record.holds_deleted()
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)
    files = [path for path in place.data.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if secret.encode() in path.read_bytes()]
    assert place.lexical(library, "ordinary")
    assert library.check_indexes() is None


def test_copies_in_prompts_are_forgotten_before_text_counts_as_gone(place: Place) -> None:
    asked: list[bool] = []

    def forget() -> None:
        asked.append(library.record.holds_deleted())
        if len(asked) == 1:
            raise EngineError("a file cannot be removed: Read-only file system")

    place.write("keep.md", "ordinary words stay")
    file = place.write("secret.md", "what nobody may know")
    library = place.open(forget_copies=forget)
    library.reconcile()
    file.unlink()
    library.reconcile()
    with pytest.raises(RecordError, match="prompts may hold what was deleted: a file cannot be removed"):
        library.compact()
    assert library.record.holds_deleted()
    library.compact()
    assert asked == [True, True]
    assert not library.record.holds_deleted()


def draft(text: str) -> ChunkDraft:
    return ChunkDraft(text, (), None, 1, 0, len(text))


def test_full_disk_fails_clearly_and_reads_go_on(tmp_path: Path) -> None:
    record = Record.open(tmp_path / "record.sqlite3")
    facts = FileFacts(1, 1, 1)
    record.publish(NewVersion("a.md", "default", facts, b"1", "A", (draft("first"),)))
    with record._connections.maintaining() as writer:
        (pages,) = writer.execute("PRAGMA page_count").fetchone()
        writer.execute(f"PRAGMA max_page_count = {pages}")
    big = NewVersion("a.md", "default", facts, b"2", "A", tuple(draft(f"{n}" * 5000) for n in range(9)))
    with pytest.raises(StorageFull, match="free space"):
        record.publish(big)
    (document,) = record.documents()
    assert [c.text for c in record.document_chunks(document.id)] == ["first"]
    with record._connections.maintaining() as writer:
        writer.execute("PRAGMA max_page_count = 1000000")
    record.publish(big)
    assert len(record.document_chunks(document.id)) == 9
    assert record.check() is None
    record.close()


def test_newer_record_is_refused(tmp_path: Path) -> None:
    Record.open(tmp_path / "record.sqlite3").close()
    connection = sqlite3.connect(tmp_path / "record.sqlite3")
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    with pytest.raises(RecordTooNew, match="999"):
        Record.open(tmp_path / "record.sqlite3")


def test_file_that_is_no_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "record.sqlite3").write_bytes(b"this is not a database " * 100)
    with pytest.raises(RecordError, match=r"record\.sqlite3: file is not a database"):
        Record.open(tmp_path / "record.sqlite3")


def test_version_switches_in_one_transaction(tmp_path: Path) -> None:
    record = Record.open(tmp_path / "record.sqlite3")
    facts = FileFacts(1, 1, 1)
    (document_id,) = record.publish(
        NewVersion("a.md", "default", facts, b"1", "A", tuple(draft(f"old {n}") for n in range(5)))
    )
    with record.snapshot():
        first = record.document_chunks(document_id)
        switched = NewVersion("a.md", "default", facts, b"2", "A", (draft("old 2"), draft("new")))
        record.publish(switched)
        assert record.document_chunks(document_id) == first
    assert [c.text for c in record.document_chunks(document_id)] == ["old 2", "new"]
    assert record.documents()[0].version == 2
    record.close()


def test_readers_of_ended_threads_are_closed(tmp_path: Path) -> None:
    record = Record.open(tmp_path / "record.sqlite3")
    for _ in range(20):
        thread = threading.Thread(target=record.documents)
        thread.start()
        thread.join()
    record.documents()
    assert len(record._connections._readers) <= 2
    record.close()


def test_vectors_of_another_length_are_refused(tmp_path: Path) -> None:
    from ingest.errors import EmbedderMismatch

    record = Record.open(tmp_path / "record.sqlite3")
    embedder_id = record.embedder_id("model-a", 4)
    with pytest.raises(EmbedderMismatch, match=r"\(1, 4\)"):
        record.store_vectors(embedder_id, [b"x"], np.zeros((1, 5), np.float32))
    with pytest.raises(EmbedderMismatch, match="5"):
        record.embedder_id("model-a", 5)
    record.close()


@pytest.fixture
def large(place: Place) -> Place:
    """More rows than Chroma keeps in its log: its HNSW files are written."""
    library = place.open()
    rng = np.random.default_rng(7)
    texts = [f"entry {n} number{n}" for n in range(1200)]
    vectors = rng.standard_normal((len(texts), place.embedder.dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    library.insert("large.md", [draft(text) for text in texts], vectors)
    assert library.check_indexes() is None
    place.close()
    return place


@pytest.mark.parametrize("how", ["truncated", "deleted"])
@pytest.mark.parametrize("name", ["data_level0.bin", "header.bin", "length.bin", "link_lists.bin"])
def test_damaged_vectors_are_rebuilt(large: Place, name: str, how: str) -> None:
    (file,) = (p for p in damage_files(large) if p.name == name)
    if how == "deleted":
        file.unlink()
    else:
        os.truncate(file, max(0, file.stat().st_size - 8))
    library = large.open()
    assert library.check_indexes() is None
    assert library.status().n_index_rebuilds == 1
    assert large.embedder.n_embedded == 0


def test_untouched_indexes_are_not_rebuilt(large: Place) -> None:
    library = large.open()
    assert library.check_indexes() is None
    assert library.status().n_index_rebuilds == 0


@pytest.mark.parametrize(
    ("n_stumbles", "n_rebuilds"), [pytest.param(2, 0, id="once-or-twice"), pytest.param(4, 1, id="on-and-on")]
)
def test_row_that_goes_away_during_a_search_is_no_damage(
    place: Place, monkeypatch: pytest.MonkeyPatch, n_stumbles: int, n_rebuilds: int
) -> None:
    """Chroma then says "Error finding id"; only what says so while nothing is written is rebuilt."""
    place.write("a.md", "Apples are red.")
    library = place.open()
    library.reconcile()
    search, calls = DenseIndex.search, itertools.count()

    def stumbling(index: DenseIndex, vector: NDArray[np.float32], **options: Any) -> list[Hit]:
        if next(calls) < n_stumbles:
            (collection,) = index._collections.values()
            with _damage():  # what Chroma itself says of a row that is gone
                collection.query(query_embeddings=vector.reshape(1, -1), ids=["999"], n_results=1)
        return search(index, vector, **options)

    monkeypatch.setattr(DenseIndex, "search", stumbling)
    assert [chunk.path for chunk in place.dense(library, "Apples are red.")] == ["a.md"]
    assert library.status().n_index_rebuilds == n_rebuilds
    assert next(calls) > n_stumbles


def test_kill_campaign_in_short() -> None:
    """`make kill-campaign` is the long form."""
    assert campaign(2, 4, seed=int(time.time()), jobs=2) == 0


def test_damage_campaign_in_short() -> None:
    """`make damage-campaign` is the long form."""
    assert damage_campaign(every=9) == []


def test_a_killed_pass_goes_on_from_the_last_batch(place: Place) -> None:
    """A 500-page PDF killed in its fifth batch: only the rest is embedded."""
    words = " ".join(f"word{n}" for n in range(60))
    pages = [
        [(11, f"Page {n} begins here."), *((11, f"{words} {n}.{k}") for k in range(3))] for n in range(500)
    ]
    place.write("long.pdf", pdf(*pages))
    assert reconcile_killed(place, "ingest.record:Record:store_vectors", 4, "after") == -signal.SIGKILL
    library = place.open()
    assert library.documents() == []
    place.embedder.n_embedded = 0
    report = library.reconcile()
    (document,) = library.documents()
    texts = {c.text for c in library.document_chunks("long.pdf")}
    assert document.n_chunks > 400
    # Two batches are under way at a time: of four begun, three are stored, and not embedded again.
    assert place.embedder.n_embedded <= len(texts) - 3 * EMBED_TEXTS
    assert report.n_chunks_reused >= 3 * EMBED_TEXTS
    assert library.check_indexes() is None
