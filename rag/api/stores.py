"""/v1/vector_stores: collections, managed with OpenAI's own package."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field, StrictBool

from rag import wire
from rag.api.files import file_for, refuse, stores_of
from rag.api.paging import Paging, page_of
from rag.auth import caller_of
from rag.errors import InvalidRequest, UnsupportedParameter
from rag.filters import read_threshold
from rag.models import ALL, slug
from rag.service import service_of
from rag.stores import Attached, Store, Stores, no_store

router = APIRouter()
_MOST_IN_BATCH = 2000

FileState = Literal["in_progress", "completed", "failed", "cancelled"]
Attributes = dict[str, wire.String | wire.Number | bool]


class StoreRequest(BaseModel):
    """POST /v1/vector_stores."""

    description: wire.String | None = Field(None, max_length=1024)
    name: wire.String | None = Field(None, max_length=256)
    file_ids: list[wire.String] | None = Field(None, max_length=500)
    metadata: dict[str, wire.String] | None = Field(None, max_length=16)
    expires_after: Any = None
    chunking_strategy: dict[str, Any] | None = None


class AttachRequest(BaseModel):
    """POST /v1/vector_stores/{id}/files, and an entry of a batch."""

    file_id: wire.String
    attributes: Attributes | None = Field(None, max_length=16)
    chunking_strategy: dict[str, Any] | None = None


class AttributesRequest(BaseModel):
    """POST /v1/vector_stores/{id}/files/{file_id}."""

    attributes: Attributes = Field(max_length=16)


class BatchRequest(BaseModel):
    """POST /v1/vector_stores/{id}/file_batches."""

    file_ids: list[wire.String] | None = Field(None, max_length=_MOST_IN_BATCH)
    files: list[AttachRequest] | None = Field(None, max_length=_MOST_IN_BATCH)
    attributes: Attributes | None = Field(None, max_length=16)
    chunking_strategy: dict[str, Any] | None = None


class SearchRequest(BaseModel):
    """POST /v1/vector_stores/{id}/search."""

    query: wire.String | Annotated[list[wire.String], Field(min_length=1, max_length=16)]
    max_num_results: int = Field(10, ge=1, le=50)
    filters: Any = None
    ranking_options: dict[str, Any] | None = None
    rewrite_query: StrictBool | None = False


@router.post("/vector_stores")
def create_store(body: StoreRequest, request: Request) -> dict[str, Any]:
    """Make a collection."""
    caller_of(request).require_all("a new vector store")
    refuse(expires_after=body.expires_after)
    _check_chunking(body.chunking_strategy)
    stores = stores_of(request)
    for file_id in body.file_ids or ():
        stores.file(file_id)
    metadata = dict(body.metadata or {})
    store = stores.create_store(body.name or "", metadata, now=wire.now(), description=body.description)
    for file_id in body.file_ids or ():
        stores.attach(store.id, file_id, {}, now=wire.now())
    return _store(store, stores)


@router.get("/vector_stores")
def liststores_of(request: Request, paging: Annotated[Paging, Query()]) -> dict[str, Any]:
    """List collections."""
    stores = stores_of(request)
    caller = caller_of(request)
    return page_of([_store(s, stores) for s in stores.stores() if caller.sees(s.folder)], paging)


@router.get("/vector_stores/{store_id}")
def retrieve_store(store_id: str, request: Request) -> dict[str, Any]:
    """Describe a collection."""
    stores = stores_of(request)
    return _store(_store_for(request, store_id), stores)


@router.post("/vector_stores/{store_id}")
def update_store(store_id: str, body: StoreRequest, request: Request) -> dict[str, Any]:
    """Rename a collection for clients, or change its metadata."""
    refuse(expires_after=body.expires_after, file_ids=body.file_ids)
    _store_for(request, store_id)
    stores = stores_of(request)
    metadata = None if body.metadata is None else dict(body.metadata)
    return _store(stores.update_store(store_id, body.name, metadata, body.description), stores)


@router.delete("/vector_stores/{store_id}")
def delete_store(store_id: str, request: Request) -> dict[str, Any]:
    """Delete a collection whose documents were all uploaded."""
    caller_of(request).require_all("deleting a vector store")
    stores_of(request).delete_store(store_id)
    return {"id": store_id, "object": "vector_store.deleted", "deleted": True}


@router.post("/vector_stores/{store_id}/search")
def search(store_id: str, body: SearchRequest, request: Request) -> dict[str, Any]:
    """Give the best passages of a collection; the score is the cosine with the query."""
    refuse(rewrite_query=body.rewrite_query)
    least = read_threshold(body.ranking_options, param="ranking_options")
    service, stores = service_of(request), stores_of(request)
    store = _store_for(request, store_id)
    queries = [body.query] if isinstance(body.query, str) else body.query
    passages = service.parts.retriever.search(
        " ".join(queries),
        collections=frozenset({store.folder}),
        limit=body.max_num_results,
        accepts=stores.accepting(body.filters),
    )
    results = []
    for passage in passages:
        file_id, attributes = stores.file_of(passage.path)
        score = min(1.0, max(0.0, passage.similarity))
        if score >= least:
            results.append(
                {
                    "file_id": file_id,
                    "filename": passage.path.rpartition("/")[2],
                    "score": score,
                    "attributes": attributes,
                    "content": [{"type": "text", "text": passage.text}],
                }
            )
    page = {"object": "vector_store.search_results.page", "search_query": queries, "data": results}
    return {**page, "has_more": False, "next_page": None}


@router.post("/vector_stores/{store_id}/files")
def attach(store_id: str, body: AttachRequest, request: Request) -> dict[str, Any]:
    """Put a file into a collection."""
    _check_chunking(body.chunking_strategy)
    _store_for(request, store_id)
    file_for(request, body.file_id)
    attributes = dict(body.attributes or {})
    return _attached(store_id, stores_of(request).attach(store_id, body.file_id, attributes, now=wire.now()))


@router.get("/vector_stores/{store_id}/files")
def list_attached(
    store_id: str,
    request: Request,
    paging: Annotated[Paging, Query()],
    filter: FileState | None = None,  # noqa: A002
) -> dict[str, Any]:
    """List the files of a collection."""
    files = stores_of(request).attached(_store_for(request, store_id).id)
    return page_of([_attached(store_id, f) for f in files if filter in (None, f.status)], paging)


@router.get("/vector_stores/{store_id}/files/{file_id}")
def retrieve_attached(store_id: str, file_id: str, request: Request) -> dict[str, Any]:
    """Tell how far a file is."""
    _store_for(request, store_id)
    return _attached(store_id, stores_of(request).attached_file(store_id, file_id))


@router.post("/vector_stores/{store_id}/files/{file_id}")
def update_attached(store_id: str, file_id: str, body: AttributesRequest, request: Request) -> dict[str, Any]:
    """Say something else of a file."""
    _store_for(request, store_id)
    attributes = dict(body.attributes)
    return _attached(store_id, stores_of(request).set_attributes(store_id, file_id, attributes))


@router.get("/vector_stores/{store_id}/files/{file_id}/content")
def attached_content(store_id: str, file_id: str, request: Request) -> dict[str, Any]:
    """Give the text of a file, as it was read."""
    _store_for(request, store_id)
    attached = stores_of(request).attached_file(store_id, file_id)
    chunks = service_of(request).library.document_chunks(attached.path)
    data = [{"type": "text", "text": chunk.text} for chunk in chunks]
    page = {"object": "vector_store.file_content.page", "data": data}
    return {**page, "has_more": False, "next_page": None}


@router.delete("/vector_stores/{store_id}/files/{file_id}")
def detach(store_id: str, file_id: str, request: Request) -> dict[str, Any]:
    """Take a file out of a collection."""
    _store_for(request, store_id)
    stores_of(request).detach(store_id, file_id)
    return {"id": file_id, "object": "vector_store.file.deleted", "deleted": True}


@router.post("/vector_stores/{store_id}/file_batches")
def create_batch(store_id: str, body: BatchRequest, request: Request) -> dict[str, Any]:
    """Put several files into a collection."""
    _check_chunking(body.chunking_strategy)
    if bool(body.file_ids) == bool(body.files):
        raise InvalidRequest("send either file_ids or files", param="file_ids")
    shared = dict(body.attributes or {})
    files = [(file_id, shared) for file_id in body.file_ids or ()]
    files += [(file.file_id, dict(file.attributes or shared)) for file in body.files or ()]
    _store_for(request, store_id)
    for file_id, _ in files:
        file_for(request, file_id)
    stores = stores_of(request)
    return _batch(store_id, stores.create_batch(store_id, files, now=wire.now()), stores)


@router.get("/vector_stores/{store_id}/file_batches/{batch_id}")
def retrieve_batch(store_id: str, batch_id: str, request: Request) -> dict[str, Any]:
    """Tell how far a batch is."""
    _store_for(request, store_id)
    return _batch(store_id, batch_id, stores_of(request))


@router.post("/vector_stores/{store_id}/file_batches/{batch_id}/cancel")
def cancel_batch(store_id: str, batch_id: str, request: Request) -> dict[str, Any]:
    """Take the files of a batch that are not read yet out of the collection."""
    _store_for(request, store_id)
    stores = stores_of(request)
    stores.cancel_batch(store_id, batch_id)
    return _batch(store_id, batch_id, stores)


@router.get("/vector_stores/{store_id}/file_batches/{batch_id}/files")
def list_batch(
    store_id: str,
    batch_id: str,
    request: Request,
    paging: Annotated[Paging, Query()],
    filter: FileState | None = None,  # noqa: A002
) -> dict[str, Any]:
    """List the files of a batch."""
    _store_for(request, store_id)
    _, files = stores_of(request).batch(store_id, batch_id)
    return page_of([_attached(store_id, f) for f in files if filter in (None, f.status)], paging)


def _store_for(request: Request, store_id: str) -> Store:
    """Find a collection that the caller may see. Raises: NotFound, also for one that it may not see."""
    store = stores_of(request).store(store_id)
    if not caller_of(request).sees(store.folder):
        raise no_store(store_id)
    return store


def _check_chunking(strategy: dict[str, Any] | None) -> None:
    if strategy is not None and strategy.get("type") != "auto":
        raise UnsupportedParameter(
            "chunking_strategy: only auto is supported, documents are cut at their headings and sentences",
            param="chunking_strategy",
        )


def _store(store: Store, stores: Stores) -> dict[str, Any]:
    files = stores.attached(store.id)
    counts = _counts(files)
    return {
        "id": store.id,
        "object": "vector_store",
        "created_at": store.created_at,
        "last_active_at": max((file.created_at for file in files), default=store.created_at),
        "name": store.name,
        "description": store.description,
        "status": "in_progress" if counts["in_progress"] else "completed",
        "usage_bytes": sum(file.n_bytes for file in files),
        "file_counts": counts,
        "metadata": store.metadata,
        # Our own: what to ask for to be answered from this collection.
        "model": f"{ALL}-{slug(store.folder)}",
    }


def _attached(store_id: str, file: Attached) -> dict[str, Any]:
    error = {"code": "invalid_file", "message": file.reason or ""} if file.status == "failed" else None
    return {
        "id": file.file_id,
        "object": "vector_store.file",
        "created_at": file.created_at,
        "vector_store_id": store_id,
        "status": file.status,
        "usage_bytes": file.n_bytes,
        "last_error": error,
        "attributes": file.attributes,
        "chunking_strategy": {"type": "other"},
    }


def _batch(store_id: str, batch_id: str, stores: Stores) -> dict[str, Any]:
    created_at, files = stores.batch(store_id, batch_id)
    counts, n_cancelled = _counts(files), stores.n_cancelled(batch_id)
    status = "in_progress" if counts["in_progress"] else "completed"
    if n_cancelled is not None:
        counts |= {"cancelled": n_cancelled, "total": counts["total"] + n_cancelled}
        status = "cancelled"
    return {
        "id": batch_id,
        "object": "vector_store.files_batch",
        "created_at": created_at,
        "vector_store_id": store_id,
        "status": status,
        "file_counts": counts,
    }


def _counts(files: Sequence[Attached]) -> dict[str, int]:
    states = ("in_progress", "completed", "failed")
    counts = {state: sum(file.status == state for file in files) for state in states}
    return {**counts, "cancelled": 0, "total": len(files)}
