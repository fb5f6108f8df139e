"""What the page shows of the library and OpenAI's API has no word for: states, progress, passages."""

import dataclasses
import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from ingest.reconciler import DEFAULT_COLLECTION, collection_of
from ingest.report import IngestProgress
from ingest.values import Chunk, DocumentInfo
from ingest.values import Place as FilePlace
from rag.auth import Caller, caller_of
from rag.errors import NotFound
from rag.models import ALL, slug
from rag.ports import Engine
from rag.service import Service, service_of
from rag.stores import path_id, store_id

router = APIRouter()
_MOST_NEIGHBOURS = 300
_AROUND_LINKED = 3


class Listing(BaseModel):
    """Which documents are wanted."""

    collection: str | None = Field(None, max_length=400)
    query: str = Field("", max_length=400)
    offset: int = Field(0, ge=0)
    limit: int = Field(200, ge=1, le=1000)


class Place(BaseModel):
    """A chunk, or a document from its beginning, and how much around it."""

    chunk: int | None = Field(None, ge=0, lt=1 << 63)
    path: str | None = Field(None, max_length=4096)
    before: int = Field(0, ge=0, le=_MOST_NEIGHBOURS)
    after: int = Field(20, ge=0, le=_MOST_NEIGHBOURS)


@router.get("/library/documents")
def list_documents(request: Request, wanted: Annotated[Listing, Query()]) -> dict[str, Any]:
    """List documents with their state, and uploads that wait to be read; and how far the reading is."""
    service, caller = service_of(request), caller_of(request)
    rows = _rows(service, caller)
    sought = wanted.query.casefold()
    shown = [
        row
        for row in rows
        if wanted.collection in (None, row["collection"])
        and sought in f"{row['path']}\n{row['title']}".casefold()
    ]
    status = service.library.status()
    return {
        "data": shown[wanted.offset : wanted.offset + wanted.limit],
        "total": len(shown),
        "counts": {
            "ready": sum(row["state"] == "indexed" for row in rows),
            "waiting": sum(row["state"] == "waiting" for row in rows),
            "failed": sum(row["state"] in ("failed", "quarantined") for row in rows),
        },
        "collections": _collections(service, caller, rows),
        "models": models_of(service.parts.engine),
        # The name of the file that is being read may be none of this caller's business.
        "progress": progress_of(status.progress) if status.progress and caller.collections is None else None,
        "max_upload_bytes": service.settings.max_upload_bytes,
    }


@router.get("/library/passage")
def read_passage(request: Request, wanted: Annotated[Place, Query()]) -> dict[str, Any]:
    """Give a chunk with its neighbours, as they stand in the document. Raises: NotFound."""
    service, caller = service_of(request), caller_of(request)
    return passage(service, wanted, caller)


linked = APIRouter(include_in_schema=False)


@linked.get("/s/{token}/passage")
def read_linked(token: str, request: Request, response: Response) -> dict[str, Any]:
    """Give the passage that a link allows to read, and a little around it. Raises: Forbidden, NotFound."""
    service = service_of(request)
    place = service.links.read(token, now=time.time())
    around = Place(
        chunk=place.chunk, path=None, before=_AROUND_LINKED, after=place.n_chunks - 1 + _AROUND_LINKED
    )
    found = passage(service, around, Caller())
    first = next(i for i, chunk in enumerate(found["chunks"]) if chunk["id"] == place.chunk)
    marked = found["chunks"][first : first + place.n_chunks]
    response.headers["Cache-Control"] = "no-store"
    return {**found, "marked": [chunk["id"] for chunk in marked]}


def passage(service: Service, wanted: Place, caller: Caller) -> dict[str, Any]:
    """Give what stands at a place of a document. Raises: NotFound, also for what the caller may not see."""
    if wanted.chunk is None:
        chunks = service.library.document_chunks(wanted.path or "")[: wanted.after + 1]
    else:
        chunks = service.library.neighbours(wanted.chunk, before=wanted.before, after=wanted.after)
    if not chunks or not caller.sees(chunks[0].collection):
        raise NotFound("this passage is not in the library any more: its document was changed or deleted")
    first = chunks[0]
    info = next(d for d in service.library.documents() if d.id == first.document_id)
    return {
        "document": {
            "path": first.path,
            "title": first.title,
            "collection": first.collection,
            "n_chunks": info.n_chunks,
            "version": info.version,
            "modified_at": info.mtime_ns // 10**9,
            "file_id": service.stores.file_of(first.path)[0],
        },
        "chunks": [_chunk(chunk) for chunk in chunks],
    }


