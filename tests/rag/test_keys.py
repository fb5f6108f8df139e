"""Keys that see some collections only: what is not theirs is not there."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rag.app import create_app
from rag.auth import Caller, Gate
from rag.errors import SettingsError
from rag.settings import Settings, load_settings
from rag.stores import store_id

ALL, HR = {"Authorization": "Bearer boss"}, {"Authorization": "Bearer intern"}


@pytest.fixture
async def client(engine: Any, library: Any, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(
        api_keys="boss,intern,guest",
        key_collections={"intern": ("hr",), "guest": ()},
        data_dir=tmp_path / "data",
        documents_dir=tmp_path / "documents",
    )
    app = create_app(settings, engine=engine, library=library)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
        yield client


def ask(question: str, model: str = "quarry") -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": question}]}


async def answer(client: httpx.AsyncClient, question: str, headers: dict[str, str], **more: Any) -> str:
    response = await client.post("/v1/chat/completions", json=ask(question, **more), headers=headers)
    assert response.status_code == 200, response.text
    text: str = response.json()["choices"][0]["message"]["content"]
    return text


async def test_answers_come_from_the_collections_of_the_key(client: httpx.AsyncClient) -> None:
    vacation = "How many vacation days carry over?"
    assert "five vacation days" in await answer(client, vacation, ALL)
    assert "do not say" in await answer(client, vacation, HR)
    assert "Salaries arrive" in await answer(client, "When do salaries arrive?", HR)
    nobody = {"Authorization": "Bearer guest"}
    assert "no documents" in await answer(client, "When do salaries arrive?", nobody)


async def test_names_of_other_collections_are_not_told(client: httpx.AsyncClient) -> None:
    for_all = {m["id"] for m in (await client.get("/v1/models", headers=ALL)).json()["data"]}
    for_hr = {m["id"] for m in (await client.get("/v1/models", headers=HR)).json()["data"]}
    assert for_hr == {"quarry", "quarry-hr", "parrot", "word-bag"}
    assert for_hr < for_all
    (other,) = [name for name in for_all if name.startswith("quarry-") and name[7:] not in ("hr", "default")]
    response = await client.post("/v1/chat/completions", json=ask("?", other), headers=HR)
    assert response.status_code == 404
    assert other not in response.json()["error"]["message"].partition("there are")[2]
    stores = (await client.get("/v1/vector_stores", headers=HR)).json()["data"]
    assert [store["name"] for store in stores] == ["hr"]
    library = (await client.get("/v1/library", headers=HR)).json()
    assert [collection["name"] for collection in library["collections"]] == ["hr"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        pytest.param("GET", "/v1/vector_stores/{other}", None, id="store"),
        pytest.param("POST", "/v1/vector_stores/{other}", {"name": "x"}, id="rename"),
        pytest.param("POST", "/v1/vector_stores/{other}/search", {"query": "vacation"}, id="search"),
        pytest.param("GET", "/v1/vector_stores/{other}/files", None, id="files"),
        pytest.param("POST", "/v1/vector_stores/{other}/files", {"file_id": "f"}, id="attach"),
        pytest.param("GET", "/v1/vector_stores/{other}/files/f", None, id="file"),
        pytest.param("POST", "/v1/vector_stores/{other}/files/f", {"attributes": {}}, id="attributes"),
        pytest.param("GET", "/v1/vector_stores/{other}/files/f/content", None, id="content"),
        pytest.param("DELETE", "/v1/vector_stores/{other}/files/f", None, id="detach"),
        pytest.param("POST", "/v1/vector_stores/{other}/file_batches", {"file_ids": ["f"]}, id="batch"),
        pytest.param("GET", "/v1/vector_stores/{other}/file_batches/b", None, id="see batch"),
        pytest.param("POST", "/v1/vector_stores/{other}/file_batches/b/cancel", None, id="cancel batch"),
    ],
)
async def test_stores_of_others_are_not_there(
    client: httpx.AsyncClient, method: str, path: str, body: dict[str, Any] | None
) -> None:
    response = await client.request(method, path.format(other=store_id("default")), json=body, headers=HR)
    assert response.status_code == 404, response.text
    assert "vector store" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        pytest.param("POST", "/v1/vector_stores", id="new store"),
        pytest.param("DELETE", f"/v1/vector_stores/{store_id('hr')}", id="delete store"),
        pytest.param("POST", "/v1/library/reconcile", id="reconcile"),
        pytest.param("POST", "/v1/library/compact", id="compact"),
        pytest.param("POST", "/v1/library/verify", id="verify"),
        pytest.param("POST", "/v1/library/reindex", id="reindex"),
        pytest.param("POST", "/v1/library/retry", id="retry"),
        pytest.param("GET", "/v1/library/backup", id="backup"),
        pytest.param("GET", "/metrics", id="metrics"),
    ],
)
async def test_what_concerns_all_needs_a_key_without_limits(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    body = {} if method == "POST" else None
    response = await client.request(method, path, json=body, headers=HR)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "key_is_limited")


async def test_uploads_belong_to_their_key(client: httpx.AsyncClient) -> None:
    form: dict[str, Any] = {
        "files": {"file": ("a.txt", b"The frobnicator is blue.")},
        "data": {"purpose": "assistants"},
    }
    of_boss = (await client.post("/v1/files", headers=ALL, **form)).json()["id"]
    of_intern = (await client.post("/v1/files", headers=HR, **form)).json()["id"]
    listed = (await client.get("/v1/files", headers=HR)).json()["data"]
    assert [file["id"] for file in listed] == [of_intern]
    for path in (f"/v1/files/{of_boss}", f"/v1/files/{of_boss}/content"):
        assert (await client.get(path, headers=HR)).status_code == 404
    attach = {"file_id": of_boss}
    store = store_id("hr")
    response = await client.post(f"/v1/vector_stores/{store}/files", json=attach, headers=HR)
    assert response.status_code == 404
    assert (await client.delete(f"/v1/files/{of_boss}", headers=HR)).status_code == 404
    await client.post(f"/v1/vector_stores/{store}/files", json=attach, headers=ALL)
    assert (
        await client.get(f"/v1/files/{of_boss}/content", headers=HR)
    ).content == b"The frobnicator is blue."
    assert (await client.delete(f"/v1/files/{of_boss}", headers=HR)).status_code == 403
    assert (await client.delete(f"/v1/files/{of_intern}", headers=HR)).json()["deleted"]


async def test_the_engine_keeps_the_prompts_of_keys_apart(client: httpx.AsyncClient, engine: Any) -> None:
    for headers in (ALL, HR, ALL):
        await answer(client, "Hello", headers, model="parrot")
        body = {"model": "parrot", "prompt": "The frobnicator", "max_tokens": 2}
        assert (await client.post("/v1/completions", json=body, headers=headers)).status_code == 200
        body = {"model": "parrot", "input": "Hello"}
        assert (await client.post("/v1/responses", json=body, headers=headers)).status_code == 200
    tenants = [generation.params.tenant for generation in engine.chat.generations]
    assert len(tenants) == 9
    boss, intern = tenants[0], tenants[3]
    assert tenants == [boss] * 3 + [intern] * 3 + [boss] * 3
    assert len({boss, intern, "", None}) == 4


def test_tenants_differ_and_tell_nothing_of_the_keys() -> None:
    gate = Gate(Settings(api_keys="alpha,beta"))
    callers = [gate.check_key({"authorization": f"Bearer {key}"}) for key in ("alpha", "beta")]  # type: ignore[arg-type]
    assert callers[0].tenant != callers[1].tenant
    assert "alpha" not in callers[0].tenant
    assert Gate(Settings()).check_key({}) == Caller()  # type: ignore[arg-type]


def test_limits_of_an_unknown_key_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("QUARRY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("QUARRY_API_KEYS", "alpha")
    monkeypatch.setenv("QUARRY_KEY_COLLECTIONS", '{"secret": ["hr"]}')
    with pytest.raises(SettingsError, match="key 1 is not among") as caught:
        load_settings()
    assert "secret" not in str(caught.value)
