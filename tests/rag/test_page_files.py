"""The page's files, and what the API tells the page of the library."""

import hashlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from rag.api.page import read_assets
from rag.app import create_app
from rag.settings import Settings

WEB = Path(__file__).parents[2] / "rag" / "web"


@pytest.fixture
async def client(engine: Any, library: Any, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(
        api_keys=(SecretStr("alpha"),), data_dir=tmp_path / "data", documents_dir=tmp_path / "documents"
    )
    app = create_app(settings, engine=engine, library=library)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8080") as client:
        yield client


async def test_page_needs_no_key_and_loads_only_from_here(client: httpx.AsyncClient) -> None:
    page = await client.get("/")
    assert page.status_code == 200
    policy = dict(
        part.strip().partition(" ")[::2] for part in page.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert {policy[kind] for kind in ("script-src", "style-src", "img-src", "connect-src")} == {"'self'"}
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"
    for link in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        asset = await client.get(link)
        assert asset.status_code == 200, link
        assert asset.headers["content-security-policy"] == page.headers["content-security-policy"]


async def test_page_is_at_the_root_only(client: httpx.AsyncClient) -> None:
    key = {"Authorization": "Bearer alpha"}
    for path in ("/v1/", "/nowhere", "/web/", "/web/nowhere.js", "/web/../settings.py", "/web/%2e%2e/cli.py"):
        response = await client.get(path, headers=key)
        assert (path, response.status_code) == (path, 404)
        assert response.json()["error"]["code"]


async def test_unchanged_file_is_not_sent_again(client: httpx.AsyncClient) -> None:
    first = await client.get("/web/js/main.js")
    again = await client.get("/web/js/main.js", headers={"If-None-Match": first.headers["etag"]})
    assert first.headers["content-type"].startswith("text/javascript")
    assert (again.status_code, again.content) == (304, b"")


async def test_only_reading_is_open(client: httpx.AsyncClient) -> None:
    assert (await client.post("/")).status_code == 401
    assert (await client.get("/v1/library/documents")).status_code == 401
    assert (await client.get("/", headers={"Host": "evil.example.net"})).status_code == 403


def test_every_import_is_served() -> None:
    assets = read_assets()
    scripts = [name for name in assets if name.endswith(".js") and not name.startswith("vendor/")]
    assert len(scripts) > 10
    for name in scripts:
        for target in re.findall(r'from "([^"]+)"', assets[name].body.decode()):
            found = (WEB / name).parent.joinpath(target).resolve().relative_to(WEB).as_posix()
            assert found in assets, f"{name} imports {target}"


def test_languages_have_the_same_phrases() -> None:
    english, chinese = (phrases(language) for language in ("en", "zh"))
    # Chinese has one plural form, English two.
    assert {key.replace(".one", ".other") for key in english} == chinese
    code = "".join(path.read_text("utf-8") for path in (WEB / "js").glob("*.js"))
    for key in re.findall(r'\bt\("([\w.]+)"', code):
        assert key in english or f"{key}.other" in english, key


def phrases(language: str) -> set[str]:
    return set(
        re.findall(
            r'^  "([\w.]+)":', (WEB / "js" / "locales" / f"{language}.js").read_text("utf-8"), re.MULTILINE
        )
    )


def test_vendored_files_are_what_they_are_said_to_be() -> None:
    manifest = json.loads((WEB / "vendor" / "vendor.json").read_text("utf-8"))
    present = {path.name for path in (WEB / "vendor").iterdir()} - {"vendor.json"}
    assert present == set(manifest["sha256"])
    for name, digest in manifest["sha256"].items():
        assert hashlib.sha256((WEB / "vendor" / name).read_bytes()).hexdigest() == digest
    assert {"marked.LICENSE", "purify.LICENSE"} <= present


def test_nothing_but_the_sanitiser_makes_markup() -> None:
    for path in (WEB / "js").glob("*.js"):
        text = path.read_text("utf-8")
        for door in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
        ):
            assert door not in text, f"{path.name} uses {door}"
    assert "<style" not in (WEB / "index.html").read_text("utf-8")
    assert not re.search(r"\son\w+=|style=", (WEB / "index.html").read_text("utf-8"))


async def test_documents_and_passages(client: httpx.AsyncClient, library: Any) -> None:
    library.put("long.md", *(f"Passage number {n}." for n in range(9)))
    client.headers["Authorization"] = "Bearer alpha"
    listing = (await client.get("/v1/library/documents")).json()
    assert listing["collections"][0]["folder"] == "default"
    chunk = next(c for c in library.all_chunks() if c.text == "Passage number 4.")
    found = (
        await client.get("/v1/library/passage", params={"chunk": chunk.id, "before": 2, "after": 1})
    ).json()
    assert [c["text"][-2] for c in found["chunks"]] == ["2", "3", "4", "5"]
    assert found["document"]["n_chunks"] == 9
    whole = (await client.get("/v1/library/passage", params={"path": "long.md"})).json()
    assert len(whole["chunks"]) == 9
    gone = await client.get("/v1/library/passage", params={"chunk": 10**6})
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "not_found")
    for bad in ({"chunk": -1}, {"chunk": 1 << 70}, {"chunk": 1, "before": 10**6}):
        assert (await client.get("/v1/library/passage", params=bad)).status_code == 400


async def test_more_documents_than_fit_a_page_come_page_after_page(
    client: httpx.AsyncClient, library: Any
) -> None:
    for n in range(1200):
        library.put(f"many/{n}.md", f"Document {n}.", collection="many")
    client.headers["Authorization"] = "Bearer alpha"
    paths: list[str] = []
    while True:
        wanted: dict[str, Any] = {"collection": "many", "limit": 500, "offset": len(paths)}
        page = (await client.get("/v1/library/documents", params=wanted)).json()
        assert page["total"] == 1200
        if not page["data"]:
            break
        paths += [row["path"] for row in page["data"]]
    assert paths == sorted(f"many/{n}.md" for n in range(1200))
    refused = await client.get("/v1/library/documents", params={"limit": 1001})
    assert refused.status_code == 400
    assert "1000" in refused.json()["error"]["message"]
