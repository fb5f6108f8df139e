"""The page, used as people use it, in a real browser against the real service."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from pydantic import SecretStr

from rag.settings import Settings
from tests.e2e.browser import Visit, chromium, visit
from tests.e2e.serving import Served, serve

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
QUESTION = "How many vacation days may employees carry over?"
HANDBOOK = """# Handbook

## Leave

Employees may carry over five vacation days into the next year. The form is signed by Maria Lopez.

## Machines

The espresso machine on the second floor is descaled every Friday at noon by the kitchen team.
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, starter_chat_gguf: Path, starter_embedding_gguf: Path
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("page")
    (folder / "documents" / "人事").mkdir(parents=True)
    (folder / "documents" / "handbook.md").write_text(HANDBOOK, "utf-8")
    (folder / "documents" / "人事" / "年假.md").write_text("# 年假\n\n员工每年享有二十五天年假。\n", "utf-8")
    (folder / "documents" / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    # Long enough to be stopped in the middle.
    settings = Settings(answer_tokens=1024)
    with serve(folder, settings, chat=starter_chat_gguf, embedding=starter_embedding_gguf) as served:
        yield served


@pytest.fixture
def seen(browser: Browser, served: Served) -> Iterator[Visit]:
    """A fresh visit that must end without an error and without a request to anywhere else."""
    with visit(browser, served.url) as seen:
        yield seen
        assert seen.errors == []
        assert seen.foreign == []


def test_question_is_answered_and_its_source_opens_at_the_passage(seen: Visit) -> None:
    page = seen.page
    expect(page.locator(".welcome")).to_contain_text("2 documents are ready")
    seen.ask(QUESTION)
    expect(page.locator(".message.assistant .prose")).to_contain_text("five")
    page.locator(".prose button.cite").first.click()
    mark = page.locator(".viewer mark")
    expect(mark.first).to_contain_text("carry over five vacation days")
    expect(mark.first).to_be_in_viewport()
    expect(page.locator(".viewer h2")).to_have_text("handbook.md")
    page.keyboard.press("Escape")
    expect(page.locator(".viewer")).to_be_hidden()


def test_answer_streams_and_can_be_stopped_edited_and_asked_again(seen: Visit, served: Served) -> None:
    page = seen.page
    page.select_option(".scope", served.chat_name)
    page.fill("#question", "Write a very long story about a river, in many chapters.")
    page.keyboard.press("Enter")
    expect(page.locator(".message.assistant.writing .prose")).not_to_be_empty(timeout=60_000)
    page.get_by_role("button", name="Stop the answer").click()
    expect(page.locator(".message.assistant")).to_contain_text("Stopped.")
    page.locator(".message.user").hover()
    page.get_by_role("button", name="Edit the question").click()
    page.get_by_role("textbox", name="Edit the question").fill("Say hello.")
    page.keyboard.press("Enter")
    expect(page.locator(".message.user")).to_have_count(1)
    expect(page.locator(".message.user .bubble")).to_have_text("Say hello.")
    expect(page.locator(".message.assistant")).to_have_attribute("aria-busy", "false", timeout=60_000)
    first = page.locator(".message.assistant").element_handle()
    page.locator(".message.assistant").get_by_role("button", name="Try again").click()
    page.wait_for_function("(old) => !old.isConnected", arg=first)
    expect(page.locator(".message.assistant")).to_have_attribute("aria-busy", "false", timeout=60_000)


def test_conversation_is_there_after_reloading_and_can_be_deleted(seen: Visit) -> None:
    page = seen.page
    seen.ask(QUESTION)
    page.reload()
    page.locator(".conversation").first.click()
    expect(page.locator(".message.user .bubble")).to_have_text(QUESTION)
    expect(page.locator(".sources")).to_be_visible()
    page.locator(".conversation-list li").first.hover()
    page.get_by_role("button", name="Delete this conversation").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator(".conversation")).to_have_count(0)
    expect(page.locator(".welcome")).to_be_visible()


