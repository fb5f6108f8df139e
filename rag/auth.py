"""Who may call: API keys, Host and Origin."""

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request

from rag.errors import Forbidden, Unauthorized
from rag.settings import LOOPBACK_NAMES, Settings, is_loopback

# What a container calls the machine it runs on.
_OWN_NAMES = LOOPBACK_NAMES | {"host.docker.internal"}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    tenant: tells keys apart, and nothing of them. collections: those that it may see; None: all.
    """

    tenant: str = ""
    collections: frozenset[str] | None = None

    def sees(self, collection: str) -> bool:
        """Tell whether a collection is there for this caller."""
        return self.collections is None or collection in self.collections

    def require_all(self, what: str) -> None:
        """Let only those pass who see everything. Raises: Forbidden."""
        if self.collections is not None:
            raise Forbidden(
                f"{what} needs an API key without limits; this one sees only some collections",
                code="key_is_limited",
            )


def caller_of(request: Request) -> Caller:
    """Give who sends a request, as the boundary found it."""
    caller: Caller = request.scope["quarry.caller"]
    return caller


class Gate:
    """Decides about a request by its headers."""

    def __init__(self, settings: Settings) -> None:
        # Digests of equal length: comparing them tells nothing of a key, not even its length.
        self._callers = [
            (_digest(key), Caller(_digest(key).hex()[:16], _limits(settings, key)))
            for key in (secret.get_secret_value() for secret in settings.api_keys)
        ]
        self._hosts = _OWN_NAMES | _names((settings.host, *settings.allowed_hosts))
        if settings.public_url:
            self._hosts |= _names([urlsplit(settings.public_url).hostname or ""])
        self._origins = frozenset(origin.rstrip("/").lower() for origin in settings.cors_origins)

    def check_host(self, headers: Headers) -> None:
        """Refuse foreign names, which DNS rebinding needs; addresses cannot be rebound. Raises: Forbidden."""
        host = host_name(headers.get("host", ""))
        if host not in self._hosts and "*" not in self._hosts and not _is_address(host):
            raise Forbidden(
                f"Host {host[:100]!r} is not a name of this server: add it to QUARRY_ALLOWED_HOSTS",
                code="host_not_allowed",
            )

    def check_origin(self, headers: Headers) -> None:
        """Refuse pages of other sites, save this machine's and those that are set. Raises: Forbidden."""
        origin = headers.get("origin")
        if origin is None or "*" in self._origins or origin.lower() in self._origins:
            return
        parts = urlsplit(origin) if origin != "null" else urlsplit("")
        own = parts.netloc.lower() == headers.get("host", "").lower()
        if parts.scheme in {"http", "https"} and (own or is_loopback(parts.hostname or "")):
            return
        raise Forbidden(
            f"Origin {origin[:100]!r} is not allowed: add it to QUARRY_CORS_ORIGINS",
            code="origin_not_allowed",
        )

    def check_key(self, headers: Headers) -> Caller:
        """Compare the key in constant time; say whose it is. Raises: Unauthorized."""
        if not self._callers:
            return Caller()
        scheme, _, given = headers.get("authorization", "").partition(" ")
        digest = _digest(given.strip() if scheme.lower() == "bearer" else "")
        # All of them are compared, so that the time does not tell which one matched.
        found = [caller for key, caller in self._callers if hmac.compare_digest(digest, key)]
        if not found:
            problem = "is wrong" if given.strip() else "is missing"
            raise Unauthorized(
                f"the API key {problem}: send 'Authorization: Bearer <key>' with one of QUARRY_API_KEYS",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return found[0]


def host_name(host: str) -> str:
    """Take the port off a Host header."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")


def _limits(settings: Settings, key: str) -> frozenset[str] | None:
    for secret, collections in settings.key_collections.items():
        if secret.get_secret_value() == key:
            return frozenset(collections)
    return None


def _names(hosts: Iterable[str]) -> frozenset[str]:
    return frozenset(host_name(host) for host in hosts if host)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
