"""A changed embedder: embed the record's texts anew in its shadow; the caller switches afterwards."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ingest.chunker import chunk
from ingest.pipeline import EMBED_TEXTS, TARGET_TOKENS, token_limit
from ingest.values import ChunkDraft, Element

if TYPE_CHECKING:
    import threading

    from ingest.embedder import Embedder
    from ingest.record import Record


def reembed(record: Record, embedder: Embedder, embedder_id: int, *, stopping: threading.Event) -> bool:
    """Store a vector of the new embedder for every visible chunk; False when stopped before the end.

    Chunks too long for the new tokenizer are cut again from their own text. A kill loses nothing: the next
    call goes on where this one ended.
    """
    limit = token_limit(embedder)
    for document in record.documents():
        old = record.drafts(document.id)
        new = [part for draft in old for part in _recut(draft, embedder, limit)]
        texts = {draft.text_hash: draft.embedding_text for draft in new}
        missing = record.missing_vectors(embedder_id, list(texts))
        todo = [text_hash for text_hash in texts if text_hash in missing]
        for start in range(0, len(todo), EMBED_TEXTS):
            if stopping.is_set():
                return False
            hashes = todo[start : start + EMBED_TEXTS]
            vectors = embedder.embed([texts[h] for h in hashes], kind="document")
            record.store_vectors(embedder_id, hashes, vectors)
        if new != old:
            record.recut(document.id, new)
    return True


def _recut(draft: ChunkDraft, embedder: Embedder, limit: int) -> list[ChunkDraft]:
    n = embedder.count_tokens(draft.embedding_text)
    if n <= limit:
        return [dataclasses.replace(draft, n_tokens=n)]
    headings = [Element("Title", text, level=level) for level, text in enumerate(draft.heading_path)]
    # Offsets inside the part are not known any more: each keeps the place of the whole.
    body = Element("NarrativeText", draft.text, page=draft.page, start=draft.start, end=draft.end)
    parts = chunk(
        [*headings, body],
        count_tokens=embedder.token_counter,
        budget=min(TARGET_TOKENS, limit),
        limit=limit,
    )
    return [dataclasses.replace(part, start=draft.start, end=draft.end, place=draft.place) for part in parts]
