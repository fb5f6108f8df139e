"""GET /metrics, for Prometheus."""

from anyio import to_thread
from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from rag.auth import caller_of
from rag.service import service_of

router = APIRouter()


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Write the numbers of this moment."""
    caller_of(request).require_all("/metrics")
    text = await to_thread.run_sync(service_of(request).metrics.text)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
