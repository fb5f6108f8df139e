"""Uploaded files and vector stores: what OpenAI's API calls so is a file and a folder of documents here.

Uploads lie in `<data_dir>/uploads` until they are deleted; attaching one copies it into the collection's
folder, and the library does the rest. `<data_dir>/stores.json` remembers which is which.
"""

import hashlib
import json
import re
import shutil
import threading
import unicodedata
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import structlog

from engine.errors import EngineError
from ingest.errors import IngestError
from ingest.reconciler import DEFAULT_COLLECTION, is_temporary
from ingest.values import DocumentInfo
from rag.errors import InvalidRequest, NotFound, SettingsError
from rag.filters import read_filter
from rag.ports import Library

log = structlog.get_logger("quarry.stores")
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]+')
_LONGEST_NAME = 120


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as clients see it; `path` is where its bytes lie."""

    id: str
    filename: str
    n_bytes: int
    created_at: int
    purpose: str
    path: Path
    owner: str = ""
    """The tenant that uploaded it; for a file that lies in the folder by hand, empty."""


@dataclass(frozen=True, slots=True)
class Store:
    """A collection as clients see it; `folder` is its name in the documents folder."""

    id: str
    name: str
    folder: str
    created_at: int
    metadata: dict[str, Any]
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Attached:
    """A file in a store. status: in_progress, completed or failed, then with a reason; path: its document."""

    file_id: str
    created_at: int
    n_bytes: int
    status: str
    reason: str | None
    attributes: dict[str, Any]
    path: str


class Stores:
    """Files and stores of one service. Thread-safe; calls block."""

    def __init__(self, *, data_dir: Path, documents_dir: Path, library: Library) -> None:
        self._data_dir = data_dir
        self._documents = documents_dir
        self._library = library
        self._lock = threading.RLock()
        self._pass_wanted = threading.Event()
        # attributes: of documents that lie in the folder by hand, by path.
        self._state: dict[str, Any] = {
            "files": {},
            "stores": {},
            "attached": {},
            "batches": {},
            "attributes": {},
        }
        try:
            self._state |= json.loads(self._path.read_text("utf-8"))
        except FileNotFoundError:
            log.debug("no uploads yet")
        except ValueError as error:
            raise SettingsError(f"{self._path} is damaged: {error}; put a backup of it there") from error

    # Files.

    def upload(self, filename: str, data: BinaryIO, *, purpose: str, now: int, owner: str = "") -> StoredFile:
        """Keep an uploaded file. Raises: InvalidRequest for a name that no document may have."""
        name = safe_name(filename)
        file_id = f"file-{uuid.uuid4().hex[:24]}"
        n_bytes = _write_from(self._blob(file_id), data)
        with self._lock:
            self._state["files"][file_id] = {
                "filename": name,
                "n_bytes": n_bytes,
                "created_at": now,
                "purpose": purpose,
                "owner": owner,
            }
            self._save()
        return self.file(file_id)

    def file(self, file_id: str) -> StoredFile:
        """Find a file by its id. Raises: NotFound."""
        with self._lock:
            known = self._state["files"].get(file_id)
        if known is not None:
            return StoredFile(id=file_id, path=self._blob(file_id), **known)
        for document in self._library.documents():
            if path_id(document.path) == file_id:
                return self._own_file(document)
        raise no_file(file_id)

    def files(self) -> list[StoredFile]:
        """List uploads, oldest first."""
        with self._lock:
            return [StoredFile(id=i, path=self._blob(i), **f) for i, f in self._state["files"].items()]

    def delete_file(self, file_id: str) -> None:
        """Forget an upload and take it out of every store. Raises: NotFound, InvalidRequest."""
        with self._lock:
            if file_id not in self._state["files"]:
                self.file(file_id)
                raise _by_hand(file_id)
            for attached in self._state["attached"].values():
                if entry := attached.pop(file_id, None):
                    (self._documents / entry["path"]).unlink(missing_ok=True)
            del self._state["files"][file_id]
            self._save()
            self._blob(file_id).unlink(missing_ok=True)
        self._library.reconcile()

    # Stores.

    def create_store(
        self, name: str, metadata: dict[str, Any], *, now: int, description: str | None = None
    ) -> Store:
        """Make a collection; a number tells it from another of the same name. Raises: InvalidRequest."""
        with self._lock:
            base = folder = safe_name(name or f"store-{uuid.uuid4().hex[:8]}")
            taken = {store.folder for store in self.stores()} | {DEFAULT_COLLECTION}
            number = 1
            while folder in taken or (self._documents / folder).exists():
                number += 1
                folder = f"{base}-{number}"
            (self._documents / folder).mkdir(parents=True)
            entry: dict[str, Any] = {
                "name": name or folder,
                "folder": folder,
                "created_at": now,
                "metadata": metadata,
                "description": description,
            }
            self._state["stores"][store_id(folder)] = entry
            self._save()
            return Store(id=store_id(folder), **entry)

    def stores(self) -> list[Store]:
        """List the stores that were made here, then the collections that lie in the folder."""
        with self._lock:
            found = {i: Store(id=i, **entry) for i, entry in self._state["stores"].items()}
        for info in self._library.collections():
            own = store_id(info.name)
            found.setdefault(own, Store(own, info.name, info.name, 0, {}))
        return list(found.values())

    def store(self, wanted: str) -> Store:
        """Find a store by its id. Raises: NotFound."""
        for store in self.stores():
            if store.id == wanted:
                return store
        if wanted == store_id(DEFAULT_COLLECTION):
            # It is there before its first document: somebody must be able to put one in.
            return Store(wanted, DEFAULT_COLLECTION, DEFAULT_COLLECTION, 0, {})
        raise no_store(wanted)

    def update_store(
        self,
        wanted: str,
        name: str | None,
        metadata: dict[str, Any] | None,
        description: str | None = None,
    ) -> Store:
        """Change what a store is called; its folder and id stay. Raises: NotFound."""
        with self._lock:
            store = self.store(wanted)
            self._state["stores"][wanted] = {
                "name": name or store.name,
                "folder": store.folder,
                "created_at": store.created_at,
                "metadata": store.metadata if metadata is None else metadata,
                "description": store.description if description is None else description,
            }
            self._save()
        return self.store(wanted)

    def delete_store(self, wanted: str) -> None:
        """Delete a store and its copies of files. Raises: NotFound, InvalidRequest where others lie in it."""
        with self._lock:
            store = self.store(wanted)
            attached = self._state["attached"].get(wanted, {})
            own = {entry["path"] for entry in attached.values()}
            others = [d.path for d in self._documents_of(store) if d.path not in own]
            if others:
                raise InvalidRequest(
                    f"{store.name} holds {len(others)} documents that were not uploaded, such as "
                    f"{others[0]!r}: delete them in the documents folder",
                    param="vector_store_id",
                )
            for path in own:
                (self._documents / path).unlink(missing_ok=True)
            _remove_if_empty(self._documents / store.folder)
            self._state["stores"].pop(wanted, None)
            self._state["attached"].pop(wanted, None)
            self._save()
        self._library.reconcile()

    # Files in stores.

    def attach(self, wanted: str, file_id: str, attributes: dict[str, Any], *, now: int) -> Attached:
        """Copy an upload into a store's folder; reading it goes on in the background. Raises: NotFound."""
        with self._lock:
            store, file = self.store(wanted), self.file(file_id)
            attached = self._state["attached"].setdefault(wanted, {})
            if file_id not in attached and file_id in self._state["files"]:
                path = self._free_path(store, file)
                with file.path.open("rb") as data:
                    _write_from(self._documents / path, data)
                attached[file_id] = {"path": path, "created_at": now, "attributes": attributes}
                self._save()
        self._want_pass()
        return self.attached_file(wanted, file_id)

    def attached(self, wanted: str) -> list[Attached]:
        """List the files of a store, those that lie in its folder by hand included. Raises: NotFound."""
        store = self.store(wanted)
        documents = {document.path: document for document in self._documents_of(store)}
        with self._lock:
            entries = dict(self._state["attached"].get(wanted, {}))
            found = [
                _attached(i, entry, documents.pop(entry["path"], None), self._state["files"][i]["n_bytes"])
                for i, entry in entries.items()
            ]
        for document in documents.values():
            entry = {
                "path": document.path,
                "created_at": document.mtime_ns // 10**9,
                "attributes": self._state["attributes"].get(document.path, {}),
            }
            found.append(_attached(path_id(document.path), entry, document, document.size))
        return found

    def attached_file(self, wanted: str, file_id: str) -> Attached:
        """Find a file of a store. Raises: NotFound."""
        for attached in self.attached(wanted):
            if attached.file_id == file_id:
                return attached
        raise NotFound(f"file {file_id[:80]!r} is not in this vector store", param="file_id")

    def detach(self, wanted: str, file_id: str) -> None:
        """Take a file out of a store; it is not found any more when this returns.

        Raises: NotFound, InvalidRequest (it was not uploaded).
        """
        with self._lock:
            self.attached_file(wanted, file_id)
            entry = self._state["attached"].get(wanted, {}).pop(file_id, None)
            if entry is None:
                raise _by_hand(file_id)
            (self._documents / entry["path"]).unlink(missing_ok=True)
            self._save()
        self._library.reconcile()

    def set_attributes(self, wanted: str, file_id: str, attributes: dict[str, Any]) -> Attached:
        """Say something else of a file. Raises: NotFound."""
        with self._lock:
            attached = self.attached_file(wanted, file_id)
            entry = self._state["attached"].get(wanted, {}).get(file_id)
            if entry is not None:
                entry["attributes"] = attributes
            else:
                self._state["attributes"][attached.path] = attributes
            self._save()
        return self.attached_file(wanted, file_id)

    def attributes(self) -> dict[str, dict[str, Any]]:
        """Give what is said of each document, by its path."""
        with self._lock:
            found = dict(self._state["attributes"])
            for attached in self._state["attached"].values():
                found |= {entry["path"]: entry["attributes"] for entry in attached.values()}
            return found

    def accepting(self, filters: object) -> Callable[[str], bool] | None:
        """Give the test of a document's path that a request's filter means. Raises: InvalidRequest."""
        if filters is None:
            return None
        matches, attributes = read_filter(filters), self.attributes()
        return lambda path: matches(attributes.get(path, {}))

    def uploaded(self) -> dict[str, tuple[str, str]]:
        """Give the ids of file and store of every document that was uploaded, by its path."""
        with self._lock:
            return {
                entry["path"]: (file_id, store)
                for store, attached in self._state["attached"].items()
                for file_id, entry in attached.items()
            }

    def file_of(self, path: str) -> tuple[str, dict[str, Any]]:
        """Give the id and the attributes of the file that a passage comes from."""
        with self._lock:
            for attached in self._state["attached"].values():
                for file_id, entry in attached.items():
                    if entry["path"] == path:
                        return file_id, entry["attributes"]
            return path_id(path), self._state["attributes"].get(path, {})

    # Batches.

    def create_batch(self, wanted: str, files: Iterable[tuple[str, dict[str, Any]]], *, now: int) -> str:
        """Attach several files; return the id under which they can be asked for. Raises: NotFound."""
        listed = list(files)
        for file_id, _ in listed:
            self.file(file_id)
        for file_id, attributes in listed:
            self.attach(wanted, file_id, attributes, now=now)
        batch_id = f"vsfb_{uuid.uuid4().hex[:24]}"
        with self._lock:
            ids = [file_id for file_id, _ in listed]
            self._state["batches"][batch_id] = {"store": wanted, "files": ids, "created_at": now}
            self._save()
        return batch_id

    def batch(self, wanted: str, batch_id: str) -> tuple[int, list[Attached]]:
        """Give when a batch was made, and its files as they are now. Raises: NotFound."""
        with self._lock:
            batch = self._state["batches"].get(batch_id)
        if batch is None or batch["store"] != wanted:
            raise NotFound(f"there is no file batch {batch_id[:80]!r}", param="batch_id")
        return batch["created_at"], [a for a in self.attached(wanted) if a.file_id in batch["files"]]

    def cancel_batch(self, wanted: str, batch_id: str) -> None:
        """Take the files of a batch that are not read yet out of the store. Raises: NotFound."""
        _, files = self.batch(wanted, batch_id)
        waiting = [file.file_id for file in files if file.status == "in_progress"]
        for file_id in waiting:
            self.detach(wanted, file_id)
        with self._lock:
            self._state["batches"][batch_id]["cancelled"] = waiting
            self._save()

    def n_cancelled(self, batch_id: str) -> int | None:
        """Count the files that were taken out by cancelling a batch; None where it was not cancelled."""
        with self._lock:
            cancelled = self._state["batches"][batch_id].get("cancelled")
        return None if cancelled is None else len(cancelled)

    # Inside.

    @property
    def _path(self) -> Path:
        return self._data_dir / "stores.json"

    def _blob(self, file_id: str) -> Path:
        return self._data_dir / "uploads" / file_id

    def _save(self) -> None:
        _write(self._path, json.dumps(self._state, ensure_ascii=False).encode())

    def _own_file(self, document: DocumentInfo) -> StoredFile:
        name = PurePosixPath(document.path).name
        created = document.mtime_ns // 10**9
        path = self._documents / document.path
        return StoredFile(path_id(document.path), name, document.size, created, "assistants", path)

    def _documents_of(self, store: Store) -> list[DocumentInfo]:
        return [d for d in self._library.documents() if d.collection == store.folder]

    def _free_path(self, store: Store, file: StoredFile) -> str:
        path = PurePosixPath(store.folder, file.filename)
        if (self._documents / path).exists():
            path = path.with_name(f"{path.stem}-{file.id[-8:]}{path.suffix}")
        return str(path)

    def _want_pass(self) -> None:
        """Read the folder in the background; one pass serves all who asked before it began."""
        if not self._pass_wanted.is_set():
            self._pass_wanted.set()
            threading.Thread(target=self._pass, name="quarry-uploads").start()

    def _pass(self) -> None:
        self._pass_wanted.clear()
        try:
            self._library.reconcile()
        except (IngestError, EngineError) as error:
            log.warning("reading uploads failed", error=str(error))


