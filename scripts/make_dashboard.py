"""Write deploy/grafana/quarry.json, the dashboard over the numbers that GET /metrics gives."""

import json
from pathlib import Path
from typing import Any

OUT = Path(__file__).parents[1] / "deploy" / "grafana" / "quarry.json"


def quantile(q: float, histogram: str, *, by: str = "le") -> str:
    """Ask for a quantile of the last five minutes."""
    return f"histogram_quantile({q}, sum by ({by}) (rate({histogram}_bucket[5m])))"


# Title, unit, and the lines: legend and query.
PANELS: list[tuple[str, str, dict[str, str]]] = [
    (
        "Answers running and waiting",
        "short",
        {
            "running": "quarry_requests_running",
            "waiting": "quarry_requests_waiting",
            "embeddings": "quarry_embeddings_waiting",
        },
    ),
    (
        "Time to the first token",
        "s",
        {
            "median": quantile(0.5, "quarry_time_to_first_token_seconds"),
            "p99": quantile(0.99, "quarry_time_to_first_token_seconds"),
        },
    ),
    (
        "Search, queue",
        "s",
        {
            "search p95": quantile(0.95, "quarry_search_seconds"),
            "queue p95": quantile(0.95, "quarry_queue_seconds"),
        },
    ),
    (
        "Tokens a second",
        "short",
        {
            "read": "rate(quarry_prompt_tokens_total[1m])",
            "written": "rate(quarry_completion_tokens_total[1m])",
        },
    ),
    (
        "KV cache in use",
        "percentunit",
        {
            "used": "quarry_kv_blocks_used / clamp_min(quarry_kv_blocks, 1)",
            "preemptions/s": "rate(quarry_preemptions_total[5m])",
        },
    ),
    (
        "Requests a second by status",
        "reqps",
        {"{{status}}": "sum by (status) (rate(quarry_requests_total[1m]))"},
    ),
    (
        "Errors a second by kind",
        "reqps",
        {"{{code}}": "sum by (code) (rate(quarry_failures_total[5m]))"},
    ),
    (
        "Requests by route, p95",
        "s",
        {"{{route}}": quantile(0.95, "quarry_request_seconds", by="le, route")},
    ),
    (
        "Documents",
        "short",
        {
            "searchable": "quarry_documents",
            "to be read": "quarry_ingest_backlog",
            "failed": "quarry_documents_failed",
        },
    ),
    ("Passages", "short", {"passages": "quarry_chunks"}),
]


def panel(number: int, title: str, unit: str, lines: dict[str, str]) -> dict[str, Any]:
    """Describe one panel; two stand side by side."""
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "datasource": {"type": "prometheus", "uid": "prometheus"},
        "gridPos": {"h": 8, "w": 12, "x": 12 * (number % 2), "y": 8 * (number // 2)},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + index), "legendFormat": legend, "expr": query}
            for index, (legend, query) in enumerate(lines.items())
        ],
    }


def dashboard() -> dict[str, Any]:
    """Describe the dashboard."""
    return {
        "uid": "quarry",
        "title": "Quarry",
        "schemaVersion": 41,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "panels": [panel(number, *described) for number, described in enumerate(PANELS)],
    }


if __name__ == "__main__":
    OUT.write_text(json.dumps(dashboard(), indent=1) + "\n")
