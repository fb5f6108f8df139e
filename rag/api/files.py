"""/v1/files: uploads, managed with OpenAI's own package."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from starlette.responses import FileResponse, Response

from rag import wire
from rag.api.paging import Paging, page_of
from rag.auth import caller_of
from rag.errors import NotFound, UnsupportedParameter
from rag.service import service_of
from rag.stores import StoredFile, Stores, no_file

router = APIRouter()
_PURPOSES = ("assistants", "user_data")


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
    refuse(expires_after=expires_after)
    keep = partial(
        stores_of(request).upload,
        file.filename or "",
        file.file,
        purpose=purpose,
        now=wire.now(),
        owner=caller_of(request).tenant,
    )
    return _file(await to_thread.run_sync(keep))


@router.get("/files")
def list_files(
    request: Request, paging: Annotated[Paging, Query()], purpose: str | None = None
) -> dict[str, Any]:
    """List uploads."""
    seen = seen_files(request)
    files = [f for f in stores_of(request).files() if purpose in (None, f.purpose) and seen(f)]
    return page_of([_file(file) for file in files], paging)


@router.get("/files/{file_id}")
def retrieve_file(file_id: str, request: Request) -> dict[str, Any]:
    """Describe a file."""
    return _file(file_for(request, file_id))


@router.get("/files/{file_id}/content")
def file_content(file_id: str, request: Request) -> Response:
    """Give a file's bytes, never as something that a browser would run."""
    file = file_for(request, file_id)
    if not file.path.is_file():
        raise NotFound(f"the bytes of {file_id!r} are gone", param="file_id")
    return FileResponse(file.path, media_type="application/octet-stream", filename=file.filename)


@router.delete("/files/{file_id}")
def delete_file(file_id: str, request: Request) -> dict[str, Any]:
    """Delete an upload, from all stores too."""
    caller, file = caller_of(request), file_for(request, file_id)
    if file.owner != caller.tenant:
        caller.require_all("deleting a file that another key uploaded")
    stores_of(request).delete_file(file_id)
    return {"id": file_id, "object": "file", "deleted": True}


def stores_of(request: Request) -> Stores:
    return service_of(request).stores


def file_for(request: Request, file_id: str) -> StoredFile:
    """Find a file that the caller may see. Raises: NotFound."""
    file = stores_of(request).file(file_id)
    if not seen_files(request)(file):
        raise no_file(file_id)
    return file


def seen_files(request: Request) -> Callable[[StoredFile], bool]:
    """Tell what a caller sees: its own uploads, and what lies in its collections."""
    caller, stores = caller_of(request), stores_of(request)
    if caller.collections is None:
        return lambda _: True
    there = {a.file_id for s in stores.stores() if caller.sees(s.folder) for a in stores.attached(s.id)}
    return lambda file: file.id in there or (bool(file.owner) and file.owner == caller.tenant)


def refuse(**given: object) -> None:
    for name, value in given.items():
        if value:
            raise UnsupportedParameter(f"{name} is not supported here", param=name)


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
