"""Names of models, embeddings, health."""

import base64
from typing import Any

import httpx
import numpy as np
import pytest

from rag.app import create_app
from rag.settings import Settings
from tests.rag.calling import QUESTION, assert_openai_error, client_of


@pytest.mark.parametrize("name", ["gpt-3.5-turbo", "gpt-4o-mini"])
async def test_foreign_names_mean_quarry_unless_switched_off(engine: Any, library: Any, name: str) -> None:
    for aliases, status in ((True, 200), (False, 404)):
        app = create_app(Settings(gpt_aliases=aliases), engine=engine, library=library)
        async with client_of(app) as client:
            response = await client.post("/v1/chat/completions", json={**QUESTION, "model": name})
        assert response.status_code == status


@pytest.mark.parametrize("given", ["carry over", ["carry over"], ["carry over", "", "vacation"]])
@pytest.mark.parametrize("model", ["word-bag", "text-embedding-3-small"])
async def test_embeddings_keep_order_in_both_encodings(
    client: httpx.AsyncClient, engine: Any, given: Any, model: str
) -> None:
    texts = [given] if isinstance(given, str) else given
    expected = engine.embedder.embed(texts, kind="document")
    floats = (await client.post("/v1/embeddings", json={"model": model, "input": given})).json()
    assert np.array([item["embedding"] for item in floats["data"]], np.float32).tolist() == expected.tolist()
    assert [item["index"] for item in floats["data"]] == list(range(len(texts)))
    body = {"model": model, "input": given, "encoding_format": "base64"}
    packed = (await client.post("/v1/embeddings", json=body)).json()
    for item, vector in zip(packed["data"], expected, strict=True):
        assert np.frombuffer(base64.b64decode(item["embedding"]), "<f4").tolist() == vector.tolist()
    assert packed["usage"]["prompt_tokens"] == sum(engine.embedder.count_tokens(text) for text in texts)


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        pytest.param(
            {"input": [1, 2]}, "token_ids_not_supported", "check_embedding_ctx_length=False", id="ids"
        ),
        pytest.param({"input": [[1], [2]]}, "token_ids_not_supported", "check_embedding", id="lists of ids"),
        pytest.param({"input": []}, "invalid_request", "0 items", id="nothing"),
        pytest.param({"input": ["x"] * 1001}, "invalid_request", "1001 items", id="too many"),
        pytest.param({"input": "word " * 100}, "context_length_exceeded", "at most 62", id="too long"),
        pytest.param({"dimensions": 8}, "unsupported_parameter", "cut to 8", id="other dimensions"),
        pytest.param({"encoding_format": "int8"}, "invalid_request", "encoding_format", id="other encoding"),
    ],
)
async def test_wrong_embedding_request_says_why(
    client: httpx.AsyncClient, change: dict[str, Any], code: str, words: str
) -> None:
    body = {"model": "word-bag", "input": "x", **change}
    assert words in assert_openai_error(await client.post("/v1/embeddings", json=body), 400, code)


async def test_embedding_of_unknown_model_is_404(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/embeddings", json={"model": "quarry", "input": "x"})
    assert "word-bag" in assert_openai_error(response, 404, "model_not_found")


async def test_health_ready_and_balance(client: httpx.AsyncClient, library: Any) -> None:
    assert (await client.get("/health")).json() == {"status": "ok"}
    assert (await client.get("/ready")).json()["chat_model"] == "parrot"
    library.indexes_ready = False
    assert_openai_error(await client.get("/ready"), 503, "not_ready")
    assert "hard_limit_usd" in (await client.get("/dashboard/billing/subscription")).json()
    assert "total_usage" in (await client.get("/dashboard/billing/usage?start_date=1")).json()
