"""Copies of the same words: all in the record, few in the index, and none lost when others go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ingest.copies import COPIES
from tests.ingest.test_partition import pdf

if TYPE_CHECKING:
    from ingest.library import Library
    from tests.ingest.conftest import Place

BOILERPLATE = "This message is confidential and meant for the addressee alone; xylophone rules apply."
ABOUT = ("apples", "bridges", "clouds", "drums", "elephants", "forests", "glaciers", "harbours")


def write(place: Place, folder: str = "mail", n: int = 6) -> None:
    for subject in ABOUT[:n]:
        # Long enough that the notice is a chunk of its own.
        own = f"Everything about {subject} and only {subject}, told at length and with great care. " * 12
        # The same words, in another case and with other marks.
        boilerplate = BOILERPLATE if subject != "clouds" else BOILERPLATE.upper().replace(";", " -")
        place.write(f"{folder}/{subject}.md", f"# {subject}\n\n{own}\n\n# Notice\n\n{boilerplate}")


def holders(place: Place, library: Library) -> set[str]:
    hits = library.search_lexical("xylophone", limit=50, collections=None)
    return {chunk.path for chunk in library.chunks([hit.chunk_id for hit in hits])}


def stored(library: Library) -> int:
    return sum(
        "xylophone" in chunk.text.lower()
        for document in library.documents()
        for chunk in library.document_chunks(document.path)
    )


@pytest.fixture
def library(place: Place) -> Library:
    write(place)
    library = place.open()
    library.reconcile()
    return library


def test_the_record_keeps_what_the_index_leaves_out(place: Place, library: Library) -> None:
    assert stored(library) == 6
    assert len(holders(place, library)) == COPIES
    left_out = [c for d in library.documents() for c in library.document_chunks(d.path) if not c.indexed]
    assert len(left_out) == 6 - COPIES
    assert library.check_indexes() is None


def test_copies_inside_a_document_are_searched_once(place: Place) -> None:
    place.write("a.md", "\n\n".join(f"# Part {n}\n\n{BOILERPLATE}\n\n```\n{'x' * n}\n```" for n in range(5)))
    place.write("b.md", f"# Other\n\n{BOILERPLATE * 12}")
    library = place.open()
    library.reconcile()
    hits = library.search_lexical("xylophone", limit=50, collections=None)
    texts = [(chunk.path, chunk.text) for chunk in library.chunks([hit.chunk_id for hit in hits])]
    assert len(texts) == len(set(texts))


def test_another_copy_takes_the_place_of_one_that_went(place: Place, library: Library) -> None:
    for _ in range(3):
        gone = min(holders(place, library))
        (place.documents / gone).unlink()
        library.reconcile()
        assert gone not in holders(place, library)
        assert len(holders(place, library)) == min(COPIES, stored(library))
        assert library.check_indexes() is None
    assert stored(library) == 3


def test_an_edit_that_takes_the_words_out_lets_another_copy_in(place: Place, library: Library) -> None:
    edited = min(holders(place, library))
    place.write(edited, "# New\n\nNothing of the old text is left here.")
    library.reconcile()
    assert edited not in holders(place, library)
    assert len(holders(place, library)) == COPIES
    assert library.check_indexes() is None


def test_collections_do_not_hide_one_anothers_copies(place: Place, library: Library) -> None:
    write(place, "letters", n=2)
    library.reconcile()
    assert {path.split("/")[0] for path in holders(place, library)} == {"mail", "letters"}
    # Moving between them gives each its own again.
    moved = next(path for path in holders(place, library) if path.startswith("mail"))
    (place.documents / moved).rename(
        place.documents / moved.replace("mail", "letters", 1).replace("/", "/m-")
    )
    report = library.reconcile()
    assert report.moved == 1
    paths = holders(place, library)
    assert sum(path.startswith("mail") for path in paths) == COPIES
    assert sum(path.startswith("letters") for path in paths) == COPIES
    assert library.check_indexes() is None


def test_a_rebuild_leaves_the_same_out(place: Place, library: Library) -> None:
    before = holders(place, library)
    library.reindex()
    assert holders(place, library) == before
    assert library.check_indexes() is None


def test_page_headers_and_footers_are_kept_and_not_searched(place: Place) -> None:
    pages = [
        [
            (9, "ACME Handbook, confidential"), (11, f"Rule {n} is about {subject} and"),
            (11, f"goes on about {subject} to the end of the page."), (9, f"Page {n} of 8"),
        ]
        for n, subject in enumerate(ABOUT, start=1)
    ]  # fmt: skip
    place.write("handbook.pdf", pdf(*pages))
    library = place.open()
    library.reconcile()
    chunks = library.document_chunks("handbook.pdf")
    searched, kept = ([c.text for c in chunks if c.indexed is value] for value in (True, False))
    assert kept == ["ACME Handbook, confidential\n\nPage 1 of 8"]
    assert not any("confidential" in text or "of 8" in text for text in searched)
    assert all(any(subject in text for text in searched) for subject in ABOUT)
    assert place.lexical(library, "confidential") == []
    assert library.check_indexes() is None
    # Not searched for good: no edit of another document brings them in.
    place.write("other.md", "Something else altogether.")
    library.reconcile()
    library.reindex()
    assert place.lexical(library, "confidential") == []


def test_sums_at_the_feet_of_pages_are_no_footer(place: Place) -> None:
    lines = [[(11, f"Invoice for {subject}"), (11, "Thank you."), (11, f"In all: {n * 37 + 100} euros")]
             for n, subject in enumerate(ABOUT)]  # fmt: skip
    place.write("invoices.pdf", pdf(*lines))
    library = place.open()
    library.reconcile()
    said = " ".join(chunk.text for chunk in library.document_chunks("invoices.pdf") if chunk.indexed)
    assert all(f"In all: {n * 37 + 100} euros" in said for n in range(len(ABOUT)))
