"""The library as the command line sees it: status, search, and a pass over the documents folder."""

import dataclasses
import json
import queue
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, Field
from starlette.background import BackgroundTask

from engine.errors import EngineError
from ingest.errors import IngestError
from ingest.reconciler import collection_of
from ingest.values import DocumentInfo
from rag import wire
from rag.api.documents import models_of, progress_of
from rag.auth import caller_of
from rag.errors import InvalidRequest
from rag.models import ALL, slug
from rag.ports import Engine, Library
from rag.query import read_conversation, search_query
from rag.retriever import Side
from rag.service import service_of

router = APIRouter()


class SearchRequest(BaseModel):
    """What to look for; `model` names the collections, as in a chat request.

    history: what was asked before, oldest first; a follow-up is searched for what it means. side: one of the
    two searches alone, to compare.
    """

    query: wire.String = Field(min_length=1, max_length=10_000)
    history: list[str] = Field([], max_length=100)
    side: Side = "both"
    limit: int = Field(6, ge=1, le=100)
    model: wire.String = Field("quarry", max_length=200)


class RetryRequest(BaseModel):
    """Which file to read again; all that failed where there is none."""

    path: wire.String | None = Field(None, max_length=4096)


@router.get("/library")
def status(request: Request) -> dict[str, Any]:
    """Describe models, collections, and documents that could not be read."""
    service, caller = service_of(request), caller_of(request)
    engine, library = service.parts.engine, service.library
    documents = [document for document in library.documents() if caller.sees(document.collection)]
    now = library.status()
    return {
        "models": models_of(engine),
        "collections": [
            {**dataclasses.asdict(collection), "model": f"{ALL}-{slug(collection.name)}"}
            for collection in library.collections()
            if caller.sees(collection.name)
        ],
        "failures": [
            {"path": document.path, "reason": document.reason}
            for document in documents
            if document.state != "indexed"
        ],
        "documents": [_facts(document) for document in documents],
        "progress": progress_of(now.progress) if now.progress and caller.collections is None else None,
        "n_waiting": sum(caller.sees(collection_of(file.path)) for file in library.pending()),
        "protections": now.protections,
        "ocr": now.ocr,
        "old_files": now.old_files,
        "indexes": {
            "ready": now.indexes_ready,
            "error": now.index_error,
            "n_rebuilds": now.n_index_rebuilds,
            "embedder_changed": now.embedder_changed,
        },
        "cache": _cache(engine) if engine.chat and caller.collections is None else None,
    }


def _cache(engine: Engine) -> dict[str, int]:
    now = engine.status().scheduler
    return {
        "n_blocks": now.n_blocks,
        "n_used_blocks": now.n_blocks - now.n_free_blocks,
        "n_kept_blocks": now.n_kept_blocks,
        "n_prompt_tokens": now.n_prompt_tokens,
        "n_reused_tokens": now.n_reused_tokens,
    }


def _facts(document: DocumentInfo) -> dict[str, Any]:
    return {
        "path": document.path,
        "state": document.state,
        "version": document.version,
        "n_chunks": document.n_chunks,
        "n_tokens": document.n_tokens,
        "seconds": document.seconds,
        "indexed_at": document.indexed_at,
        "reason": document.reason,
    }


@router.post("/library/search")
def search(request: Request, body: SearchRequest) -> dict[str, Any]:
    """Give the best passages, best first."""
    service = service_of(request)
    target = service.target(body.model, caller_of(request))
    turns = [{"role": "user", "content": text} for text in (*body.history, body.query)]
    query = search_query(read_conversation(turns))
    passages = service.parts.retriever.search(
        query, collections=target.collections, limit=body.limit, side=body.side
    )
    return {"results": [dataclasses.asdict(passage) for passage in passages]}


@router.post("/library/reconcile")
def reconcile(request: Request) -> StreamingResponse:
    """Run one pass over the documents folder; stream progress, then the report, as JSON lines."""
    caller_of(request).require_all("a pass over the documents")
    return StreamingResponse(_pass(service_of(request).library), media_type="application/x-ndjson")


@router.post("/library/compact")
def compact(request: Request) -> dict[str, bool]:
    """Rewrite record and indexes, so that nothing deleted is left on the disk."""
    caller_of(request).require_all("compaction")
    service = service_of(request)
    service.library.compact()
    service.parts.engine.forget_prefixes()  # prompts hold passages of what was deleted
    return {"compacted": True}


@router.get("/library/document")
def document(request: Request, path: Annotated[str, Query(max_length=4096)]) -> dict[str, Any]:
    """Give a document with its passages, as they are stored."""
    library = service_of(request).library
    for found in library.documents():
        if found.path == path and caller_of(request).sees(found.collection):
            chunks = [dataclasses.asdict(chunk) for chunk in library.document_chunks(path)]
            return {"document": dataclasses.asdict(found), "chunks": chunks}
    raise InvalidRequest(f"there is no document {path}; quarry status names what there is", param="path")


@router.post("/library/retry")
def retry(request: Request, body: RetryRequest) -> dict[str, Any]:
    """Let the next pass read again what could not be read."""
    caller_of(request).require_all("retrying")
    return {"paths": service_of(request).library.retry(body.path)}


@router.post("/library/verify")
def verify(request: Request) -> dict[str, Any]:
    """Check the record and the indexes."""
    caller_of(request).require_all("the check of the indexes")
    return {"faults": service_of(request).library.verify()}


@router.post("/library/reindex")
def reindex(request: Request) -> dict[str, bool]:
    """Build the indexes anew from the record."""
    caller_of(request).require_all("building the indexes anew")
    service_of(request).library.reindex()
    return {"reindexed": True}


@router.get("/library/backup")
def backup(request: Request) -> FileResponse:
    """Send the record as it is at one moment. Never to a path of the request's choice."""
    caller_of(request).require_all("a backup")
    library, data_dir = service_of(request).library, service_of(request).settings.data_dir
    folder = tempfile.mkdtemp(prefix="backup-", dir=data_dir)
    try:
        out = Path(folder) / "quarry.backup"
        library.backup(out)
    except BaseException:
        shutil.rmtree(folder)
        raise
    cleaning = BackgroundTask(shutil.rmtree, folder)
    return FileResponse(out, media_type="application/vnd.sqlite3", filename=out.name, background=cleaning)


def _pass(library: Library) -> Iterator[str]:
    events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            report = library.reconcile(
                on_progress=lambda progress: events.put({"progress": progress_of(progress)})
            )
            events.put({"report": dataclasses.asdict(report)})
        except (IngestError, EngineError) as error:
            events.put({"error": {"message": str(error)}})
        finally:
            events.put(None)

    # A pass that a client started goes on when the client leaves: half of one helps nobody.
    threading.Thread(target=run, name="reconcile-request").start()
    while (event := events.get()) is not None:
        yield json.dumps(event, ensure_ascii=False) + "\n"
