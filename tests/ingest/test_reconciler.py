"""Folder against record: what is taken, what is left alone, what is never followed."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from ingest.errors import DocumentsFolderMissing, FileChanging, UnreadableFile
from ingest.reconciler import FoundFile, collection_of, compare, is_temporary, opened, scan, settles_in
from ingest.values import FileFacts, KnownFile


def put(root: Path, path: str, content: str = "x") -> Path:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(content)
    return target


@pytest.mark.parametrize(
    ("path", "collection"),
    [("a.md", "default"), ("hr/a.md", "hr"), ("hr/deep/a.md", "hr"), ("人事/a.md", "人事")],
    ids=["top", "folder", "deep", "chinese"],
)
def test_first_level_folders_are_collections(path: str, collection: str) -> None:
    assert collection_of(path) == collection


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (".DS_Store", True), (".hidden.md", True), ("~$report.docx", True), ("a.tmp", True),
        ("a.md.part", True),
        ("a.crdownload", True), ("a.md~", True), ("Thumbs.db", True), ("a.md", False), ("temp.md", False),
    ],
)  # fmt: skip
def test_temporary_names(name: str, expected: bool) -> None:
    assert is_temporary(name) is expected


def test_links_and_special_files_are_never_followed(tmp_path: Path) -> None:
    outside = put(tmp_path, "outside/secret.md")
    root = tmp_path / "documents"
    put(root, "real.md")
    (root / "link.md").symlink_to(outside)
    (root / "folder").symlink_to(outside.parent)
    os.mkfifo(root / "fifo.md")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(root)  # a socket's path may have only 108 bytes
        try:
            server.bind("socket.md")
        finally:
            os.chdir(here)
        found = scan(root)
    assert set(found.files) == {"real.md"}
    assert set(found.skipped) == {"link.md", "folder", "fifo.md", "socket.md"}


@pytest.mark.parametrize("swapped", ["file", "folder", "fifo"])
def test_swap_after_the_scan_leads_nowhere(tmp_path: Path, swapped: str) -> None:
    outside = put(tmp_path, "outside/a.md", "secret")
    root = tmp_path / "documents"
    target = put(root, "deep/a.md")
    target.unlink()
    if swapped == "file":
        target.symlink_to(outside)
    elif swapped == "fifo":
        os.mkfifo(target)
    else:
        target.parent.rmdir()
        target.parent.symlink_to(outside.parent)
    with pytest.raises(UnreadableFile), opened(root, "deep/a.md"):
        pass


def test_vanished_file_is_left_to_the_next_pass(tmp_path: Path) -> None:
    with pytest.raises(FileChanging, match="gone"), opened(tmp_path, "a.md"):
        pass


def test_name_that_is_not_utf8_is_reported(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.md")).write_text("x")
    found = scan(tmp_path)
    assert found.files == {}
    assert found.skipped == ["\\udcff.md"]


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DocumentsFolderMissing, match="nothing is taken for deleted"):
        scan(tmp_path / "absent")


def test_unreadable_folder_deletes_nothing(tmp_path: Path) -> None:
    put(tmp_path, "a.md")
    found = scan(tmp_path)
    found.unreadable["hr/"] = "the folder cannot be read"
    known = {
        path: KnownFile(n, path, FileFacts(1, 1, n), b"", "indexed", 0)
        for n, path in enumerate(["hr/x.md", "hrx.md"])
    }
    assert [file.path for file in compare(found, known).gone] == ["hrx.md"]


def test_unchanged_files_are_not_read_and_failed_ones_are_tried_again(tmp_path: Path) -> None:
    for name in ("same.md", "failed.md", "quarantined.md"):
        put(tmp_path, name)
    found = scan(tmp_path)
    known = {
        f"{state}.md": KnownFile(1, f"{state}.md", found.files[f"{state}.md"].facts, b"", kind, 1)
        for state, kind in (("same", "indexed"), ("failed", "failed"), ("quarantined", "quarantined"))
    }  # type: ignore[misc] # the three states, spelled out above
    plan = compare(found, known)
    assert [file.path for file in plan.fresh] == ["failed.md"]
    assert plan.n_unchanged == 2


@pytest.mark.parametrize(
    ("age", "rests"),
    [(0.0, True), (10.0, False), (-3600.0, False)],
    ids=["just-written", "old", "clock-ahead"],
)
def test_half_written_files_settle_first(age: float, rests: bool) -> None:
    file = FoundFile("a.md", FileFacts(1, 1, 1), int((time.time() - age) * 1e9))
    assert (settles_in(file, 5.0) > 0) is rests


def test_twenty_thousand_files_are_scanned_and_compared(tmp_path: Path) -> None:
    for n in range(40):
        (tmp_path / f"c{n}").mkdir()
        for m in range(500):
            (tmp_path / f"c{n}" / f"{m}.md").touch()
    found = scan(tmp_path)
    assert len(found.files) == 20_000
    known = {path: KnownFile(1, path, file.facts, b"", "indexed", 0) for path, file in found.files.items()}
    plan = compare(found, known)
    assert (plan.n_unchanged, plan.fresh, plan.gone) == (20_000, (), ())
