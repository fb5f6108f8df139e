"""The knowledge base managed with the real openai package and nothing else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from rag.settings import Settings
from tests.e2e.serving import Served, serve

BACKUP = b"# Backups\n\nThe nightly backup starts at 02:40 and is kept for 35 days on heron-3.\n"
PRINTER = b"The printer on the third floor is a Kyoto 550.\n"


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, starter_chat_gguf: Path, starter_embedding_gguf: Path
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("stores")
    (folder / "documents" / "soups").mkdir(parents=True)
    (folder / "documents" / "soups" / "lentils.md").write_text("The lentil soup simmers for forty minutes.\n")
    settings = Settings(answer_tokens=32)
    with serve(folder, settings, chat=starter_chat_gguf, embedding=starter_embedding_gguf) as served:
        yield served


def names(served: Served) -> set[str]:
    return {str(path.relative_to(served.documents)) for path in served.documents.rglob("*") if path.is_file()}


def test_store_from_creation_to_deletion(served: Served) -> None:
    with served.client() as client:
        store = client.vector_stores.create(name="ops", metadata={"team": "blue"})
        file = client.files.create(file=("backup.md", BACKUP), purpose="assistants")
        attached = client.vector_stores.files.create_and_poll(
            file.id, vector_store_id=store.id, attributes={"year": 2026}, poll_interval_ms=100
        )
        assert (attached.status, attached.last_error) == ("completed", None)
        found = client.vector_stores.search(store.id, query="When does the backup start?").data[0]
        assert (found.file_id, found.filename, found.attributes) == (file.id, "backup.md", {"year": 2026})
        assert "02:40" in found.content[0].text
        model = (client.vector_stores.retrieve(store.id).model_extra or {})["model"]
        answer = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "When does the nightly backup start?"}]
        )
        assert model == "quarry-ops"
        assert (answer.model_extra or {})["sources"][0]["path"] == "ops/backup.md"
        assert client.files.content(file.id).read() == BACKUP
        client.vector_stores.files.delete(file.id, vector_store_id=store.id)
        assert not client.vector_stores.search(store.id, query="When does the backup start?").data
        assert client.files.delete(file.id).deleted
        assert client.vector_stores.delete(store.id).deleted
        with pytest.raises(openai.NotFoundError, match="vector store"):
            client.vector_stores.retrieve(store.id)
    assert names(served) == {"soups/lentils.md"}


def test_batch_with_a_file_that_cannot_be_read(served: Served) -> None:
    with served.client() as client:
        store = client.vector_stores.create(name="floor")
        files: Any = [("printer.txt", PRINTER), ("broken.pdf", b"%PDF-1.4 nothing")]
        batch = client.vector_stores.file_batches.upload_and_poll(store.id, files=files, poll_interval_ms=100)
        assert (batch.file_counts.completed, batch.file_counts.failed) == (1, 1)
        listed = client.vector_stores.files.list(store.id, filter="failed").data
        assert listed[0].last_error is not None
        assert listed[0].last_error.message
        in_batch = client.vector_stores.file_batches.list_files(batch.id, vector_store_id=store.id)
        assert len(in_batch.data) == 2
        renamed = client.vector_stores.update(store.id, name="Third floor")
        assert (renamed.id, renamed.name) == (store.id, "Third floor")
        client.vector_stores.delete(store.id)
        for file in client.files.list():
            client.files.delete(file.id)


def test_folders_are_stores_and_their_files_are_safe(served: Served) -> None:
    with served.client() as client:
        (store,) = [store for store in client.vector_stores.list() if store.name == "soups"]
        (file,) = client.vector_stores.files.list(store.id).data
        assert client.files.retrieve(file.id).filename == "lentils.md"
        assert client.files.content(file.id).read().startswith(b"The lentil soup")
        for delete in (
            lambda: client.vector_stores.delete(store.id),
            lambda: client.files.delete(file.id),
            lambda: client.vector_stores.files.delete(file.id, vector_store_id=store.id),
        ):
            with pytest.raises(openai.BadRequestError, match="documents folder"):
                delete()
    assert names(served) == {"soups/lentils.md"}


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        pytest.param("../../etc/passwd", "passwd", id="up"),
        pytest.param("..\\up.txt", "up.txt", id="backslash"),
        pytest.param("a|b:c.txt", "a-b-c.txt", id="marks"),
        pytest.param("x" * 500 + ".md", "x" * 120 + ".md", id="long"),
        pytest.param("规定.md", "规定.md", id="chinese"),
    ],
)
def test_names_of_uploads_stay_in_the_folder(served: Served, name: str, kept: str) -> None:
    with served.client() as client:
        file = client.files.create(file=(name, b"text"), purpose="user_data")
        assert file.filename == kept
        client.files.delete(file.id)


def test_what_is_refused(served: Served) -> None:
    with served.client() as client:
        with pytest.raises(openai.BadRequestError, match="hidden"):
            client.files.create(file=(".env", b"x"), purpose="assistants")
        with pytest.raises(openai.BadRequestError, match="purpose"):
            client.files.create(file=("x.txt", b"x"), purpose="batch")
        with pytest.raises(openai.BadRequestError, match="expires_after"):
            client.vector_stores.create(expires_after={"anchor": "last_active_at", "days": 1})
        static: Any = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0}}
        with pytest.raises(openai.BadRequestError, match="chunking_strategy"):
            client.vector_stores.create(chunking_strategy=static)
        with pytest.raises(openai.NotFoundError, match="file-nothing"):
            client.files.retrieve("file-nothing")
        with pytest.raises(openai.BadRequestError, match="after"):
            client.files.list(after="file-nothing")
