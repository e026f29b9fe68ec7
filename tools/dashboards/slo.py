"""Objectives: what went wrong, how fast the budget goes, how much is left."""

from __future__ import annotations

from tools.dashboards.page import Limit, Page, Query, Row, lines, percentiles, stat

_STATE = Row(
    "Last 30 days",
    [
        stat("Objectives", "What is promised.", "percentunit", Query("slo:objective:ratio", "{{slo}}"), width=8),
        stat("Kept", "What was kept.", "percentunit", Query("1 - slo:errors:ratio_30d", "{{slo}}"), width=8),
        stat(
            "Budget left",
            "Share of what may go wrong in 30 days. Below 0 the objective is missed.",
            "percentunit",
            Query("1 - slo:burn:rate_30d", "{{slo}}"),
            width=8,
        ),
    ],
)

_BURN = Row(
    "How fast the budget goes: 1 is exactly as fast as the objective allows",
    [
        lines(
            "1 hour and 5 minutes",
            "The alert fires when both are above the line.",
            "short",
            Query("slo:burn:rate_1h", "1h {{slo}}"),
            Query("slo:burn:rate_5m", "5m {{slo}}"),
            limit=Limit("ErrorBudgetBurnsFast", 14.4),
            width=6,
        ),
        lines(
            "6 hours and 30 minutes",
            "The alert fires when both are above the line.",
            "short",
            Query("slo:burn:rate_6h", "6h {{slo}}"),
            Query("slo:burn:rate_30m", "30m {{slo}}"),
            limit=Limit("ErrorBudgetBurnsFast", 6),
            width=6,
        ),
        lines(
            "1 day and 2 hours",
            "The alert fires when both are above the line.",
            "short",
            Query("slo:burn:rate_1d", "1d {{slo}}"),
            Query("slo:burn:rate_2h", "2h {{slo}}"),
            limit=Limit("ErrorBudgetBurns", 3),
            width=6,
        ),
        lines(
            "3 days and 6 hours",
            "The alert fires when both are above the line.",
            "short",
            Query("slo:burn:rate_3d", "3d {{slo}}"),
            Query("slo:burn:rate_6h", "6h {{slo}}"),
            limit=Limit("ErrorBudgetBurns", 1),
            width=6,
        ),
    ],
)

_BEHIND = Row(
    "What is behind it",
    [
        lines(
            "Went wrong in the last 5 minutes",
            "Share of time (gateway), requests (API) and messages (delivery).",
            "percentunit",
            Query("slo:errors:ratio_5m", "{{slo}}"),
        ),
        lines(
            "From receipt to effect",
            "The objective: within [[ monitoring_slo_latency_seconds ]] s.",
            "s",
            *percentiles("telegram_worker_latency_seconds"),
        ),
        lines(
            "Gateway available",
            "Up, and connected to Telegram.",
            "bool",
            Query("slo:gateway_available:bool", "available"),
        ),
    ],
)

PAGE = Page(
    name="slo",
    title="Telegram: objectives",
    text="What is promised, what was kept, and how fast the error budget goes.",
    rows=[_STATE, _BURN, _BEHIND],
    since="now-7d",
)