def test_file_is_added_read_asked_about_and_deleted(seen: Visit, served: Served) -> None:
    page = seen.page
    page.get_by_role("link", name="Documents").click()
    page.get_by_role("button", name="New collection").click()
    page.get_by_label("Name", exact=True).fill("厨房 kitchen")
    page.get_by_role("button", name="Create").click()
    expect(page.locator(".tab[aria-pressed=true]")).to_contain_text("厨房 kitchen")
    expect(page.locator(".drop-zone")).to_be_visible()
    content = "The walnut bread rests for ninety minutes before it is baked."
    # A drop, as the file manager would make it.
    transfer = page.evaluate_handle(
        """(content) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([content], "walnut bread.txt", { type: "text/plain" }));
            return transfer;
        }""",
        content,
    )
    page.dispatch_event("body", "dragenter", {"dataTransfer": transfer})
    expect(page.locator(".drop-veil")).to_contain_text("厨房 kitchen")
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    row = page.locator(".row", has_text="walnut bread.txt")
    expect(row.locator(".state")).to_have_text("Ready", timeout=30_000)
    assert [p.name for p in (served.documents / "厨房 kitchen").iterdir()] == ["walnut bread.txt"]
    page.get_by_role("link", name="Search").click()
    page.fill("#search-input", "How long does walnut bread rest?")
    page.keyboard.press("Enter")
    expect(page.locator(".result").first).to_contain_text("ninety minutes")
    page.locator(".result .row-name").first.click()
    expect(page.locator(".viewer mark")).to_contain_text("ninety minutes")
    page.get_by_role("link", name="Documents").click()
    row.get_by_role("button", name="Delete walnut bread.txt").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(row).to_have_count(0)
    assert list((served.documents / "厨房 kitchen").glob("*")) == []
    page.get_by_role("button", name="Delete this collection").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator(".tab", has_text="厨房")).to_have_count(0)


def test_what_cannot_be_read_says_why_and_can_be_tried_again(seen: Visit, served: Served) -> None:
    page = seen.page
    page.goto(served.url + "/#/documents")
    row = page.locator(".row", has_text="broken.pdf")
    expect(row.locator(".reason")).not_to_be_empty()
    row.get_by_role("button", name="Try again").click()
    expect(page.locator(".toast.error")).to_contain_text("broken.pdf still cannot be read")
    row.get_by_role("button", name="Delete broken.pdf").click()
    expect(page.get_by_role("dialog")).to_contain_text("documents folder")
    page.keyboard.press("Escape")


def test_language_follows_the_browser_and_the_switch(browser: Browser, served: Served) -> None:
    with visit(browser, served.url, locale="zh-CN") as seen:
        page = seen.page
        expect(page.get_by_role("link", name="文档")).to_be_visible()
        assert page.evaluate("document.documentElement.lang") == "zh-CN"
        seen.ask("员工每年有几天年假？")
        expect(page.locator(".prose").first).to_contain_text("二十五天")
        page.get_by_label("语言").select_option("en")
        expect(page.get_by_role("link", name="Documents")).to_be_visible()
        expect(page.locator(".message.user .bubble")).to_have_text("员工每年有几天年假？")
        page.reload()
        expect(page.get_by_role("link", name="Documents")).to_be_visible()
        assert (seen.errors, seen.foreign) == ([], [])


def test_theme_is_switched_and_remembered(seen: Visit) -> None:
    page = seen.page
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    for _ in range(2):
        page.get_by_role("button", name=re.compile("^Appearance")).click()
    dark = page.evaluate(colour)
    assert dark != light
    page.reload()
    assert page.evaluate(colour) == dark


def test_phone(browser: Browser, served: Served) -> None:
    with visit(browser, served.url, **PHONE) as seen:
        page = seen.page
        wide = "document.documentElement.scrollWidth > innerWidth"
        seen.ask(QUESTION)
        assert not page.evaluate(wide)
        page.locator("button.source-chip").first.tap()
        viewer = page.locator(".viewer").bounding_box()
        assert viewer is not None
        assert (round(viewer["width"]), round(viewer["height"])) == (390, 844)
        page.locator(".viewer").get_by_role("button", name="Close").tap()
        for view in ("Documents", "Search", "Connect"):
            page.get_by_role("button", name="Open the menu").tap()
            page.get_by_role("link", name=view).tap()
            expect(page.locator(".topbar-title")).to_have_text(view)
            page.wait_for_timeout(300)
            assert not page.evaluate(wide), view
        small = page.evaluate(
            """[...document.querySelectorAll("button, select, a.nav-item")]
                .filter((one) => one.offsetParent && !one.matches(".code-head button"))
                .map((one) => [one.textContent || one.ariaLabel, one.getBoundingClientRect().height])
                .filter(([, height]) => height > 0 && height < 36)"""
        )
        assert small == []
        assert (seen.errors, seen.foreign) == ([], [])


