"""Links from answers to passages: who may follow them, where they lead, and how they come back."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from rag.app import create_app
from rag.citations import Source, footer, strip_own_marks
from rag.errors import Forbidden
from rag.links import Linking, Links, MarkLinker, Place, reachable_base
from rag.retriever import Passage
from rag.settings import Settings

DAY = 24 * 3600.0
KEY = {"Authorization": "Bearer alpha"}
LINK = re.compile(r"\[\[(\d)\]\]\((http://[^)]+)\)")


def _source(number: int, *chunks: int) -> Source:
    ids = chunks or (number,)
    return Source(number, Passage(ids, 1, "a.md", "a", "default", (), None, "text", 0.1, 0.5), "text")


def test_token_names_its_passage_until_its_day(tmp_path: Path) -> None:
    links = Links(tmp_path, days=2)
    token = links.token(_source(1, 70_000_000_000, 5, 6), now=0)
    assert links.read(token, now=DAY) == Place(70_000_000_000, 3)
    with pytest.raises(Forbidden, match="too old"):
        links.read(token, now=2 * DAY + 3600)


def test_no_other_token_is_read(tmp_path: Path) -> None:
    links = Links(tmp_path, days=2)
    token = links.token(_source(1), now=0)
    for position in range(len(token)):
        # The last character holds two bits that mean nothing: every one that means something is changed.
        changed = chr(ord(token[position]) ^ 1) if token[position].isalnum() else "A"
        if position < len(token) - 1 and changed != token[position]:
            with pytest.raises(Forbidden):
                links.read(token[:position] + changed + token[position + 1 :], now=0)
    for wrong in ("", "A", token[:-4], token + "AAAA", "€", "=" * 39, token.encode().hex()):
        with pytest.raises(Forbidden):
            links.read(wrong, now=0)


def test_secret_outlives_the_process_and_is_the_owners_alone(tmp_path: Path) -> None:
    token = Links(tmp_path, days=1).token(_source(1), now=0)
    assert Links(tmp_path, days=1).read(token, now=0) == Place(1, 1)
    assert (tmp_path / "link.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Forbidden):
        Links(tmp_path / "elsewhere", days=1).read(token, now=0)


@pytest.mark.parametrize(
    ("asked", "public", "base"),
    [
        pytest.param("http://127.0.0.1:8080/", None, "http://127.0.0.1:8080", id="as asked"),
        pytest.param("http://host.docker.internal:8080/", None, "http://localhost:8080", id="container"),
        pytest.param("http://quarry:8080/", "https://kb.example.com/", "https://kb.example.com", id="set"),
    ],
)
def test_base_is_what_a_browser_reaches(asked: str, public: str | None, base: str) -> None:
    assert reachable_base(asked, public) == base


def test_marks_become_links_where_they_are_marks() -> None:
    marks = MarkLinker(Linking(lambda source: f"http://q/s/{source.number}", in_text=True))
    marks.sources = {1: _source(1), 2: _source(2)}
    assert marks.feed("Yes [1][2], no [3].") == "Yes [[1]](http://q/s/1)[[2]](http://q/s/2), no [3]."
    assert marks.feed("`a[1]` and ```\n[1]") == "`a[1]` and ```\n[1]"
    assert marks.feed("[2]``` [2]") == "[2]``` [[2]](http://q/s/2)"
    for kept in (r"\[1\]", "[1](http://x)", "[[1]](http://x)", "[1]: http://x"):
        assert marks.feed(kept) == kept


@pytest.mark.parametrize("in_text", [True, False], ids=["text", "list"])
def test_linked_answer_comes_back_as_it_was(in_text: bool) -> None:
    marks = MarkLinker(Linking(lambda source: f"http://localhost:8080/s/AbC-_{source.number}", in_text))
    marks.sources = {1: _source(1)}
    shown = marks.feed("Five days [1].") + marks.feed(footer([_source(1)], cited=[1], chinese=True))
    assert ("Five days [[1]](http" in shown) is in_text
    assert "- [[1]](http://localhost:8080/s/AbC-_1) a.md" in shown
    assert strip_own_marks(shown) == "Five days [1]."


@pytest.fixture
async def client(engine: Any, library: Any, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(api_keys=(SecretStr("alpha"),), data_dir=tmp_path)
    transport = httpx.ASGITransport(create_app(settings, engine=engine, library=library))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8080") as client:
        yield client


async def ask(client: httpx.AsyncClient, **more: Any) -> Any:
    question = {"role": "user", "content": "How many vacation days carry over?"}
    body = {"model": "quarry", "messages": [question], **more}
    return (await client.post("/v1/chat/completions", json=body, headers=KEY)).json()


async def test_link_opens_its_passage_without_the_key(client: httpx.AsyncClient, library: Any) -> None:
    message = (await ask(client, source_links="text"))["choices"][0]["message"]
    number, url = LINK.findall(message["content"])[0]
    assert number == "1"
    citation = message["annotations"][0]["url_citation"]
    assert message["content"][citation["start_index"] : citation["end_index"]] == "[1]"
    assert citation["url"] == url
    path = url.removeprefix("http://localhost:8080")
    page = await client.get(path)
    assert page.headers["content-type"].startswith("text/html")
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    found = await client.get(f"{path}/passage")
    assert "carry over five" in found.json()["chunks"][0]["text"]
    assert found.json()["marked"] == [found.json()["chunks"][0]["id"]]
    assert found.headers["cache-control"] == "no-store"
    assert (await client.get(f"{path[:-2]}xx/passage")).status_code == 403
    assert (await client.post(f"{path}/passage")).status_code == 401
    library.delete("handbook.md")
    assert (await client.get(f"{path}/passage")).status_code == 404


async def test_link_shows_a_little_around_its_passage_and_no_more(
    client: httpx.AsyncClient, library: Any
) -> None:
    library.put("long.md", *(f"Passage {n}." for n in range(6)), "Zebras sleep standing.", "End.")
    body = {"model": "quarry", "messages": [{"role": "user", "content": "Do zebras sleep standing?"}]}
    answer = (await client.post("/v1/chat/completions", json=body, headers=KEY)).json()
    path = LINK.findall(answer["choices"][0]["message"]["content"])[0][1].removeprefix(
        "http://localhost:8080"
    )
    chunks = (await client.get(f"{path}/passage")).json()["chunks"]
    assert [chunk["ordinal"] for chunk in chunks] == [3, 4, 5, 6, 7]


async def test_links_can_be_left_off(client: httpx.AsyncClient) -> None:
    assert "/s/" not in str(await ask(client, source_links="none"))
    assert "/s/" not in (await ask(client, sources_footer=False))["choices"][0]["message"]["content"]