def _rows(service: Service, caller: Caller) -> list[dict[str, Any]]:
    uploaded = service.stores.uploaded()
    documents = [d for d in service.library.documents() if caller.sees(d.collection)]
    rows = [_row(document, uploaded.get(document.path)) for document in documents]
    known = {document.path for document in documents}
    for path, (file_id, store) in uploaded.items():
        collection = path.partition("/")[0]
        if path not in known and caller.sees(collection):
            rows.append(_waiting(path, collection, file_id, store))
            known.add(path)
    for file in service.library.pending():
        if file.path not in known and caller.sees(collection := collection_of(file.path)):
            row = _waiting(file.path, collection, path_id(file.path), store_id(collection))
            rows.append({**row, "uploaded": False, "bytes": file.size})
    # A file keeps its place when it has been read: nobody who reads page after page misses another.
    return sorted(rows, key=lambda row: str(row["path"]))


def models_of(engine: Engine) -> dict[str, Any]:
    """Name the models that answer and embed."""
    return {
        "chat": {"name": engine.chat.name} if engine.chat else None,
        "embedding": {"name": engine.embedder.name} if engine.embedder else None,
    }


def progress_of(progress: IngestProgress) -> dict[str, Any]:
    """Describe how far a pass is, with its rate and the time left."""
    return {
        **dataclasses.asdict(progress),
        "bytes_per_second": progress.bytes_per_second,
        "seconds_left": progress.seconds_left,
    }


def _row(document: DocumentInfo, upload: tuple[str, str] | None) -> dict[str, Any]:
    file_id, store = upload or (path_id(document.path), store_id(document.collection))
    return {
        "file_id": file_id,
        "vector_store_id": store,
        "path": document.path,
        "title": document.title,
        "collection": document.collection,
        "state": document.state,
        "reason": document.reason,
        "version": document.version,
        "n_chunks": document.n_chunks,
        "n_tokens": document.n_tokens,
        "bytes": document.size,
        "seconds": document.seconds,
        "indexed_at": document.indexed_at,
        "modified_at": document.mtime_ns // 10**9,
        # What lies in the folder by hand is deleted there, and only there.
        "uploaded": upload is not None,
    }


def _waiting(path: str, collection: str, file_id: str, store: str) -> dict[str, Any]:
    nothing = {"title": "", "reason": None, "version": 0, "n_chunks": 0, "n_tokens": 0, "bytes": 0}
    return {
        "file_id": file_id,
        "vector_store_id": store,
        "path": path,
        "collection": collection,
        "state": "waiting",
        "modified_at": None,
        "uploaded": True,
        "seconds": 0.0,
        "indexed_at": None,
        **nothing,
    }


def _collections(service: Service, caller: Caller, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Describe the collections, the one that everything else goes into first, and there even while empty."""
    names = {store.folder: store.name for store in service.stores.stores() if caller.sees(store.folder)}
    if caller.sees(DEFAULT_COLLECTION):
        names.setdefault(DEFAULT_COLLECTION, DEFAULT_COLLECTION)
    found = []
    for folder in sorted(names, key=lambda name: (name != DEFAULT_COLLECTION, name)):
        inside = [row for row in rows if row["collection"] == folder]
        found.append(
            {
                "id": store_id(folder),
                "name": names[folder],
                "folder": folder,
                "model": f"{ALL}-{slug(folder)}",
                "n_documents": len(inside),
                "n_chunks": sum(row["n_chunks"] for row in inside),
                "deletable": folder != DEFAULT_COLLECTION and all(row["uploaded"] for row in inside),
            }
        )
    return found


def _place(place: FilePlace | None) -> dict[str, Any] | None:
    """Give the paragraphs, rows, lines or pages of the original that a passage stands in."""
    return None if place is None else {"unit": place.unit, "first": place.first, "last": place.last}


def _chunk(chunk: Chunk) -> dict[str, Any]:
    return {
        "id": chunk.id,
        "ordinal": chunk.ordinal,
        "heading_path": list(chunk.heading_path),
        "page": chunk.page,
        "place": _place(chunk.place),
        "text": chunk.text,
    }
