"""POST /v1/embeddings."""

import base64
import re
from functools import partial
from typing import Any

import numpy as np
from anyio import to_thread
from fastapi import APIRouter, Request
from numpy.typing import NDArray

from rag.errors import InvalidRequest, UnsupportedParameter
from rag.models import resolve_embedding
from rag.ports import Embedder
from rag.service import Service, service_of, unless_gone
from rag.token_ids import find_table
from rag.wire import EmbeddingRequest

router = APIRouter()
_MOST_INPUTS = 1000
# A client that leaves is noticed between batches.
_BATCH = 32
_SPECIAL_TOKENS = 2
# Trained so that the beginning of a vector is one, too (Matryoshka), as their model cards say.
_MATRYOSHKA = re.compile(
    r"qwen3-embedding|nomic-embed-text-v(?:1\.5|2)|embeddinggemma|mxbai-embed-large"
    r"|jina-embeddings-v[34]|arctic-embed-[ml].*v2|stella|text-embedding-3"
)


@router.post("/embeddings")
async def create_embeddings(body: EmbeddingRequest, request: Request) -> dict[str, Any]:
    """Embed texts, in order."""
    service = service_of(request)
    resolve_embedding(body.model, engine=service.parts.engine)
    embedder = service.parts.engine.embedder
    assert embedder is not None  # noqa: S101 (resolve_embedding found it)
    n_dimensions = _dimensions(body, embedder)
    texts = await to_thread.run_sync(_texts, body, service)
    counts, vectors = await unless_gone(request, _embed(texts, embedder, service))
    if n_dimensions < embedder.dimension:
        vectors = [shorten(vector, n_dimensions) for vector in vectors]
    encode = _base64 if body.encoding_format == "base64" else _floats
    return {
        "object": "list",
        "model": body.model,
        "data": [
            {"object": "embedding", "index": index, "embedding": encode(vector)}
            for index, vector in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": sum(counts), "total_tokens": sum(counts)},
    }


def shorten(vector: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    """Keep the first `n` numbers of a vector, at length one again."""
    kept = vector[:n]
    return np.asarray(kept / max(float(np.linalg.norm(kept)), 1e-12), np.float32)


def _dimensions(body: EmbeddingRequest, embedder: Embedder) -> int:
    wanted = body.dimensions or embedder.dimension
    if wanted == embedder.dimension:
        return wanted
    if not _MATRYOSHKA.search(embedder.name):
        raise UnsupportedParameter(
            f"dimensions: {embedder.name} gives {embedder.dimension} and is not made to be cut to {wanted}",
            param="dimensions",
        )
    if wanted > embedder.dimension:
        raise InvalidRequest(
            f"dimensions: {embedder.name} gives at most {embedder.dimension}, not {wanted}",
            param="dimensions",
        )
    return wanted


def _texts(body: EmbeddingRequest, service: Service) -> list[str]:
    given = body.input
    items: list[str | list[int]]
    if isinstance(given, str):
        items = [given]
    elif given and isinstance(given[0], int):
        items = [[token for token in given if isinstance(token, int)]]
    else:
        items = [item for item in given if not isinstance(item, int)]
    if not 1 <= len(items) <= _MOST_INPUTS:
        raise InvalidRequest(f"input has {len(items)} items; 1 to {_MOST_INPUTS} are allowed", param="input")
    if all(isinstance(item, str) for item in items):
        return [item for item in items if isinstance(item, str)]
    table = find_table(service.settings.models_dir)
    if table is None:
        raise InvalidRequest(
            "input holds token ids of another model's vocabulary; send texts instead. "
            "In LangChain: OpenAIEmbeddings(..., check_embedding_ctx_length=False)",
            code="token_ids_not_supported",
            param="input",
        )
    return [item if isinstance(item, str) else table.decode(item) for item in items]


async def _embed(
    texts: list[str], embedder: Embedder, service: Service
) -> tuple[list[int], list[NDArray[np.float32]]]:
    counts = await to_thread.run_sync(_count, texts, embedder, limiter=service.embedding_threads)
    vectors: list[NDArray[np.float32]] = []
    for start in range(0, len(texts), _BATCH):
        embed = partial(embedder.embed, texts[start : start + _BATCH], kind="document")
        vectors.extend(await to_thread.run_sync(embed, limiter=service.embedding_threads))
    return counts, vectors


def _count(texts: list[str], embedder: Embedder) -> list[int]:
    counts = [embedder.count_tokens(text) for text in texts]
    limit = embedder.max_tokens - _SPECIAL_TOKENS
    for index, count in enumerate(counts):
        if count > limit:
            raise InvalidRequest(
                f"context_length_exceeded: input[{index}] has {count} tokens; {embedder.name} reads at most "
                f"{limit}",
                code="context_length_exceeded",
                param="input",
            )
    return counts


def _floats(vector: NDArray[np.float32]) -> list[float]:
    return [float(value) for value in vector]


def _base64(vector: NDArray[np.float32]) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
