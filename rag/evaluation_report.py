"""Show runs of an evaluation side by side: a table for the terminal, and a plot."""

from collections.abc import Mapping, Sequence
from html import escape

from rich.table import Table

from rag.evaluation import Outcome, Summary, by_kind

_COLUMNS = ("found @1", "@5", "@10", "MRR", "answered", "false no", "true no")
_COLOURS = ("#2563eb", "#94a3b8", "#f59e0b", "#10b981", "#ef4444", "#8b5cf6")
_BAR, _GAP, _LEFT, _WIDTH = 14, 18, 170, 420


def table_of(runs: Mapping[str, Sequence[Outcome]]) -> Table:
    """Lay out the figures of each kind of question, one line a run."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("questions", "n", *(("run",) if len(runs) > 1 else ())):
        table.add_column(name, justify="right" if name == "n" else "left", no_wrap=True)
    for name in (*_COLUMNS, "ms"):
        table.add_column(name, justify="right", no_wrap=True)
    summaries = {label: by_kind(outcomes) for label, outcomes in runs.items()}
    for kind in _kinds(summaries):
        for i, (label, kinds) in enumerate(summaries.items()):
            if (summary := kinds.get(kind)) is not None:
                names = (kind if i == 0 else "", str(summary.n), *((label,) if len(runs) > 1 else ()))
                table.add_row(
                    *names, *map(_percent, _figures(summary)), f"{summary.median_seconds * 1e3:.0f}"
                )
    return table


def plot(runs: Mapping[str, Sequence[Outcome]]) -> str:
    """Draw recall@5 of each kind of question as bars, one colour a run; SVG."""
    summaries = {label: by_kind(outcomes) for label, outcomes in runs.items()}
    parts, y = [], 40
    for i, label in enumerate(summaries):
        parts.append(_text(_LEFT + i * 130 + 16, 18, label))
        parts.append(f'<rect x="{_LEFT + i * 130}" y="8" width="11" height="11" fill="{_colour(i)}"/>')
    for kind in _kinds(summaries):
        parts.append(_text(_LEFT - 10, y + _BAR * len(summaries) / 2 + 4, kind, anchor="end"))
        for i, kinds in enumerate(summaries.values()):
            summary = kinds.get(kind)
            value = summary.recall[1] if summary is not None else None
            if value is not None:
                width = value * _WIDTH
                parts.append(
                    f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR - 2}" fill="{_colour(i)}"/>'
                )
                parts.append(_text(_LEFT + width + 6, y + 10, f"{value:.0%}"))
            y += _BAR
        y += _GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 60}" height="{y}" '
        f'font-family="sans-serif" font-size="12"><title>recall@5</title>{"".join(parts)}</svg>\n'
    )


def _kinds(summaries: Mapping[str, Mapping[str, Summary]]) -> list[str]:
    found = dict.fromkeys(kind for kinds in summaries.values() for kind in kinds)
    return [*(kind for kind in found if kind != "all"), *(("all",) if "all" in found else ())]


def _figures(summary: Summary) -> tuple[float | None, ...]:
    return (
        *summary.recall,
        summary.mrr,
        summary.answered,
        summary.refused_wrongly,
        summary.refused_rightly,
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _colour(i: int) -> str:
    return _COLOURS[i % len(_COLOURS)]


def _text(x: float, y: float, text: str, *, anchor: str = "start") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="#475569">{escape(text)}</text>'
