"""GET /v1/models."""

from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request

from rag.errors import ApiError
from rag.models import Target, resolve_chat, resolve_embedding, targets
from rag.service import Service, service_of

router = APIRouter()


@router.get("/models")
async def list_models(request: Request) -> dict[str, Any]:
    """List the names that can be asked for."""
    service = service_of(request)
    known = await to_thread.run_sync(targets, service.parts.engine, service.library)
    return {"object": "list", "data": [_describe(target.name, target, service) for target in known]}


@router.get("/models/{name:path}")
async def retrieve_model(name: str, request: Request) -> dict[str, Any]:
    """Describe one model; an alias answers under the name that was asked for. Raises: UnknownModel."""
    service = service_of(request)
    return _describe(name, await to_thread.run_sync(_resolve, name, service), service)


def _resolve(name: str, service: Service) -> Target:
    try:
        return resolve_embedding(name, engine=service.parts.engine)
    except ApiError:
        return resolve_chat(
            name,
            engine=service.parts.engine,
            library=service.library,
            aliases=service.settings.gpt_aliases,
        )


def _describe(name: str, target: Target, service: Service) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": service.started,
        "owned_by": "quarry",
        "kind": target.kind,
        "collections": sorted(target.collections) if target.collections is not None else None,
    }
