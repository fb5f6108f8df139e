"""Draw results.json as a plot: how many times as fast Quarry is as its peer, row by row."""

from __future__ import annotations

import json
import math
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_LABEL, _BARS, _END = 290, 480, 250  # pixels
_LINE, _TOP = 20, 54
_TICKS = (0.25, 0.5, 1, 2, 4, 8, 16)


def draw(results: Path, out: Path) -> int:
    """Write the rows that have a peer to `out` as SVG; return how many there are. Raises: OSError."""
    measured = json.loads(results.read_text())
    # Cosines are no speeds.
    rows = sorted((r for r in measured if r["ratio"] and r["unit"] != "least"), key=lambda r: r["name"])
    out.write_text(_svg([(r["name"], float(r["ratio"]), str(r["peer_name"])) for r in rows]), "utf-8")
    return len(rows)


def _svg(rows: Sequence[tuple[str, float, str]]) -> str:
    ticks = [tick for tick in _TICKS if tick <= 1 or tick <= 2 * max((r for _, r, _ in rows), default=1)]
    low, high = math.log2(ticks[0]), math.log2(ticks[-1])

    def x(ratio: float) -> float:
        share = (math.log2(max(ratio, ticks[0])) - low) / (high - low)
        return round(_LABEL + min(share, 1) * _BARS, 1)

    bottom = _TOP + _LINE * len(rows)
    width, height = _LABEL + _BARS + _END, bottom + 12
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-size="12">',
        "<style>text { font-family: system-ui, sans-serif }</style>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{_LABEL}" y="18" font-size="14">Times as fast as the peer at its best</text>',
    ]
    for tick in ticks:
        colour = "#444" if tick == 1 else "#ddd"
        lines.append(f'<path d="M{x(tick)} {_TOP - 8}V{bottom}" stroke="{colour}"/>')
        lines.append(f'<text x="{x(tick)}" y="{_TOP - 14}" text-anchor="middle" fill="#555">{tick:g}</text>')
    for i, (name, ratio, peer) in enumerate(rows):
        y = _TOP + _LINE * i
        left, right = sorted((x(1), x(ratio)))
        colour = "#2a78b5" if ratio >= 1 else "#c8553d"
        lines.append(f'<text x="{_LABEL - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>')
        lines.append(
            f'<rect x="{left}" y="{y + 3}" width="{round(right - left, 1)}" height="13" fill="{colour}"/>'
        )
        lines.append(
            f'<text x="{max(right, x(1)) + 6}" y="{y + 13}">{ratio:.2f} '
            f'<tspan fill="#777">{escape(peer)}</tspan></text>'
        )
    return "\n".join([*lines, "</svg>", ""])
