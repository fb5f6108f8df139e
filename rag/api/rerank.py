"""POST /v1/rerank, as Jina and Cohere have it."""

import uuid
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

from rag import wire
from rag.errors import InvalidRequest, NotReady, UnknownModel
from rag.service import service_of, unless_gone

router = APIRouter()
_MOST_DOCUMENTS = 1000
# A client that leaves is noticed between batches.
_BATCH = 16
# What clients with fixed names send.
_ALIASES = ("rerank", "jina-reranker", "quarry")


class RankedDocument(BaseModel):
    """A document in the form that has fields: its text is ranked."""

    model_config = ConfigDict(extra="allow", frozen=True)

    text: wire.String


class RerankRequest(BaseModel):
    """POST /v1/rerank."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    model: wire.String = Field(min_length=1, max_length=512)
    query: wire.String = Field(min_length=1, max_length=100_000)
    documents: Annotated[list[wire.String | RankedDocument], Field(min_length=1, max_length=_MOST_DOCUMENTS)]
    top_n: StrictInt | None = Field(None, ge=1)
    return_documents: StrictBool | None = None


@router.post("/rerank")
async def rerank(body: RerankRequest, request: Request) -> dict[str, Any]:
    """Order documents by how well they answer the query, best first; scores are from 0 to 1."""
    wire.refuse_fields(body, {"rank_fields": (None, ["text"]), "max_chunks_per_doc": (None,)})
    service = service_of(request)
    reranker = service.parts.engine.reranker
    if reranker is None:
        raise NotReady("no reranking model is configured: set QUARRY_RERANK_MODEL")
    if body.model != reranker.name and not body.model.startswith(_ALIASES):
        raise UnknownModel(
            f"model {body.model[:100]!r} does not exist here; there is: {reranker.name}", param="model"
        )
    if any(not _text(document).strip() for document in body.documents):
        raise InvalidRequest("documents: an empty one cannot be ranked", param="documents")

    async def score() -> list[float]:
        scores: list[float] = []
        for start in range(0, len(body.documents), _BATCH):
            texts = [_text(document) for document in body.documents[start : start + _BATCH]]
            found = await to_thread.run_sync(
                reranker.rerank, body.query, texts, limiter=service.embedding_threads
            )
            scores += [float(value) for value in found]
        return scores

    scores = await unless_gone(request, score())
    ranked = sorted(enumerate(scores), key=lambda item: -item[1])[: body.top_n]
    results: list[dict[str, Any]] = []
    for index, value in ranked:
        result: dict[str, Any] = {"index": index, "relevance_score": value}
        if body.return_documents:
            result["document"] = {"text": _text(body.documents[index])}
        results.append(result)
    return {"id": f"rerank-{uuid.uuid4().hex}", "model": body.model, "results": results}


def _text(document: str | RankedDocument) -> str:
    return document if isinstance(document, str) else document.text
