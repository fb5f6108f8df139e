"""Nearest chunks by comparing with every vector of the record: slow, and never unavailable."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ingest.values import Hit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ingest.index_feed import IndexFeed


def nearest(
    feed: IndexFeed,
    embedder_id: int,
    vector: NDArray[np.float32],
    *,
    limit: int,
    collection_ids: Sequence[int],
) -> list[Hit]:
    """Return the chunks nearest to a query vector [dimension], best first; score = cosine."""
    ids, cosines = np.empty(0, np.int64), np.empty(0, np.float32)
    for more, matrix in feed.vectors(embedder_id, collection_ids):
        ids, cosines = np.append(ids, more), np.append(cosines, matrix @ vector)
        if len(ids) > limit:
            best = np.argpartition(-cosines, limit - 1)[:limit]
            ids, cosines = ids[best], cosines[best]
    order = np.lexsort((ids, -cosines))
    return [Hit(int(ids[n]), float(cosines[n])) for n in order]
