"""GET / and its files: the page for people. Nothing here knows a document; all data comes over the API."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

# Fixed here, because machines disagree about `.js`, and browsers run only what has the right type.
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
}
# Everything comes from here and nothing is inline. Text becomes markup in one place only, the sanitiser: a
# browser that knows trusted types refuses all others.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types dompurify"
)


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the page, as it is sent."""

    body: bytes
    media_type: str
    etag: str


def page_router() -> APIRouter:
    """Read the page's files once; serve these and no others."""
    assets = read_assets()
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def page(request: Request) -> Response:
        return _send(assets["index.html"], request)

    @router.get("/s/{token}")
    async def passage_page(token: str, request: Request) -> Response:  # noqa: ARG001 (its script reads it)
        return _send(assets["passage.html"], request)

    @router.get("/web/{name:path}")
    async def asset(name: str, request: Request) -> Response:
        if name not in assets:
            raise HTTPException(404, f"the page has no file {name[:80]!r}")
        return _send(assets[name], request)

    return router


def read_assets() -> dict[str, Asset]:
    """Give the files under rag/web by their names there."""
    return dict(_walk(files("rag") / "web", ""))


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, Asset]]:
    found: list[tuple[str, Asset]] = []
    for entry in folder.iterdir():
        name = prefix + entry.name
        if entry.is_dir():
            found += _walk(entry, f"{name}/")
        elif media_type := _TYPES.get(name[name.rfind(".") :]):
            body = entry.read_bytes()
            found.append((name, Asset(body, media_type, f'"{hashlib.sha256(body).hexdigest()[:20]}"')))
    return found


def _send(asset: Asset, request: Request) -> Response:
    headers = {
        "Content-Security-Policy": _POLICY,
        # Asked for every time, answered with 304: after an update nobody sees half of the old page.
        "Cache-Control": "no-cache",
        "ETag": asset.etag,
        "Cross-Origin-Opener-Policy": "same-origin",
    }
    if request.headers.get("if-none-match") == asset.etag:
        return Response(status_code=304, headers=headers)
    return Response(asset.body, media_type=asset.media_type, headers=headers)
