"""The first page: is everything well, and if not, what to do."""

from __future__ import annotations

import asyncio
from typing import Any

from telegram_stack.api.config import ApiConfig
from telegram_stack.api.service import Report
from telegram_stack.console import components, migration, stages
from telegram_stack.console.door import Page, Visit
from telegram_stack.console.stages import Stages, chart

WIDTH, HEIGHT = 240.0, 40.0
_WORDS = {
    "healthy": "Everything is well",
    "degraded": "It works, with limits",
    "unhealthy": "The API cannot do its work",
}

_GIVEN_UP = "It works, but messages were given up"


class Overview:
    """Stages, components, what is stored, and how a migration is."""

    def __init__(self, config: ApiConfig, stages: Stages) -> None:
        self._config = config
        self._stages = stages
        self.page = Page(path="/", title="Overview", template="overview.html", show=self.show)

    async def show(self, visit: Visit) -> dict[str, Any]:
        """All of it as it is now."""
        found = await asyncio.gather(
            visit.ask("GET", "/health"),
            components.beside(self._config.components),
            visit.part("GET", "/api/telegram-gateway/messages/summary"),
        )
        report: Report = found[0]
        beside, store = found[1:]
        found_stages = self._stages.stages()
        rows = [*components.own(report), *beside]
        wrong = [row for row in rows if row.state in ("degraded", "unhealthy")]
        status = report.status if report.status != "healthy" or not wrong else "degraded"
        given_up = store.data.store.failures_waiting if store.data else 0
        return {
            "level": status,
            "verdict": _GIVEN_UP if given_up and status == "healthy" else _WORDS[status],
            "given_up": given_up,
            "wrong": wrong,
            "rows": rows,
            "stages": found_stages,
            "charts": {stage.name: chart(stage.points, WIDTH, HEIGHT) for stage in found_stages},
            "size": (WIDTH, HEIGHT),
            "every": max(1, round(stages.EVERY)),
            "span": (stages.KEPT - 1) * stages.EVERY,
            "store": store,
            "report": report,
            "migration": migration.progress(self._config.migration_file),
        }