def test_keyboard_alone(seen: Visit) -> None:
    page = seen.page
    expect(page.locator("#question")).to_be_focused()
    page.keyboard.type(QUESTION)
    page.keyboard.press("Enter")
    page.wait_for_selector(".message.assistant[aria-busy=false]", timeout=90_000)
    # Backwards from the question lie the answer's own buttons, its sources among them.
    for _ in range(12):
        page.keyboard.press("Shift+Tab")
        if page.evaluate("document.activeElement.matches('.source-chip')"):
            break
    page.keyboard.press("Enter")
    expect(page.locator(".viewer")).to_be_visible()
    expect(page.locator(".viewer").get_by_role("button", name="Close")).to_be_focused()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.matches('.source-chip')")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Alt+2")
    expect(page.get_by_role("heading", name="Documents", level=1)).to_be_visible()
    page.keyboard.press("Alt+3")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("espresso")
    page.keyboard.press("Enter")
    expect(page.locator(".result").first).to_contain_text("descaled")
    page.keyboard.press("Alt+n")
    expect(page.locator("#question")).to_be_focused()
    nameless = page.evaluate(
        """[...document.querySelectorAll("button, a, input, select, textarea")]
            .filter((one) => one.offsetParent)
            .filter((one) => !(one.ariaLabel || one.textContent.trim() || one.labels?.length))
            .map((one) => one.outerHTML)"""
    )
    assert nameless == []


def test_key_is_asked_for_and_forgotten_with_the_tab(
    browser: Browser, tmp_path: Path, starter_embedding_gguf: Path
) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "handbook.md").write_text(HANDBOOK, "utf-8")
    settings = Settings(api_keys=(SecretStr("alpha"),))
    with (
        serve(tmp_path, settings, chat=None, embedding=starter_embedding_gguf, key="alpha") as served,
        browser.new_context(locale="en-US") as context,
    ):
        page = context.new_page()
        page.goto(served.url)
        page.get_by_role("textbox", name="API key").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("not one of")
        page.get_by_role("textbox", name="API key").fill("alpha")
        page.keyboard.press("Enter")
        expect(page.locator(".welcome")).to_contain_text("1 document is ready")
        page.fill("#question", QUESTION)
        page.keyboard.press("Enter")
        expect(page.locator(".sources")).to_be_visible(timeout=30_000)
        assert page.evaluate("Object.keys(localStorage)") == []
        page.reload()
        expect(page.locator(".conversation")).to_have_text(QUESTION)
        other = context.new_page()
        other.goto(served.url)
        expect(other.get_by_role("textbox", name="API key")).to_be_visible()
        expect(other.locator(".conversation")).to_have_count(0)


def test_link_in_an_answer_opens_without_the_key(browser: Browser, served: Served) -> None:
    with served.client() as client:
        question = {"role": "user", "content": QUESTION}
        reply = client.chat.completions.create(model="quarry", messages=[question])  # type: ignore[list-item]
    link = re.search(
        rf"\[\[1\]\]\({re.escape(served.url)}(/s/[\w-]+)\)", reply.choices[0].message.content or ""
    )
    assert link is not None
    with visit(browser, served.url, link[1]) as seen:
        expect(seen.page.locator("mark")).to_contain_text("carry over five vacation days")
        assert (seen.errors, seen.foreign) == ([], [])


def test_more_documents_than_one_answer_lists_can_be_scrolled_through_and_found(
    browser: Browser, tmp_path: Path, starter_embedding_gguf: Path
) -> None:
    n_documents = 1210  # the service lists a thousand at once
    (tmp_path / "documents").mkdir()
    for number in range(n_documents):
        (tmp_path / "documents" / f"合同 contract {number:04}.txt").write_text(f"Contract {number}.", "utf-8")
    with (
        serve(tmp_path, Settings(), chat=None, embedding=starter_embedding_gguf) as served,
        visit(browser, served.url, "/#/documents") as seen,
    ):
        rows = seen.page.locator(".rows > .row")
        for n_shown in (*range(200, n_documents, 200), n_documents):
            expect(rows).to_have_count(n_shown)
            rows.last.scroll_into_view_if_needed()
        expect(seen.page.locator(".more")).to_be_empty()
        names = seen.page.locator(".row-name").all_text_contents()
        assert names == [f"合同 contract {number:04}.txt" for number in range(n_documents)]
        seen.page.get_by_role("searchbox", name="Filter by name").fill("ACT 1209")
        expect(rows).to_have_count(1)
        # A refresh keeps what was scrolled to.
        seen.page.get_by_role("searchbox", name="Filter by name").fill("")
        expect(rows).to_have_count(200)
        rows.last.scroll_into_view_if_needed()
        expect(rows).to_have_count(400)
        seen.page.evaluate("import('/web/js/library.js').then(({ library }) => library.refresh())")
        expect(rows).to_have_count(400)
        assert (seen.errors, seen.foreign) == ([], [])
