"""With Chroma on a server the same tests pass as with its files in our own folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from ingest.errors import IndexDamaged
from tests.ingest import test_backup, test_copies, test_library
from tests.ingest.chroma_server import COMMAND, ChromaServer, running_server
from tests.ingest.conftest import Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Collected here once more, where `place` is the one below.
for module in (test_backup, test_copies, test_library):
    globals().update({name: test for name, test in vars(module).items() if name.startswith("test_")})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChromaServer]:
    if not COMMAND.exists():
        pytest.skip(f"{COMMAND} is not installed: no Chroma server can be started")
    with running_server(tmp_path_factory.mktemp("chroma")) as server:
        yield server


@pytest.fixture
def place(tmp_path: Path, server: ChromaServer) -> Iterator[Place]:
    place = Place(tmp_path, chroma_url=server.url)
    yield place
    place.close()


library = test_copies.library


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ChromaServer]:
    if not COMMAND.exists():
        pytest.skip(f"{COMMAND} is not installed: no Chroma server can be started")
    (tmp_path / "chroma").mkdir()
    with running_server(tmp_path / "chroma") as server:
        yield server


def test_server_that_goes_and_comes_back_costs_nothing(tmp_path: Path, own_server: ChromaServer) -> None:
    place = Place(tmp_path, chroma_url=own_server.url)
    place.write("a.md", "Fifteen days of leave.")
    library = place.open()
    library.reconcile()
    own_server.stop()

    assert [chunk.path for chunk in place.lexical(library, "leave")] == ["a.md"]
    # From the record's own vectors.
    assert [chunk.path for chunk in place.dense(library, "leave")] == ["a.md"]
    assert "Chroma" in (library.status().index_error or "")
    place.write("b.md", "Twenty days of travel.")
    with pytest.raises(IndexDamaged, match="Chroma"):
        library.reconcile()
    assert [chunk.path for chunk in place.lexical(library, "leave")] == ["a.md"]

    own_server.start()
    library.reconcile()
    assert [chunk.path for chunk in place.dense(library, "twenty travel")][:1] == ["b.md"]
    assert library.status().index_error is None
    assert library.verify() == []
    assert place.embedder.n_embedded == 2
    place.close()


def test_server_that_is_away_at_the_start_is_waited_for(tmp_path: Path, own_server: ChromaServer) -> None:
    place = Place(tmp_path, chroma_url=own_server.url)
    place.write("a.md", "Fifteen days of leave.")
    place.open().reconcile()
    place.close()
    own_server.stop()
    library = place.open()
    with pytest.raises(IndexDamaged, match="cannot be opened"):
        place.dense(library, "leave")
    own_server.start()
    library.reconcile()
    assert [chunk.path for chunk in place.dense(library, "leave")] == ["a.md"]
    place.close()


def test_collections_that_somebody_deleted_on_the_server_are_made_anew(
    tmp_path: Path, own_server: ChromaServer
) -> None:
    place = Place(tmp_path, chroma_url=own_server.url)
    place.write("hr/a.md", "Fifteen days of leave.")
    place.open().reconcile()
    place.close()
    names = ChromaNames(own_server.url)
    assert len(names.ours()) == 1
    names.delete(names.ours()[0])
    library = place.open()
    assert [chunk.path for chunk in place.dense(library, "leave")] == ["hr/a.md"]
    assert library.status().n_index_rebuilds == 1
    place.close()


def test_two_libraries_share_a_server_and_leave_no_collections_behind(
    tmp_path: Path, own_server: ChromaServer
) -> None:
    places = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        places.append(Place(tmp_path / name, chroma_url=own_server.url))
    one, two = places
    one.write("a.md", "Apples are red.")
    two.write("b.md", "Bridges are long.")
    first, second = one.open(), two.open()
    first.reconcile()
    second.reconcile()
    second.reindex()
    assert [chunk.path for chunk in one.dense(first, "apples red")] == ["a.md"]
    assert [chunk.path for chunk in two.dense(second, "bridges long")] == ["b.md"]
    assert len(ChromaNames(own_server.url).ours()) == 2
    one.close()
    two.close()


class ChromaNames:
    """What a server holds, looked at past our own code."""

    _BASE = "/api/v2/tenants/default_tenant/databases/default_database/collections"

    def __init__(self, url: str) -> None:
        self._url = url + self._BASE

    def ours(self) -> list[str]:
        listed = httpx.get(self._url, trust_env=False).raise_for_status().json()
        return [collection["name"] for collection in listed if collection["name"].startswith("quarry-")]

    def delete(self, name: str) -> None:
        httpx.delete(f"{self._url}/{name}", trust_env=False).raise_for_status()
