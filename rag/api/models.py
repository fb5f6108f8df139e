"""GET /v1/models."""

from functools import partial
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request

from rag.auth import Caller, caller_of
from rag.errors import ApiError
from rag.models import Target, resolve_embedding, targets
from rag.service import Service, service_of

router = APIRouter()


@router.get("/models")
async def list_models(request: Request) -> dict[str, Any]:
    """List the names that can be asked for."""
    service = service_of(request)
    known = await to_thread.run_sync(
        partial(targets, service.parts.engine, service.library, seen=caller_of(request).collections)
    )
    return {"object": "list", "data": [_describe(target.name, target, service) for target in known]}


@router.get("/models/{name:path}")
async def retrieve_model(name: str, request: Request) -> dict[str, Any]:
    """Describe one model; an alias answers under the name that was asked for. Raises: UnknownModel."""
    service = service_of(request)
    return _describe(name, await to_thread.run_sync(_resolve, name, service, caller_of(request)), service)


def _resolve(name: str, service: Service, caller: Caller) -> Target:
    try:
        return resolve_embedding(name, engine=service.parts.engine)
    except ApiError:
        return service.target(name, caller)


def _describe(name: str, target: Target, service: Service) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": service.started,
        "owned_by": "quarry",
        "kind": target.kind,
        **_limits(target, service),
        "collections": sorted(target.collections) if target.collections is not None else None,
    }


def _limits(target: Target, service: Service) -> dict[str, Any]:
    """Say how much the model reads, under the name that other servers use."""
    engine = service.parts.engine
    if target.kind == "embedding":
        return {"max_model_len": engine.embedder.max_tokens} if engine.embedder else {}
    return {"max_model_len": engine.chat.context_length} if engine.chat else {}
