"""Old Word and PowerPoint files: through LibreOffice where it is installed, else a reason; what holds it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from pptx import Presentation

from ingest.errors import PartitionCrashed, PartitionError, UnsupportedFormat
from ingest.partition import old_office
from ingest.partition.limits import Limits
from ingest.partition.partitioner import Partitioner
from tests.ingest.test_partition import archive, read

DATA = Path(__file__).parents[1] / "data"
needs_office = pytest.mark.skipif(old_office.program() is None, reason="needs LibreOffice")
WORD = [
    "差旅制度|0", "Trains|1", "员工优先乘坐火车，不坐飞机。", "first", "second",
    "| name | days |\n| --- | --- |\n| Ann | 15 |",
]  # fmt: skip


@needs_office
@pytest.mark.parametrize(
    ("file", "name", "expected"),
    [
        pytest.param("word_97.doc", "a.doc", WORD, id="doc"),
        pytest.param("word_97.doc", "A.DOC", WORD, id="capitals"),
        pytest.param("word_97.doc", "a.wps", WORD, id="wps-is-a-doc"),
    ],
)
def test_old_file_is_read_with_its_structure(
    tmp_path: Path, file: str, name: str, expected: list[str]
) -> None:
    with Partitioner() as partitioner:
        elements = read(partitioner, tmp_path / name, (DATA / file).read_bytes())
    assert [e.text if e.level is None else f"{e.text}|{e.level}" for e in elements] == expected


@needs_office
def test_old_presentation_is_read_with_its_slides(tmp_path: Path) -> None:
    slides = Presentation()
    for title, text in (("年度预算", "预算为三百万元。"), ("Schedule", "Delivery in spring.")):
        slide = slides.slides.add_slide(slides.slide_layouts[1])
        slide.shapes.title.text, slide.placeholders[1].text = title, text
    slides.save(tmp_path / "a.pptx")
    subprocess.run(
        ["soffice", "--headless", f"-env:UserInstallation={(tmp_path / 'profile').as_uri()}",
         "--convert-to", "ppt:MS PowerPoint 97", "--outdir", tmp_path, tmp_path / "a.pptx"],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    with Partitioner() as partitioner:
        elements = read(partitioner, tmp_path / "a.ppt", (tmp_path / "a.ppt").read_bytes())
    assert [(e.text if e.level is None else f"{e.text}|{e.level}", e.page) for e in elements] == [
        ("年度预算|0", 1), ("预算为三百万元。", 1), ("Schedule|0", 2), ("Delivery in spring.", 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param("只是文字。".encode(), id="text"),
        pytest.param(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" * 600, id="broken"),
        pytest.param((DATA / "excel_97.xls").read_bytes(), id="workbook"),
    ],
)
def test_what_is_no_document_is_not_taken_for_text(tmp_path: Path, content: bytes) -> None:
    with Partitioner() as partitioner, pytest.raises(PartitionError, match=r"damaged or not a \.doc file"):
        read(partitioner, tmp_path / "a.doc", content)


@needs_office
def test_what_only_begins_as_a_document_is_not_taken_for_text(tmp_path: Path) -> None:
    content = (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "WordDocument".encode("utf-16-le") + b"no \x81\x93 text" * 900
    )
    with Partitioner() as partitioner, pytest.raises(PartitionError, match=r"damaged or not a \.doc file"):
        read(partitioner, tmp_path / "a.doc", content)


@needs_office
def test_document_that_is_cut_off_is_refused_or_read_in_part(tmp_path: Path) -> None:
    content = (DATA / "word_97.doc").read_bytes()
    with Partitioner() as partitioner:
        for n in (4096, 8192, 12_000):
            try:
                texts = [e.text for e in read(partitioner, tmp_path / "a.doc", content[:n])]
            except PartitionError:
                continue
            assert all(text in "\n".join(WORD) for text in texts), texts


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(b"{\\rtf1 Leave is short.\\par}", "Leave is short.", id="rtf"),
        pytest.param(b"\xef\xbb\xbf\r\n<html><p>Leave is short.</p></html>", "Leave is short.", id="page"),
        pytest.param(
            b"MIME-Version: 1.0\nContent-Type: text/html\n\n<p>Leave is short.</p>",
            "Leave is short.",
            id="mht",
        ),
    ],
)
def test_file_that_is_only_called_doc_needs_no_libreoffice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, expected: str
) -> None:
    monkeypatch.setattr(old_office, "program", lambda: None)
    with Partitioner() as partitioner:
        assert [e.text for e in read(partitioner, tmp_path / "a.doc", content)] == [expected]


@needs_office
def test_time_is_limited_and_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    content = (DATA / "word_97.doc").read_bytes()
    with (
        Partitioner(Limits(wall_seconds=0.05)) as hasty,
        pytest.raises(PartitionCrashed, match=r"LibreOffice took longer than 0\.05 s"),
    ):
        read(hasty, tmp_path / "a.doc", content)
    assert [path.name for path in tmp_path.iterdir()] == ["a.doc"]


@needs_office
def test_interrupted_it_ends_at_once(tmp_path: Path) -> None:
    with Partitioner() as partitioner:
        timer = threading.Timer(0.2, partitioner.interrupt)
        timer.start()
        with pytest.raises(PartitionError):
            read(partitioner, tmp_path / "a.doc", (DATA / "word_97.doc").read_bytes())
        timer.join()


def test_without_libreoffice_the_reason_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(old_office, "program", lambda: None)
    with (
        Partitioner() as partitioner,
        pytest.raises(
            UnsupportedFormat, match=r"save it as \.docx, or install LibreOffice, then quarry retry"
        ),
    ):
        read(partitioner, tmp_path / "a.doc", (DATA / "word_97.doc").read_bytes())


def test_inside_an_archive_the_reason_does_not_name_it(tmp_path: Path) -> None:
    content = archive({"a.doc": (DATA / "word_97.doc").read_bytes(), "b.txt": "Some words."})
    with Partitioner() as partitioner:
        texts = [element.text for element in read(partitioner, tmp_path / "a.zip", content)]
    assert texts[-1] == "a.doc: an old Word file: save it as .docx"


CONFINED = textwrap.dedent(
    """
    import os, sys
    from pathlib import Path
    from ingest.partition import sandbox
    from ingest.partition.limits import Limits
    program = Path(sys.executable).resolve()
    if not sandbox.confine_program(Limits(), sys.argv[1], program):
        sys.exit(77)
    os.execv(program, [str(program), "-I", "-S", "-c", sys.argv[2]])
    """
)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param("open('/tmp/made', 'w').write('x')", "", id="own-folder"),
        pytest.param("open('/etc/passwd')", "PermissionError", id="read-elsewhere"),
        pytest.param("open(SECRET)", "FileNotFoundError", id="read-in-the-temporary-folder"),
        pytest.param("open(HOME + '/escaped', 'w')", "PermissionError", id="write-elsewhere"),
        pytest.param("import os; os.execv('/usr/bin/env', ['env'])", "PermissionError", id="other-program"),
        pytest.param(
            "import socket; socket.create_connection(('127.0.0.1', 9))", "Error", id="connect",
        ),
        pytest.param(
            "import socket; print(socket.if_nameindex()[1:])\nraise SystemExit(3)", "", id="no-interface",
        ),
    ],
)  # fmt: skip
def test_another_program_is_confined_by_the_kernel(tmp_path: Path, code: str, expected: str) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (tmp_path / "secret").write_text("x")
    code = code.replace("SECRET", repr(str(tmp_path / "secret"))).replace("HOME", repr(str(Path.home())))
    done = subprocess.run(
        [sys.executable, "-c", CONFINED, folder, code],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if done.returncode == 77:
        pytest.skip("this kernel has no Landlock or lets nobody make namespaces")
    if expected:
        assert done.returncode == 1
        assert expected in done.stderr
    elif "if_nameindex" in code:
        assert (done.returncode, done.stdout.strip()) == (3, "[]")
    else:
        assert done.returncode == 0, done.stderr
        assert (folder / "made").read_text() == "x"
    assert not (Path.home() / "escaped").exists()
