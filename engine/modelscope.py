"""ModelScope's hub: its addresses, and the sums that it lists of its files.

MODELSCOPE_ENDPOINT, or MODELSCOPE_DOMAIN, names another host, as for ModelScope's own client (modelscope_hub
0.5); MODELSCOPE_API_TOKEN a token.
"""

import os
import re
from collections.abc import Mapping
from urllib.parse import quote

import httpx

_LISTING_BYTES = 16 << 20


def endpoint() -> str:
    """Return the hub's address."""
    environment = os.environ
    host = environment.get("MODELSCOPE_ENDPOINT") or environment.get("MODELSCOPE_DOMAIN") or "modelscope.cn"
    return (host if "://" in host else f"https://{host}").rstrip("/")


def file_base(repo: str, revision: str) -> str:
    """Return the address below which a model's files lie."""
    return f"{endpoint()}/models/{repo}/resolve/{quote(revision)}"


def listing_url(repo: str, revision: str) -> str:
    """Return the address of the list of a model's files."""
    return f"{endpoint()}/api/v1/models/{repo}/repo/files?Revision={quote(revision)}&Recursive=true"


def token_headers(url: str) -> dict[str, str]:
    """Return the token for the hub itself."""
    token = os.environ.get("MODELSCOPE_API_TOKEN")
    return {"authorization": f"Bearer {token}"} if token and url.startswith(f"{endpoint()}/") else {}


def read_sums(client: httpx.Client, url: str) -> Mapping[str, str]:
    """Return the sha256 of each file by its path; nothing where the hub does not list them."""
    try:
        with client.stream("GET", url) as response:
            body = b""
            for piece in response.iter_bytes():
                body += piece
                if len(body) > _LISTING_BYTES:
                    return {}
            data = httpx.Response(response.status_code, content=body).json()["Data"]
        files = data if isinstance(data, list) else data["Files"]
        found = {file["Path"]: str(file.get("Sha256", "")).lower() for file in files}
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {path: named for path, named in found.items() if re.fullmatch(r"[0-9a-f]{64}", named)}
