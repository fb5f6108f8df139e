"""Copies of the same words: all in the record, few in the index, and none lost when others go."""

from __future__ import annotations

import hashlib
import io
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from ingest.copies import COPIES
from ingest.partition.limits import Limits
from ingest.partition.page_log import PageLog
from ingest.partition.pdf import read_pdf
from ingest.values import words_hash
from tests.ingest.test_partition import pdf

if TYPE_CHECKING:
    from collections.abc import Callable

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


@pytest.mark.parametrize(
    "foot",
    [
        pytest.param(lambda n: f"Page {n - 1} of 7", id="cover-not-counted"),
        pytest.param(lambda n: f"- {n + 344} -", id="offprint"),
        pytest.param(lambda n: f"第 {n} 页 共 8 页", id="chinese"),
        pytest.param(lambda n: f"ACME {n}" if n % 2 else f"{n} Handbook", id="left-and-right"),
    ],
)
def test_footers_that_differ_in_the_page_number_are_not_searched(
    place: Place, foot: Callable[[int], str]
) -> None:
    pages = [
        [(11, f"Rule {n} is about {subject} and"), (11, f"goes on about {subject}."), (9, foot(n))]
        for n, subject in enumerate(ABOUT, start=1)
    ]
    elements = read_pdf(io.BytesIO(pdf(*pages)), Limits(), PageLog.forgetful())
    said = " ".join(e.text for e in elements if e.kind != "Header")
    assert not any(foot(n) in said for n in range(2, len(ABOUT) + 1))
    assert all(f"Rule {n} is about {subject}" in said for n, subject in enumerate(ABOUT, start=1))
    assert any(e.kind == "Header" for e in elements)


@pytest.mark.parametrize(
    "first", [pytest.param(1000, id="thousands"), pytest.param(20, id="beyond-the-pages")]
)
def test_numbers_that_count_with_the_pages_and_name_something_are_searched(first: int) -> None:
    pages = [
        [(11, f"Invoice {first + n}"), (11, f"For {subject}."), (11, "Thank you for it.")]
        for n, subject in enumerate(ABOUT, start=1)
    ]
    elements = read_pdf(io.BytesIO(pdf(*pages)), Limits(), PageLog.forgetful())
    said = " ".join(e.text for e in elements if e.kind != "Header")
    assert all(f"Invoice {first + n}" in said for n in range(1, len(ABOUT) + 1))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("年利率为3.5%。", "年利率为35%。", id="decimal-point"),
        pytest.param("A discount of 5% applies.", "A discount of 5 applies.", id="percent"),
        pytest.param("The fee is $500.", "The fee is €500.", id="currency"),
        pytest.param("Warmer than -5 degrees.", "Warmer than 5 degrees.", id="sign"),
        pytest.param("温度 ≥ 30 时停用。", "温度 ≤ 30 时停用。", id="comparison"),
        pytest.param("Due on 1/12 at noon.", "Due on 11/2 at noon.", id="date"),
        pytest.param("It is now here.", "It is nowhere.", id="words"),
    ],
)
def test_what_differs_in_a_number_or_a_sign_is_no_copy(one: str, other: str) -> None:
    assert words_hash(one) != words_hash(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("The fee is $500; no more.", "THE FEE IS $500 - no more", id="case-and-marks"),
        pytest.param("年假 为 十五 天。", "年假为十五天", id="blanks-between-characters"),
        pytest.param("ＡＢＣ　１２３", "abc 123", id="width"),
        pytest.param("- first\n- second", "* first\n* second", id="bullets"),
    ],
)
def test_what_differs_in_how_it_is_set_is_a_copy(one: str, other: str) -> None:
    assert words_hash(one) == words_hash(other)


def test_contracts_that_differ_in_a_number_are_all_found(place: Place) -> None:
    text = "The tenant pays a deposit of {}% of the yearly rent before moving in; the landlord returns it."
    rates = ["1.5", "15", "2.5", "25", "3.5", "35"]
    for n, rate in enumerate(rates):
        place.write(f"contract-{n}.md", f"# Deposit\n\n{text.format(rate)}")
    library = place.open()
    library.reconcile()
    for n, rate in enumerate(rates):
        assert place.lexical(library, f"deposit of {rate}%")[0].path == f"contract-{n}.md"
    assert all(c.indexed for d in library.documents() for c in library.document_chunks(d.path))


def test_an_older_record_lets_in_what_was_taken_for_a_copy(place: Place) -> None:
    write(place)
    for n, rate in enumerate(("1.5", "15", "150", "1,50", "1-50", "1:50")):
        place.write(f"rates/{n}.md", f"The yearly rate of interest is {rate} in this contract.")
    library = place.open()
    library.reconcile()
    place.close()
    with closing(sqlite3.connect(place.data / "record.sqlite3")) as record:
        # As the schema before had it: digits alone.
        for chunk_id, text in record.execute("SELECT id, text FROM chunks").fetchall():
            old = hashlib.sha256("".join(c for c in text.casefold() if c.isalnum()).encode()).digest()[:16]
            record.execute("UPDATE chunks SET words_hash = ? WHERE id = ?", (old, chunk_id))
        left_out = [row[0] for row in record.execute("SELECT id FROM chunks WHERE text LIKE '%rate of%'")][3:]
        record.executemany("UPDATE chunks SET indexed = 0 WHERE id = ?", ((i,) for i in left_out))
        record.execute("PRAGMA user_version = 3")
        record.commit()
    library = place.open()
    assert all(c.indexed for n in range(6) for c in library.document_chunks(f"rates/{n}.md"))
    assert len(holders(place, library)) == COPIES
    assert library.check_indexes() is None
    assert place.lexical(library, "rate of interest 1:50")[0].path == "rates/5.md"


def test_sums_at_the_feet_of_pages_are_no_footer(place: Place) -> None:
    lines = [[(11, f"Invoice for {subject}"), (11, "Thank you."), (11, f"In all: {n * 37 + 100} euros")]
             for n, subject in enumerate(ABOUT)]  # fmt: skip
    place.write("invoices.pdf", pdf(*lines))
    library = place.open()
    library.reconcile()
    said = " ".join(chunk.text for chunk in library.document_chunks("invoices.pdf") if chunk.indexed)
    assert all(f"In all: {n * 37 + 100} euros" in said for n in range(len(ABOUT)))
