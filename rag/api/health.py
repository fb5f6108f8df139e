"""Liveness, readiness, and the balance that some clients ask for."""

from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request

from rag.errors import NotReady
from rag.service import service_of

router = APIRouter()


@router.get("/health")
async def health() -> dict[str, str]:
    """Say that the process runs. Open to all."""
    return {"status": "ok"}


@router.get("/ready")
async def ready(request: Request) -> dict[str, Any]:
    """Say which models answer. Raises: NotReady, while the search indexes are not open."""
    service = service_of(request)
    status = await to_thread.run_sync(service.library.status)
    if not status.indexes_ready:
        reason = status.index_error or "they are being opened"
        raise NotReady(f"the search indexes are not ready: {reason}", headers={"Retry-After": "2"})
    engine = service.parts.engine
    return {
        "status": "ready",
        "chat_model": engine.chat.name if engine.chat else None,
        "embedding_model": engine.embedder.name if engine.embedder else None,
    }


@router.get("/dashboard/billing/subscription")
async def subscription() -> dict[str, Any]:
    """Answer the balance query of ChatGPT-Next-Web: nothing is metered here."""
    return {"object": "billing_subscription", "hard_limit_usd": 0}


@router.get("/dashboard/billing/usage")
async def billing_usage() -> dict[str, Any]:
    """Answer the balance query of ChatGPT-Next-Web: nothing is metered here."""
    return {"object": "list", "total_usage": 0}
