"""Liveness, readiness, and the balance that some clients ask for."""

from typing import Any

from fastapi import APIRouter, Request

from rag.service import service_of

router = APIRouter()


@router.get("/health")
async def health() -> dict[str, str]:
    """Say that the process runs. Open to all."""
    return {"status": "ok"}


@router.get("/ready")
async def ready(request: Request) -> dict[str, Any]:
    """Say which models answer; a service that is asked has its engine and its library open."""
    engine = service_of(request).parts.engine
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
