"""The names that clients may ask for, and what each of them means."""

import hashlib
import re
from dataclasses import dataclass
from typing import Literal

from rag.errors import InvalidRequest, UnknownModel
from rag.ports import Engine, Library

ALL = "quarry"
# Clients change their behaviour on these: they send images, another API, or other parameters.
_MISLEADING = re.compile(r"vl|vision|o3|codex")
_FOREIGN = re.compile(r"^(?:gpt-|chatgpt-|o\d(?:-|$)|claude-|gemini-|deepseek-)", re.IGNORECASE)
_FOREIGN_EMBEDDING = re.compile(r"^text-embedding-", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Target:
    """What a request is for. `collections` None means all of them."""

    name: str
    kind: Literal["documents", "chat", "embedding"]
    collections: frozenset[str] | None = None

    @property
    def usual_temperature(self) -> float:
        """How boldly to draw where the client does not say: answers from documents stay close to them."""
        return 0.2 if self.kind == "documents" else 0.7


def slug(collection: str) -> str:
    """Give the stable ASCII name of a collection: itself where it is one, else with a hash of its name."""
    plain = re.sub(r"[^a-z0-9]+", "-", collection.lower()).strip("-")
    if _MISLEADING.search(plain):
        plain = ""
    if plain == collection:
        return plain
    return "-".join(part for part in (plain, hashlib.sha256(collection.encode()).hexdigest()[:8]) if part)


def targets(engine: Engine, library: Library, *, seen: frozenset[str] | None = None) -> list[Target]:
    """List what can be asked for now by whoever sees the collections `seen`; None sees all."""
    found = [Target(ALL, "documents", seen)]
    found += [
        Target(f"{ALL}-{slug(name)}", "documents", frozenset({name}))
        for name in sorted(library.collection_names())
        if seen is None or name in seen
    ]
    if engine.chat is not None:
        found.append(Target(engine.chat.name, "chat"))
    if engine.embedder is not None:
        found.append(Target(engine.embedder.name, "embedding"))
    return found


def resolve_chat(
    name: str,
    *,
    engine: Engine,
    library: Library,
    aliases: bool,
    seen: frozenset[str] | None = None,
) -> Target:
    """Find what answers to a name. Raises: UnknownModel; InvalidRequest for an embedding model."""
    known = {target.name: target for target in targets(engine, library, seen=seen)}
    target = known.get(name)
    if target is None and aliases and _FOREIGN.match(name):
        target = known[ALL]
    if target is None:
        raise _unknown(name, [t.name for t in known.values() if t.kind != "embedding"])
    if target.kind == "embedding":
        raise InvalidRequest(f"{name} is an embedding model: it cannot chat", param="model")
    return target


def resolve_embedding(name: str, *, engine: Engine) -> Target:
    """Find the embedder that a name means. Raises: UnknownModel."""
    embedder = engine.embedder
    if embedder is None:
        raise _unknown(name, [])
    if name != embedder.name and not _FOREIGN_EMBEDDING.match(name):
        raise _unknown(name, [embedder.name])
    return Target(embedder.name, "embedding")


def _unknown(name: str, known: list[str]) -> UnknownModel:
    there = f"; there are: {', '.join(known)}" if known else "; no such model is configured"
    return UnknownModel(f"model {name[:100]!r} does not exist here{there}", param="model")
