"""Show the rows as a table and keep them as results.json."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.turns import Row


def table_of(rows: Sequence[Row]) -> Table:
    """Lay the rows out; a ratio over 1 means that ours is better."""
    table = Table(title="Quarry and its peers, medians (ratio > 1: Quarry is better)")
    for name in ("work", "ours", "peer", "unit", "ratio", "of limit", "peer's best setting"):
        table.add_column(
            name,
            no_wrap=name == "work",
            justify="left" if name in {"work", "unit", "peer's best setting"} else "right",
        )
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        share = "" if row.share_of_limit is None else f"{row.share_of_limit:.0%}"
        table.add_row(
            row.name, number(row.ours), number(row.peer), row.unit, ratio, share, row.peer_name or "no peer"
        )
    return table


def line_of(row: Row) -> str:
    """Tell a row in one line, for the time until the table is there."""
    line = f"{row.name}: {number(row.ours)} {row.unit}"
    if row.share_of_limit is not None:
        line += f", {row.share_of_limit:.0%} of the limit"
    if row.ratio is not None:
        line += f"; {row.ratio:.2f} times {number(row.peer)} of {row.peer_name}"
    return line


def number(value: float | None) -> str:
    """Write a number with three significant digits or whole."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def save(path: Path, rows: Sequence[Row]) -> None:
    """Write results.json: rows measured now replace those of the same name, the others stay."""
    kept: dict[str, Mapping[str, object]] = {}
    if path.exists():
        kept = {row["name"]: row for row in json.loads(path.read_text())}
    kept |= {row.name: row.as_json() for row in rows}
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(list(kept.values()), indent=1) + "\n")
    unfinished.replace(path)
