"""SECURITY 5: who may call, by key, Host and Origin; every route refuses the rest."""

import re
from hmac import compare_digest
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from rag.app import PREFIXES, create_app
from rag.settings import Settings
from tests.rag.calling import assert_openai_error, client_of

# What a browser opens without a key: the page and its files, which hold no document, and links to passages,
# which carry their own permission. They are open to a missing or wrong key, not to a foreign Host or Origin.
_KEYLESS = dict.fromkeys(("/", "/web/x", "/s/x", "/s/x/passage"), frozenset({401}))
_KEYLESS["/health"] = frozenset({401, 403})


def _keyed(engine: Any, library: Any, **more: Any) -> FastAPI:
    return create_app(Settings(api_keys="alpha,beta", **more), engine=engine, library=library)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({}, 401, id="missing"),
        pytest.param({"Authorization": ""}, 401, id="empty"),
        pytest.param({"Authorization": "Bearer gamma"}, 401, id="wrong"),
        pytest.param({"Authorization": "Basic alpha"}, 401, id="other scheme"),
        pytest.param({"X-Api-Key": "alpha"}, 401, id="other header"),
        pytest.param({"Authorization": "Bearer beta"}, 200, id="right"),
        pytest.param({"Authorization": "bearer alpha"}, 200, id="scheme in lower case"),
    ],
)
async def test_key_is_needed_everywhere_but_health(
    engine: Any, library: Any, headers: dict[str, str], status: int
) -> None:
    app = _keyed(engine, library)
    async with client_of(app) as client:
        paths = sorted({route for prefix in PREFIXES for route in (f"{prefix}/models", f"{prefix}/ready")})
        for path in [*paths, "/openapi.json"]:
            assert (await client.get(path, headers=headers)).status_code == status, path
        assert (await client.get("/health", headers=headers)).status_code == 200
        if status == 401:
            assert_openai_error(await client.get("/nowhere", headers=headers), 401, "invalid_api_key")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({}, 401, id="no key"),
        pytest.param({"Authorization": "Bearer wrong"}, 401, id="bad key"),
        pytest.param({"Api-Key": "alpha"}, 401, id="key in another header"),
        pytest.param({"Authorization": "Bearer alpha", "Host": "evil.example.net"}, 403, id="bad host"),
        pytest.param(
            {"Authorization": "Bearer alpha", "Origin": "https://evil.net"}, 403, id="foreign origin"
        ),
    ],
)
async def test_every_route_is_refused(
    engine: Any, library: Any, headers: dict[str, str], status: int
) -> None:
    app = _keyed(engine, library)
    operations = {
        (method, re.sub(r"\{[^}]+\}", "x", route.path))
        for route in iter_route_contexts(app.routes)
        for method in route.methods or ()
    }
    assert len(operations) > 40 * len(PREFIXES)
    open_to = {operation: _KEYLESS.get(operation[1], frozenset()) for operation in operations}
    assert {path for (_, path), statuses in open_to.items() if statuses} == set(_KEYLESS)
    async with client_of(app) as client:
        for method, path in sorted(operations):
            response = await client.request(method, path, headers=headers)
            if status in open_to[method, path]:
                # There is no file x, and no link x was ever signed.
                assert response.status_code in {200, 403, 404}, (method, path)
            else:
                assert (method, path, response.status_code) == (method, path, status)


async def test_every_key_is_compared_as_a_digest_in_constant_time(
    engine: Any, library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever key matches, and where it differs: as many comparisons, of strings that are equally long."""
    compared: list[tuple[int, int]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return compare_digest(one, other)

    monkeypatch.setattr("rag.auth.hmac.compare_digest", compare)
    async with client_of(_keyed(engine, library)) as client:
        for key, status in (("alpha", 200), ("beta", 200), ("alphb", 401), ("x" * 500, 401), ("", 401)):
            compared.clear()
            response = await client.get("/v1/models", headers={"Authorization": f"Bearer {key}"})
            assert (response.status_code, compared) == (status, [(32, 32), (32, 32)])


@pytest.mark.parametrize("authorization", [None, "", "Bearer anything"])
async def test_any_key_passes_with_auth_off(client: httpx.AsyncClient, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    assert (await client.get("/v1/models", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        pytest.param("localhost:8080", 200, id="localhost"),
        pytest.param("[::1]:8080", 200, id="loopback v6"),
        pytest.param("192.168.1.20", 200, id="address"),
        pytest.param("host.docker.internal:8080", 200, id="container"),
        pytest.param("kb.example.com", 200, id="allowed name"),
        pytest.param("evil.example.net", 403, id="rebinding"),
        pytest.param("localhost.evil.net", 403, id="prefix of a name"),
    ],
)
async def test_host_is_checked(engine: Any, library: Any, host: str, status: int) -> None:
    app = create_app(Settings(allowed_hosts="kb.example.com"), engine=engine, library=library)
    async with client_of(app) as client:
        assert (await client.get("/v1/models", headers={"Host": host})).status_code == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        pytest.param("http://localhost:3000", 200, id="this machine"),
        pytest.param("http://127.0.0.1:8080", 200, id="own page"),
        pytest.param("https://chat.example.com", 200, id="allowed"),
        pytest.param("https://evil.example.net", 403, id="foreign"),
        pytest.param("null", 403, id="null"),
        pytest.param("http://localhost.evil.net", 403, id="prefix of a name"),
    ],
)
async def test_origin_is_checked_and_the_refusal_is_readable(
    engine: Any, library: Any, origin: str, status: int
) -> None:
    app = create_app(Settings(cors_origins="https://chat.example.com"), engine=engine, library=library)
    async with client_of(app) as client:
        response = await client.get("/v1/models", headers={"Origin": origin})
    assert response.status_code == status
    assert response.headers["access-control-allow-origin"] == origin


async def test_preflight_needs_no_key(engine: Any, library: Any) -> None:
    headers = {
        "Origin": "http://localhost:3000",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    async with client_of(_keyed(engine, library)) as client:
        response = await client.options("/v1/chat/completions", headers=headers)
    assert response.status_code == 204
    assert response.headers["access-control-allow-headers"] == "authorization,content-type"
    assert "POST" in response.headers["access-control-allow-methods"]


async def test_request_id_is_kept_or_made(client: httpx.AsyncClient) -> None:
    kept = await client.get("/health", headers={"x-request-id": "mine-1"})
    made = await client.get("/health", headers={"x-request-id": "bad\tid"})
    assert kept.headers["x-request-id"] == "mine-1"
    assert made.headers["x-request-id"].startswith("req_")
