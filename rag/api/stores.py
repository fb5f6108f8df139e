"""/v1/files and /v1/vector_stores: the documents, managed with OpenAI's own package."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from pydantic import BaseModel, Field
from starlette.responses import FileResponse, Response

from rag import wire
from rag.errors import InvalidRequest, NotFound, UnsupportedParameter
from rag.models import ALL, slug
from rag.service import service_of
from rag.stores import Attached, Store, StoredFile, Stores

router = APIRouter()
_PURPOSES = ("assistants", "user_data")
_MOST_IN_BATCH = 2000

Attributes = dict[str, wire.String | wire.Number | bool]


class Paging(BaseModel):
    """Which part of a list is wanted."""

    limit: int = Field(20, ge=1, le=10_000)
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None


class StoreRequest(BaseModel):
    """POST /v1/vector_stores."""

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


class BatchRequest(BaseModel):
    """POST /v1/vector_stores/{id}/file_batches."""

    file_ids: list[wire.String] | None = Field(None, max_length=_MOST_IN_BATCH)
    files: list[AttachRequest] | None = Field(None, max_length=_MOST_IN_BATCH)
    attributes: Attributes | None = Field(None, max_length=16)
    chunking_strategy: dict[str, Any] | None = None


class SearchRequest(BaseModel):
    """POST /v1/vector_stores/{id}/search."""

    query: wire.String | list[wire.String]
    max_num_results: int = Field(10, ge=1, le=50)
    filters: Any = None
    ranking_options: dict[str, Any] | None = None
    rewrite_query: bool = False


@router.post("/files")
async def upload(
    request: Request,
    file: Annotated[UploadFile, File()],
    purpose: Annotated[str, Form(max_length=40)],
    expires_after: Annotated[str | None, Form(alias="expires_after[anchor]")] = None,
) -> dict[str, Any]:
    """Keep a file."""
    if purpose not in _PURPOSES:
        raise UnsupportedParameter(
            f"purpose {purpose!r} is not supported: {' and '.join(_PURPOSES)} are", param="purpose"
        )
    _refuse(expires_after=expires_after)
    data = await file.read()
    keep = partial(_stores(request).upload, file.filename or "", data, purpose=purpose, now=wire.now())
    return _file(await to_thread.run_sync(keep))


@router.get("/files")
def list_files(
    request: Request, paging: Annotated[Paging, Query()], purpose: str | None = None
) -> dict[str, Any]:
    """List uploads."""
    files = [file for file in _stores(request).files() if purpose in (None, file.purpose)]
    return _page([_file(file) for file in files], paging)


@router.get("/files/{file_id}")
def retrieve_file(file_id: str, request: Request) -> dict[str, Any]:
    """Describe a file."""
    return _file(_stores(request).file(file_id))


@router.get("/files/{file_id}/content")
def file_content(file_id: str, request: Request) -> Response:
    """Give a file's bytes, never as something that a browser would run."""
    file = _stores(request).file(file_id)
    if not file.path.is_file():
        raise NotFound(f"the bytes of {file_id!r} are gone", param="file_id")
    return FileResponse(file.path, media_type="application/octet-stream", filename=file.filename)


@router.delete("/files/{file_id}")
def delete_file(file_id: str, request: Request) -> dict[str, Any]:
    """Delete an upload, from all stores too."""
    _stores(request).delete_file(file_id)
    return {"id": file_id, "object": "file", "deleted": True}


@router.post("/vector_stores")
def create_store(body: StoreRequest, request: Request) -> dict[str, Any]:
    """Make a collection."""
    _refuse(expires_after=body.expires_after)
    _check_chunking(body.chunking_strategy)
    stores = _stores(request)
    for file_id in body.file_ids or ():
        stores.file(file_id)
    store = stores.create_store(body.name or "", dict(body.metadata or {}), now=wire.now())
    for file_id in body.file_ids or ():
        stores.attach(store.id, file_id, {}, now=wire.now())
    return _store(store, stores)


@router.get("/vector_stores")
def list_stores(request: Request, paging: Annotated[Paging, Query()]) -> dict[str, Any]:
    """List collections."""
    stores = _stores(request)
    return _page([_store(store, stores) for store in stores.stores()], paging)


@router.get("/vector_stores/{store_id}")
def retrieve_store(store_id: str, request: Request) -> dict[str, Any]:
    """Describe a collection."""
    stores = _stores(request)
    return _store(stores.store(store_id), stores)


@router.post("/vector_stores/{store_id}")
def update_store(store_id: str, body: StoreRequest, request: Request) -> dict[str, Any]:
    """Rename a collection for clients, or change its metadata."""
    _refuse(expires_after=body.expires_after)
    stores = _stores(request)
    metadata = None if body.metadata is None else dict(body.metadata)
    return _store(stores.update_store(store_id, body.name, metadata), stores)


