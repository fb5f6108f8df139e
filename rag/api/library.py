"""The library as the command line sees it: status, search, and a pass over the documents folder."""

import dataclasses
import json
import queue
import threading
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from engine.errors import EngineError
from ingest.errors import IngestError
from rag.models import ALL, resolve_chat, slug
from rag.ports import Library
from rag.service import service_of

router = APIRouter()


class SearchRequest(BaseModel):
    """What to look for; `model` names the collections, as in a chat request."""

    query: str = Field(min_length=1, max_length=10_000)
    limit: int = Field(6, ge=1, le=100)
    model: str = Field("quarry", max_length=200)


@router.get("/library")
def status(request: Request) -> dict[str, Any]:
    """Describe models, collections, and documents that could not be read."""
    service = service_of(request)
    engine, library = service.parts.engine, service.library
    documents = library.documents()
    return {
        "models": {
            "chat": {"name": engine.chat.name} if engine.chat else None,
            "embedding": {"name": engine.embedder.name} if engine.embedder else None,
        },
        "collections": [
            {**dataclasses.asdict(collection), "model": f"{ALL}-{slug(collection.name)}"}
            for collection in library.collections()
        ],
        "failures": [
            {"path": document.path, "reason": document.reason}
            for document in documents
            if document.state != "indexed"
        ],
    }


@router.post("/library/search")
def search(request: Request, body: SearchRequest) -> dict[str, Any]:
    """Give the best passages, best first."""
    service = service_of(request)
    target = resolve_chat(
        body.model,
        engine=service.parts.engine,
        library=service.library,
        aliases=service.settings.gpt_aliases,
    )
    passages = service.parts.retriever.search(body.query, collections=target.collections, limit=body.limit)
    return {"results": [dataclasses.asdict(passage) for passage in passages]}


@router.post("/library/reconcile")
def reconcile(request: Request) -> StreamingResponse:
    """Run one pass over the documents folder; stream progress, then the report, as JSON lines."""
    return StreamingResponse(_pass(service_of(request).library), media_type="application/x-ndjson")


@router.post("/library/compact")
def compact(request: Request) -> dict[str, bool]:
    """Rewrite record and indexes, so that nothing deleted is left on the disk."""
    service_of(request).library.compact()
    return {"compacted": True}


def _pass(library: Library) -> Iterator[str]:
    events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            report = library.reconcile(
                on_progress=lambda progress: events.put({"progress": dataclasses.asdict(progress)})
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
