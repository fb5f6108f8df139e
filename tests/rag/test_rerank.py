"""/v1/rerank, and what a reranker does for a search."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from engine.convert import convert
from engine.engine import Engine
from rag.app import create_app
from rag.language import terms
from rag.retriever import Retriever
from rag.settings import Settings

TINY = Path(__file__).parents[1] / "data" / "tiny"
DOCUMENTS = [
    "Trains are booked in second class.",
    "Vacation days carry over.",
    "Salaries arrive on the 25th.",
]


class WordReranker:
    """Scores a passage by the share of the question's words in it; of equal ones the longer is better."""

    name = "word-share"
    max_tokens = 512

    def __init__(self) -> None:
        self.asked: list[str] = []

    def rerank(self, query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        self.asked.append(query)
        asked = set(terms(query))
        shares = [len(asked & set(terms(text))) / len(asked) + len(text) / 1e6 for text in passages]
        return np.array(shares, np.float32)


@pytest.fixture
async def client(engine: Any, library: Any) -> AsyncIterator[httpx.AsyncClient]:
    engine.reranker = WordReranker()
    transport = httpx.ASGITransport(create_app(Settings(), engine=engine, library=library))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
        yield client


@pytest.mark.parametrize("model", ["word-share", "rerank-v3.5", "jina-reranker-v2-base-multilingual"])
async def test_documents_are_ordered(client: httpx.AsyncClient, model: str) -> None:
    body = {"model": model, "query": "Which vacation days carry over?", "documents": DOCUMENTS}
    answer = (await client.post("/v1/rerank", json=body)).json()
    results = answer["results"]
    assert results[0]["index"] == 1
    scores = [result["relevance_score"] for result in results]
    assert scores == sorted(scores, reverse=True)
    assert "document" not in results[0]
    assert answer["model"] == model


async def test_best_documents_come_with_their_text(client: httpx.AsyncClient) -> None:
    documents = [{"text": text, "id": number} for number, text in enumerate(DOCUMENTS * 20)]
    body = {"model": "word-share", "query": "When do salaries arrive?", "documents": documents}
    answer = await client.post("/v1/rerank", json={**body, "top_n": 2, "return_documents": True})
    results = answer.json()["results"]
    assert [result["document"] for result in results] == [{"text": DOCUMENTS[2]}] * 2


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        pytest.param({"model": "nothing"}, 404, "model_not_found", id="model"),
        pytest.param({"documents": []}, 400, "invalid_request", id="no documents"),
        pytest.param({"documents": ["x"] * 1001}, 400, "invalid_request", id="too many"),
        pytest.param({"documents": ["x", " "]}, 400, "invalid_request", id="empty one"),
        pytest.param({"query": ""}, 400, "invalid_request", id="no query"),
        pytest.param({"top_n": 0}, 400, "invalid_request", id="none wanted"),
        pytest.param({"rank_fields": ["title"]}, 400, "unsupported_parameter", id="fields"),
    ],
)
async def test_wrong_request_says_why(
    client: httpx.AsyncClient, change: dict[str, Any], status: int, code: str
) -> None:
    body = {"model": "word-share", "query": "q", "documents": ["d"], **change}
    response = await client.post("/v1/rerank", json=body)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


async def test_without_a_reranker_it_is_said(engine: Any, library: Any) -> None:
    transport = httpx.ASGITransport(create_app(Settings(), engine=engine, library=library))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
        body = {"model": "rerank", "query": "q", "documents": ["d"]}
        response = await client.post("/v1/rerank", json=body)
    assert response.status_code == 503
    assert "QUARRY_RERANK_MODEL" in response.json()["error"]["message"]


async def test_search_follows_the_reranker(client: httpx.AsyncClient, library: Any, engine: Any) -> None:
    library.put("a.txt", "To bake a plum cake, plum cake, plum cake.")
    library.put(
        "b.txt",
        "A plum cake, which some bake for 45 minutes at 180 degrees, takes its time in our oven.",
    )
    body = {"query": "How long does the plum cake bake?", "limit": 2, "model": "quarry-default"}
    results = (await client.post("/v1/library/search", json=body)).json()["results"]
    assert [result["path"] for result in results] == ["b.txt", "a.txt"]
    assert engine.reranker.asked == [body["query"]]
    assert results[0]["score"] > results[1]["score"]


def test_a_search_is_ranked_by_a_model_of_the_engine(
    library: Any, starter_embedding_gguf: Path, tmp_path: Path
) -> None:
    convert(TINY / "bert-rank", tmp_path / "rank.gguf")  # random weights: any order but the search's own
    engine = Engine.open(
        chat_model=None,
        embedding_model=starter_embedding_gguf,
        rerank_model=tmp_path / "rank.gguf",
        threads=1,
        check_models=False,
    )
    try:
        for i, what in enumerate(("plum cake", "plum cake with cream", "a cake of plums", "plum plum cake")):
            library.put(f"{i}.txt", f"Bake the {what} in the oven for {40 + i} minutes.")
        retriever = Retriever(
            embedder=None, library=library, reranker=engine.reranker, limit=2, rerank_candidates=3
        )
        found = retriever.search("How long is the plum cake in the oven?")
        assert len(found) == 2
        assert engine.reranker is not None
        scores = engine.reranker.rerank(
            "How long is the plum cake in the oven?", [passage.text for passage in found]
        )
        np.testing.assert_allclose([passage.score for passage in found], scores, atol=1e-6)
        assert sorted(scores, reverse=True) == scores.tolist()
        # A question that leaves no room for a passage keeps the order of the search.
        assert retriever.search("plum cake oven " * 60)
    finally:
        engine.close()
