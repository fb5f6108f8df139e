"""SECURITY 12: 150 payloads in documents, file names and answers: no script runs, no request leaves.

Documents and file names go through the real service. Answers that a model would have to be talked into are
given to the page as the bytes of the wire.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from rag.settings import Settings
from tests.e2e.browser import Visit, chromium, visit
from tests.e2e.payloads import ANSWERS, DOCUMENTS, FILE_NAMES
from tests.e2e.serving import Served, serve

# What no element of an answer may carry.
_SUSPICIOUS = """(prose) => [...prose.querySelectorAll('*')].some((one) => [...one.attributes].some(
    ({ name, value }) => /^(on.*|style|src|srcset|id|name)$/.test(name)
        || /^\\s*(javascript|data|vbscript|file|blob):/i.test(value)))"""
# Whatever a payload tries, it calls this, and the test sees that it was called.
_TRAP = """
window.__ran = [];
for (const name of ['alert', 'confirm', 'prompt', 'open', 'print']) {
    window[name] = (...given) => { window.__ran.push(name + String(given)); return null; };
}
window.pwned = (...given) => { window.__ran.push('pwned' + String(given)); };
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, starter_embedding_gguf: Path) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("rendering")
    documents = folder / "documents"
    documents.mkdir()
    for number, payload in enumerate(DOCUMENTS):
        text = f"# Zebra note {number}\n\nThe zebra of kind {number} sleeps standing. {payload}\n"
        (documents / f"note-{number:03}.txt").write_text(text, "utf-8")
    for number, name in enumerate(FILE_NAMES):
        (documents / name).write_text(f"The giraffe of kind {number} drinks at dawn.\n", "utf-8")
    with serve(folder, Settings(top_k=6), chat=None, embedding=starter_embedding_gguf) as served:
        yield served


def test_there_are_enough_payloads() -> None:
    assert len({*DOCUMENTS, *FILE_NAMES, *ANSWERS}) >= 150


def test_documents_and_file_names_do_nothing(browser: Browser, served: Served) -> None:
    with visit(browser, served.url, "/#/documents") as seen:
        page = _trapped(seen)
        expect(page.locator(".row")).to_have_count(min(200, len(DOCUMENTS) + len(FILE_NAMES)))
        assert set(FILE_NAMES) <= set(page.locator(".row-name").all_text_contents())
        for number in range(len(DOCUMENTS)):
            page.locator(f'[data-path="note-{number:03}.txt"] .row-name').click()
            expect(page.locator(".viewer-body")).to_contain_text(f"kind {number} sleeps")
        for name in FILE_NAMES:
            row = page.locator(".row", has_text=name)
            row.locator(".row-name").first.click()
            row.get_by_role("button", name="Delete").first.click()
            expect(page.get_by_role("dialog")).to_be_visible()
            page.keyboard.press("Escape")
        _assert_harmless(seen)
        page.goto(served.url + "/#/search")
        for word in ("zebra sleeps standing", "giraffe drinks at dawn", *DOCUMENTS[:10]):
            page.fill("#search-input", word)
            page.keyboard.press("Enter")
            page.wait_for_selector(".results:not([aria-busy])")
        _assert_harmless(seen)


def test_quoted_documents_do_nothing_in_an_answer(browser: Browser, served: Served) -> None:
    with visit(browser, served.url) as seen:
        page = _trapped(seen)
        for number in range(0, len(DOCUMENTS), 6):
            seen.ask(f"How does the zebra of kind {number} sleep?")
        for number in range(0, len(FILE_NAMES), 6):
            seen.ask(f"When does the giraffe of kind {number} drink?")
        assert page.locator(".source-chip").count() > 10
        for chip in page.locator(".source-chip").all()[:12]:
            chip.hover()
        _click_everything(page)
        _assert_harmless(seen)


def test_answers_do_nothing(browser: Browser, served: Served) -> None:
    speaker = Speaker(ANSWERS)
    with visit(browser, served.url) as seen:
        page = _trapped(seen)
        page.route(
            "**/v1/chat/completions",
            lambda route: route.fulfill(
                status=200, content_type="text/event-stream", body=speaker.next_body()
            ),
        )
        for payload in ANSWERS:
            seen.ask("Say something.")
            answer = page.locator(".message.assistant").last
            assert answer.locator(
                "script, img, svg, iframe, object, embed, style, link, meta, form, input"
            ).count() == (answer.locator("svg.icon").count()), payload
            assert not answer.locator(".prose").evaluate(_SUSPICIOUS), payload
        _click_everything(page)
        _assert_harmless(seen)


def test_passage_behind_a_link_does_nothing(browser: Browser, served: Served) -> None:
    with served.client() as client:
        paths = []
        for number in range(0, len(DOCUMENTS), 4):
            question = f"How does the zebra of kind {number} sleep?"
            reply = client.chat.completions.create(
                model="quarry", messages=[{"role": "user", "content": question}]
            )
            text = reply.choices[0].message.content or ""
            paths += [
                line.split("](")[1].split(")")[0] for line in text.splitlines() if line.startswith("- [[")
            ]
    assert len(paths) > 10
    for url in dict.fromkeys(paths):
        with visit(browser, served.url, url.removeprefix(served.url)) as seen:
            _trapped(seen)
            expect(seen.page.locator("mark")).not_to_have_count(0)
            _assert_harmless(seen)


@dataclass
class Speaker:
    """Says one text after the other, as a chat model on the wire would."""

    texts: list[str]
    n_said: int = 0

    def next_body(self) -> str:
        text = self.texts[self.n_said % len(self.texts)]
        self.n_said += 1
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "quarry"}
        source = {
            "number": 1,
            "chunk_ids": [1],
            "path": text[:80],
            "title": text,
            "page": None,
            "cited": True,
        }
        source |= {"heading_path": [text[:40]], "text": text}
        # In pieces, so that half of a tag or a link stands there for a while.
        cut = max(1, len(text) // 3)
        pieces = [text[at : at + cut] for at in range(0, len(text), cut)]
        deltas = [{"index": 0, "delta": {"content": piece}, "finish_reason": None} for piece in pieces]
        chunks = [{**head, "choices": [delta]} for delta in deltas]
        end = {"index": 0, "delta": {}, "finish_reason": "stop"}
        chunks.append({**head, "choices": [end], "sources": [source]})
        return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


def _trapped(seen: Visit) -> Page:
    """Set the trap in the page and in all that it opens."""
    seen.page.add_init_script(_TRAP)
    seen.page.reload()
    seen.page.wait_for_selector("h1", state="attached")
    assert seen.page.evaluate("window.__ran.length") == 0
    return seen.page


def _click_everything(page: Page) -> None:
    """Follow every link as far as the question whether to leave, and stay."""
    for link in page.locator(".prose a").all():
        for button in ("left", "middle"):
            link.click(button=button)
            dialog = page.get_by_role("dialog")
            if button == "left":
                expect(dialog).to_contain_text("leaves Quarry")
                dialog.get_by_role("button", name="Stay here").click()
                expect(dialog).to_have_count(0)


def _assert_harmless(seen: Visit) -> None:
    assert seen.page.evaluate("window.__ran") == []
    assert seen.foreign == []
    assert seen.errors == []
    assert len(seen.page.context.pages) == 1
    assert seen.page.url.startswith(seen.origin + "/")
