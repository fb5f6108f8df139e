"""Models of the settings that run elsewhere."""

from typing import TYPE_CHECKING

import structlog

from engine.remote import MixedEngine, RemoteChat, RemoteEmbedder, RemoteReranker, find_context
from engine.upstream import Address, Upstream

if TYPE_CHECKING:
    from pydantic import SecretStr

    from engine.engine import Engine
    from rag.settings import Settings

log = structlog.get_logger("quarry.upstreams")
_RERANKER_TOKENS = 512


def with_upstreams(local: "Engine", settings: "Settings") -> "Engine | MixedEngine":
    """Put the models that run elsewhere in their places; `local` itself where none does.

    Raises: UpstreamFailed, where the embedding model does not answer: without it nothing can be read.
    """
    upstreams: list[Upstream] = []

    def upstream(url: str, model: str | None, key: "SecretStr | None") -> Upstream:
        secret = key.get_secret_value() if key else None
        upstreams.append(Upstream(Address(url, model or "", secret)))
        log.info("model runs elsewhere", model=model, url=upstreams[-1].url)
        return upstreams[-1]

    chat, embedder, reranker = None, None, None
    try:
        if settings.chat_url:
            at = upstream(settings.chat_url, settings.chat_model, settings.chat_key)
            chat = RemoteChat(at, context_length=find_context(at) or settings.chat_context)
        if settings.embedding_url:
            embedder = RemoteEmbedder(
                upstream(settings.embedding_url, settings.embedding_model, settings.embedding_key),
                max_tokens=settings.embedding_tokens,
                document_prefix=settings.embedding_document_prefix or "",
                query_prefix=settings.embedding_query_prefix or "",
            )
        if settings.rerank_url:
            reranker = RemoteReranker(
                upstream(settings.rerank_url, settings.rerank_model, settings.rerank_key),
                max_tokens=_RERANKER_TOKENS,
            )
    except BaseException:
        for opened in upstreams:
            opened.close()
        raise
    if not upstreams:
        return local
    return MixedEngine(local, chat=chat, embedder=embedder, reranker=reranker, upstreams=upstreams)
