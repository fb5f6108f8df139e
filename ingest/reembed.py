"""A changed embedder: embed the record's texts anew in its shadow; the caller switches afterwards."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ingest.chunker import chunk
from ingest.pipeline import EMBED_TEXTS, chunk_budget
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
    budget = chunk_budget(embedder)
    for document in record.documents():
        old = record.drafts(document.id)
        new = [part for draft in old for part in _recut(draft, embedder, budget)]
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


def _recut(draft: ChunkDraft, embedder: Embedder, budget: int) -> list[ChunkDraft]:
    n = embedder.count_tokens(draft.embedding_text)
    if n <= budget:
        return [dataclasses.replace(draft, n_tokens=n)]
    headings = [Element("Title", text, level=level) for level, text in enumerate(draft.heading_path)]
    parts = chunk(
        [*headings, Element("NarrativeText", draft.text, page=draft.page)],
        count_tokens=embedder.count_tokens,
        budget=budget,
    )
    # Offsets inside the part are not known any more: each keeps the place of the whole.
    return [dataclasses.replace(part, start=draft.start, end=draft.end) for part in parts]