def no_file(file_id: str) -> NotFound:
    """Say that a file is not there, or not for this caller."""
    return NotFound(f"there is no file {file_id[:80]!r}", param="file_id")


def no_store(store_id: str) -> NotFound:
    """Say that a store is not there, or not for this caller."""
    return NotFound(f"there is no vector store {store_id[:80]!r}", param="vector_store_id")


def safe_name(given: str) -> str:
    """Make a plain file name of what a client sends. Raises: InvalidRequest (hidden, temporary)."""
    name = unicodedata.normalize("NFC", given).replace("\\", "/").rsplit("/", maxsplit=1)[-1]
    name = _UNSAFE.sub("-", name).strip()
    stem, dot, suffix = name.rpartition(".")
    name = f"{stem[:_LONGEST_NAME]}{dot}{suffix[:16]}" if stem else name[:_LONGEST_NAME]
    while len(name.encode()) > 240:
        name = name[1:]
    if not name or is_temporary(name):
        raise InvalidRequest(
            f"{given[:80]!r} is no name for a document: hidden and temporary files are not read"
        )
    return name


def store_id(folder: str) -> str:
    """Give the id of a collection: the same for ever."""
    return f"vs_{hashlib.sha256(folder.encode()).hexdigest()[:24]}"


def path_id(path: str) -> str:
    """Give the id of a document that lies in the folder by hand."""
    return f"file-{hashlib.sha256(path.encode()).hexdigest()[:24]}"


def _attached(file_id: str, entry: dict[str, Any], document: DocumentInfo | None, n_bytes: int) -> Attached:
    status, reason = "in_progress", None
    if document is not None:
        status = "completed" if document.state == "indexed" else "failed"
        reason = document.reason if status == "failed" else None
    created_at, attributes = entry["created_at"], entry["attributes"]
    return Attached(file_id, created_at, n_bytes, status, reason, attributes, entry["path"])


def _by_hand(file_id: str) -> InvalidRequest:
    return InvalidRequest(
        f"{file_id} was not uploaded: it lies in the documents folder, and is deleted there", param="file_id"
    )


def _write(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{uuid.uuid4().hex}.tmp")
    hidden.write_bytes(data)
    hidden.replace(path)


def _write_from(path: Path, data: BinaryIO) -> int:
    """Write a file from an open one, so that it is there whole or not at all; return its length."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with hidden.open("wb") as out:
            shutil.copyfileobj(data, out, 1 << 20)
            n_bytes = out.tell()
        hidden.replace(path)
    finally:
        hidden.unlink(missing_ok=True)
    return n_bytes


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
