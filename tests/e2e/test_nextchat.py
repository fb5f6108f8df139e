"""ChatGPT-Next-Web's requests from a real browser: a custom endpoint typed there, and BASE_URL of its server.

Its built app is in no package registry. What runs here is its own request package in Chromium, with its
rules for addresses and headers (node/nextchat.mjs), and a server that hands on as its server does.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from rag.settings import Settings
from tests.e2e.browser import chromium
from tests.e2e.conftest import BACKUP
from tests.e2e.serving import Served, serve

KEY = "a-long-secret"
FOREIGN = "https://chat.example"
QUESTION = [{"role": "user", "content": "When does the nightly backup start?"}]
TITLE = {
    "role": "user",
    "content": "使用四到五个字直接返回这句话的简要主题，不要解释、不要标点、不要语气词、不要多余文本，"
    "不要加粗，如果没有主题，请直接返回“闲聊”",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, starter_chat_gguf: Path, starter_embedding_gguf: Path
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("nextchat")
    (folder / "documents" / "ops").mkdir(parents=True)
    (folder / "documents" / "ops" / "backup.md").write_text(BACKUP)
    settings = Settings(api_keys=KEY, cors_origins=FOREIGN, answer_tokens=48)
    models = {"chat": starter_chat_gguf, "embedding": starter_embedding_gguf}
    with serve(folder, settings, **models, key=KEY) as served:
        yield served


@contextmanager
def page_at(browser: Browser, origin: str, folder: Path | None = None) -> Iterator[Page]:
    """Open the page; where `folder` is given, its files are what `origin` answers with."""
    with browser.new_context() as context:
        # What a person grants when the browser asks whether a page may call this machine.
        context.grant_permissions(["local-network-access"])
        page = context.new_page()
        if folder is not None:
            package = folder / "node_modules" / "@fortaine" / "fetch-event-source" / "lib" / "esm"

            def give(route: Any) -> None:
                path = route.request.url.removeprefix(origin).partition("?")[0]
                at_hand = {"/": folder / "page.html", "/nextchat.mjs": folder / "nextchat.mjs"}
                name = path.rpartition("/")[2]
                file = at_hand.get(path, package / (name if "." in name else f"{name}.js"))
                kind = "text/html" if file.suffix == ".html" else "text/javascript"
                route.fulfill(path=file, content_type=kind)

            page.route(f"{origin}/**", give)
        page.goto(f"{origin}/")
        page.evaluate("async () => { window.nextchat = await import('/nextchat.mjs'); }")
        yield page


def chat(page: Page, endpoint: str, key: str, **more: Any) -> dict[str, Any]:
    call = "([endpoint, key, messages, model]) => nextchat.chat(endpoint, key, messages, model)"
    said: dict[str, Any] = page.evaluate(
        call, [endpoint, key, more.get("messages", QUESTION), more.get("model", "quarry")]
    )
    return said


def assert_answered(said: dict[str, Any]) -> None:
    assert said["status"] == 200
    assert said["type"].startswith("text/event-stream")
    assert "02:40" in said["text"]
    assert "ops/backup.md" in said["text"]
    assert said["done"]


@pytest.mark.parametrize(
    "typed",
    [
        pytest.param("", id="root"),
        pytest.param("/", id="root slash"),
        pytest.param("/v1", id="v1"),
        pytest.param("/v1/", id="v1 slash"),
        pytest.param("/api/openai", id="as its own server"),
    ],
)
def test_custom_endpoint_typed_in_the_browser(
    browser: Browser, served: Served, node_folder: Path, typed: str
) -> None:
    with page_at(browser, FOREIGN, node_folder) as page:
        endpoint = served.url + typed
        assert_answered(chat(page, endpoint, KEY))
        assert_answered(chat(page, endpoint, KEY, model="gpt-4o-mini"))
        title = page.evaluate(
            "([e, k, m]) => nextchat.title(e, k, m)",
            [endpoint, KEY, [*QUESTION, {"role": "assistant", "content": "At 02:40."}, TITLE]],
        )
        assert title
        assert "backup.md" not in title
        assert page.evaluate("([e, k]) => nextchat.balance(e, k)", [endpoint, KEY]) == [0, 0]


def test_wrong_key_is_readable_in_the_page(browser: Browser, served: Served, node_folder: Path) -> None:
    with page_at(browser, FOREIGN, node_folder) as page:
        for key in ("wrong", ""):
            said = chat(page, served.url, key)
            assert said["status"] == 401
            assert "invalid_api_key" in said["text"]


def test_page_that_is_not_allowed_is_told_so(browser: Browser, served: Served, node_folder: Path) -> None:
    with page_at(browser, "https://other.example", node_folder) as page:
        said = chat(page, served.url, KEY)
    assert said["status"] == 403
    assert "QUARRY_CORS_ORIGINS" in said["text"]


@pytest.mark.parametrize("base", [pytest.param("", id="root"), pytest.param("/v1", id="v1")])
def test_its_own_server_with_base_url(browser: Browser, served: Served, node_folder: Path, base: str) -> None:
    environment = os.environ | {"BASE_URL": served.url + base, "OPENAI_API_KEY": KEY}
    with subprocess.Popen(
        ["node", "nextchat-server.mjs"], cwd=node_folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            with page_at(browser, f"http://127.0.0.1:{int(server.stdout.readline())}") as page:
                asked: list[str] = []
                page.on("request", lambda request: asked.append(request.url))
                assert_answered(chat(page, "", ""))
                assert_answered(chat(page, "", KEY))
                assert chat(page, "", "wrong")["status"] == 401
                assert page.evaluate("() => nextchat.balance('', '')") == [0, 0]
                # The page calls nobody but its own server, whatever BASE_URL is.
                assert not [url for url in asked if url.startswith(served.url)]
        finally:
            server.terminate()
