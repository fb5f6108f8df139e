"""A disk that is full or read-only: reads go on, writes fail clearly, nothing is inconsistent afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ingest.errors import IngestError, StorageFull
from tests.ingest.conftest import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

_KIB = 1024
# Enough for a library of a few documents and the readers' folders, and quickly filled.
_DISK = 24 * _KIB * _KIB


class Disk:
    """A small file system of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, *, leave: int) -> None:
        """Leave so many bytes free."""
        with (self.folder / "filler").open("ab") as file:
            while (free := self._free()) > leave:
                file.write(bytes(min(_KIB * _KIB, free - leave)))
                file.flush()

    def empty(self) -> None:
        (self.folder / "filler").unlink()

    def _free(self) -> int:
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize


class BrokenDisk:
    """An ext4 image whose file system stops writing when told, as after an error of the disk."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "disk"
        self.folder.mkdir()
        self._image = root / "image"
        with self._image.open("wb") as file:
            file.truncate(_DISK)
        subprocess.run(["mkfs.ext4", "-q", self._image], check=True, capture_output=True)

    def mount(self) -> None:
        options = ["-o", "loop,errors=remount-ro"]
        subprocess.run(["mount", *options, self._image, self.folder], check=True, capture_output=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", self.folder], check=True, capture_output=True)

    def turn_read_only(self) -> None:
        found = subprocess.run(
            ["findmnt", "-no", "SOURCE", self.folder], check=True, capture_output=True, text=True
        )
        device = found.stdout.strip().rpartition("/")[2]
        Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("1")

    def repair(self) -> None:
        pause = threading.Event()
        for _ in range(100):  # Chroma's threads let go of their files a little later
            if not subprocess.run(["umount", self.folder], check=False, capture_output=True).returncode:
                break
            pause.wait(0.1)
        # 1: errors were found and corrected.
        done = subprocess.run(["e2fsck", "-fy", self._image], check=False, capture_output=True)
        assert done.returncode in (0, 1), done.stdout
        self.mount()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def place(tmp_path: Path, disk: Disk) -> Iterator[Place]:
    """Documents on the ordinary disk, data on the small one."""
    place = Place(tmp_path)
    place.data = disk.folder / "data"
    for n in range(4):
        place.write(f"{n}.md", f"# Document {n}\n\n" + text(n))
    place.open().reconcile()
    yield place
    place.close()


def text(n: int) -> str:
    return " ".join(f"word{n}x{m}" for m in range(200))


def answers(place: Place) -> bool:
    """Tell whether searches and reads find the first four documents as they were."""
    library = place._open
    assert library is not None
    return all(
        place.lexical(library, f"word{n}x7")[0].path == f"{n}.md"
        and place.dense(library, text(n))[0].path == f"{n}.md"
        and f"word{n}x7" in library.document_chunks(f"{n}.md")[0].text
        for n in range(4)
    )


@pytest.mark.parametrize("leave", [0, 60 * _KIB, 300 * _KIB, 1200 * _KIB])
def test_full_disk(place: Place, disk: Disk, leave: int) -> None:
    """However much is left when it runs out: in the record, in Chroma, or in tantivy."""
    library = place._open
    assert library is not None
    for n in range(4, 60):
        place.write(
            f"{n}.md",
            f"# Document {n}\n\n" + "\n\n".join(f"## {k}\n\n{text(n * 100 + k)}" for k in range(20)),
        )
    disk.fill(leave=leave)
    with pytest.raises(IngestError) as failed:
        library.reconcile()
    assert "space" in str(failed.value) or "full" in str(failed.value), failed.value
    assert isinstance(failed.value, StorageFull)
    assert answers(place)
    for document in library.documents():
        assert document.state == "indexed"
        assert document.n_chunks == len(library.document_chunks(document.path))

    disk.empty()
    library.reconcile()
    assert len(library.documents()) == 60
    assert answers(place)
    assert library.verify() == []
    place.close()
    library = place.open()
    assert library.verify() == []
    assert place.lexical(library, "word5900x7")[0].path == "59.md"


def test_full_disk_at_the_start(place: Place, disk: Disk) -> None:
    place.close()
    disk.fill(leave=0)
    try:
        library = place.open()
    except StorageFull as error:
        assert "space" in str(error) or "full" in str(error)  # noqa: PT017 - either is right
    else:
        assert library.document_chunks("1.md")
        place.close()
    disk.empty()
    place.open()
    assert answers(place)


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[BrokenDisk]:
    if os.geteuid() != 0 or None in (shutil.which("mkfs.ext4"), shutil.which("e2fsck")):
        pytest.skip("only root, with the tools of ext4, may make a disk that breaks")
    disk = BrokenDisk(tmp_path)
    try:
        disk.mount()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no image can be mounted here: {error.stderr.decode().strip()}")
    try:
        yield disk
    finally:
        disk.unmount()


def test_disk_that_turns_read_only(tmp_path: Path, broken: BrokenDisk) -> None:
    place = Place(tmp_path)
    place.data = broken.folder / "data"
    for n in range(4):
        place.write(f"{n}.md", f"# Document {n}\n\n" + text(n))
    library = place.open()
    library.reconcile()
    try:
        place.write("4.md", "# More\n\nSomething else.")
        broken.turn_read_only()
        with pytest.raises(StorageFull, match="free space or make it writable"):
            library.reconcile()
        assert answers(place)
        # A thread that never read before opens the file anew.
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(answers, place).result()
        place.close()
        with pytest.raises(StorageFull, match="Read-only"):
            place.open()
    finally:
        place.close()
    broken.repair()
    library = place.open()
    assert answers(place)
    library.reconcile()
    assert len(library.documents()) == 5
    assert library.verify() == []
    place.close()
