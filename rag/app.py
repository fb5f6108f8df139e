"""The service: OpenAI's wire over the engine and the library."""

from anyio import CapacityLimiter
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from engine.errors import EngineError
from ingest.errors import IngestError
from rag import wire
from rag.admission import Admission
from rag.api import (
    chat,
    completions,
    documents,
    embeddings,
    files,
    health,
    metrics_page,
    models,
    page,
    rerank,
    responses,
    stores,
)
from rag.api import library as library_routes
from rag.asking import Parts
from rag.boundary import Boundary, error_response
from rag.errors import ApiError, to_api_error
from rag.links import Links
from rag.metrics import Metrics
from rag.ports import Engine, Library
from rag.prompt_files import load_prompts
from rag.responses.store import ResponseStore
from rag.retriever import Retriever
from rag.service import Service, service_of
from rag.settings import Settings
from rag.shutdown import Shutdown
from rag.stores import Stores

# NextChat appends /v1/... to whatever address it is given, and its own server route is imitated by others.
PREFIXES = ("/v1", "/v1/v1", "/api/openai/v1", "/api/openai", "")
_EMBEDDING_THREADS = 4


def create_app(settings: Settings, *, engine: Engine, library: Library) -> FastAPI:
    """Build the service over an open engine and an open library; whoever opened them closes them."""
    app = FastAPI(
        title="Quarry",
        summary="Ask your documents, over OpenAI's API",
        # These pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    metrics = Metrics(engine, library)
    admission, embedding_admission = Admission(settings.queue_limit), Admission(settings.queue_limit)
    shutdown = Shutdown()
    retriever = Retriever(
        embedder=engine.embedder,
        library=library,
        reranker=engine.reranker,
        limit=settings.top_k,
        candidates=settings.candidates,
        rerank_candidates=settings.rerank_candidates,
    )
    app.state.settings = settings
    app.state.engine = engine
    app.state.library = library
    app.state.retriever = retriever
    app.state.service = Service(
        settings=settings,
        library=library,
        parts=Parts(
            engine,
            retriever,
            settings.context_tokens,
            settings.answer_tokens,
            prompts=load_prompts(settings.prompts_dir),
            answers=settings.answers,
        ),
        admission=admission,
        shutdown=shutdown,
        embedding_threads=CapacityLimiter(_EMBEDDING_THREADS),
        started=wire.now(),
        metrics=metrics,
        links=Links(settings.data_dir, days=settings.link_days),
        stores=Stores(data_dir=settings.data_dir, documents_dir=settings.documents_dir, library=library),
        responses=ResponseStore(),
    )
    for kind in (ApiError, HTTPException, RequestValidationError, EngineError, IngestError):
        app.add_exception_handler(kind, _answer_error)
    routes = APIRouter()
    for module in (
        chat,
        completions,
        embeddings,
        models,
        health,
        metrics_page,
        files,
        stores,
        responses,
        rerank,
    ):
        routes.include_router(module.router)
    for prefix in PREFIXES:
        app.include_router(routes, prefix=prefix, include_in_schema=prefix == "/v1")
    app.include_router(page.page_router())
    app.include_router(library_routes.router, prefix="/v1")
    app.include_router(documents.router, prefix="/v1")
    app.include_router(documents.linked)
    app.add_middleware(
        Boundary,
        settings=settings,
        metrics=metrics,
        admission=admission,
        embedding_admission=embedding_admission,
        shutdown=shutdown,
    )
    return app


async def _answer_error(request: Request, error: Exception) -> JSONResponse:
    service_of(request).metrics.failed(to_api_error(error).code)
    return error_response(error)