@router.delete("/vector_stores/{store_id}")
def delete_store(store_id: str, request: Request) -> dict[str, Any]:
    """Delete a collection whose documents were all uploaded."""
    _stores(request).delete_store(store_id)
    return {"id": store_id, "object": "vector_store.deleted", "deleted": True}


@router.post("/vector_stores/{store_id}/search")
def search(store_id: str, body: SearchRequest, request: Request) -> dict[str, Any]:
    """Give the best passages of a collection; the score is the cosine with the query."""
    _refuse(filters=body.filters, rewrite_query=body.rewrite_query)
    options = body.ranking_options or {}
    least = options.get("score_threshold", 0)
    if not isinstance(least, int | float):
        raise InvalidRequest("ranking_options.score_threshold must be a number", param="ranking_options")
    service, stores = service_of(request), _stores(request)
    store = stores.store(store_id)
    queries = [body.query] if isinstance(body.query, str) else body.query
    passages = service.parts.retriever.search(
        " ".join(queries), collections=frozenset({store.folder}), limit=body.max_num_results
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
    attributes = dict(body.attributes or {})
    return _attached(store_id, _stores(request).attach(store_id, body.file_id, attributes, now=wire.now()))


@router.get("/vector_stores/{store_id}/files")
def list_attached(
    store_id: str,
    request: Request,
    paging: Annotated[Paging, Query()],
    filter: str | None = None,  # noqa: A002
) -> dict[str, Any]:
    """List the files of a collection."""
    files = _stores(request).attached(store_id)
    return _page([_attached(store_id, f) for f in files if filter in (None, f.status)], paging)


@router.get("/vector_stores/{store_id}/files/{file_id}")
def retrieve_attached(store_id: str, file_id: str, request: Request) -> dict[str, Any]:
    """Tell how far a file is."""
    return _attached(store_id, _stores(request).attached_file(store_id, file_id))


@router.delete("/vector_stores/{store_id}/files/{file_id}")
def detach(store_id: str, file_id: str, request: Request) -> dict[str, Any]:
    """Take a file out of a collection."""
    _stores(request).detach(store_id, file_id)
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
    stores = _stores(request)
    return _batch(store_id, stores.create_batch(store_id, files, now=wire.now()), stores)


@router.get("/vector_stores/{store_id}/file_batches/{batch_id}")
def retrieve_batch(store_id: str, batch_id: str, request: Request) -> dict[str, Any]:
    """Tell how far a batch is."""
    return _batch(store_id, batch_id, _stores(request))


@router.get("/vector_stores/{store_id}/file_batches/{batch_id}/files")
def list_batch(
    store_id: str, batch_id: str, request: Request, paging: Annotated[Paging, Query()]
) -> dict[str, Any]:
    """List the files of a batch."""
    _, files = _stores(request).batch(store_id, batch_id)
    return _page([_attached(store_id, file) for file in files], paging)


def _stores(request: Request) -> Stores:
    return service_of(request).stores


def _refuse(**given: object) -> None:
    for name, value in given.items():
        if value:
            raise UnsupportedParameter(f"{name} is not supported here", param=name)


def _check_chunking(strategy: dict[str, Any] | None) -> None:
    if strategy is not None and strategy.get("type") != "auto":
        raise UnsupportedParameter(
            "chunking_strategy: only auto is supported, documents are cut at their headings and sentences",
            param="chunking_strategy",
        )


def _page(items: Sequence[dict[str, Any]], paging: Paging) -> dict[str, Any]:
    ordered = list(items) if paging.order == "asc" else list(reversed(items))
    if paging.after is not None:
        ids = [item["id"] for item in ordered]
        if paging.after not in ids:
            raise InvalidRequest(f"after: there is no {paging.after[:80]!r} in this list", param="after")
        ordered = ordered[ids.index(paging.after) + 1 :]
    page = ordered[: paging.limit]
    ends = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    return {"object": "list", "data": page, **ends, "has_more": len(ordered) > len(page)}


def _file(file: StoredFile) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.n_bytes,
        "created_at": file.created_at,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
    }


def _store(store: Store, stores: Stores) -> dict[str, Any]:
    files = stores.attached(store.id)
    counts = _counts(files)
    return {
        "id": store.id,
        "object": "vector_store",
        "created_at": store.created_at,
        "last_active_at": max((file.created_at for file in files), default=store.created_at),
        "name": store.name,
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
    counts = _counts(files)
    return {
        "id": batch_id,
        "object": "vector_store.files_batch",
        "created_at": created_at,
        "vector_store_id": store_id,
        "status": "in_progress" if counts["in_progress"] else "completed",
        "file_counts": counts,
    }


def _counts(files: Sequence[Attached]) -> dict[str, int]:
    states = ("in_progress", "completed", "failed")
    counts = {state: sum(file.status == state for file in files) for state in states}
    return {**counts, "cancelled": 0, "total": len(files)}
