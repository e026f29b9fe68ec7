"""Every component, how it is, and what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from telegram_stack.api.config import ComponentConfig
from telegram_stack.api.health import UnhealthyError, http_get
from telegram_stack.api.service import Report

_TIMEOUT = 2.0

# What the API's own health asks: a name for people, and what to do.
_OWN = {
    "database": (
        "Database, through PgBouncer",
        "systemctl status pgbouncer 'postgresql@*-telegram'",
        "the gateway keeps everything in its spool until the database is back; nothing is lost",
    ),
    "cache": (
        "Cache (Redis, found through Sentinel)",
        "systemctl status 'telegram-redis-*'",
        "everything works without it, only slower",
    ),
    "gateway": (
        "Telegram gateway",
        "journalctl -u telegram-gateway -n 100",
        "if the account is logged out, log in on the page Account; Telegram keeps what is posted meanwhile",
    ),
    "queue": (
        "Queue (RabbitMQ)",
        "systemctl status rabbitmq-server",
        "the gateway keeps what was not published and publishes it when the queue is back",
    ),
}


@dataclass(frozen=True)
class Row:
    """One component. `state` is healthy, degraded, unhealthy or absent; `command` and `hint` say what to do then."""

    name: str
    state: str
    reason: str = ""
    milliseconds: float | None = None
    command: str = ""
    hint: str = ""


def own(report: Report) -> list[Row]:
    """The API and what it stands on, from its health."""
    rows = [Row("API", "healthy", milliseconds=None)]
    for name, component in report.components.items():
        title, command, hint = _OWN.get(name, (name, "", ""))
        well = component.status == "healthy"
        rows.append(
            Row(
                title,
                component.status,
                component.reason or "",
                component.latency_ms,
                "" if well else command,
                "" if well else hint,
            )
        )
    return rows


async def beside(components: Sequence[ComponentConfig]) -> list[Row]:
    """What the API does not need itself, asked all at once; takes 2 s at most."""
    return list(await asyncio.gather(*map(_ask, components)))


async def _ask(component: ComponentConfig) -> Row:
    command = f"systemctl status {component.unit}" if component.unit else ""
    try:
        code, _ = await http_get(component.host, component.port, component.path, _TIMEOUT, tls=component.tls)
    except UnhealthyError as error:
        if not component.required:
            return Row(component.name, "absent", str(error), hint="not required: it may not be installed")
        return Row(component.name, "unhealthy", str(error), command=command, hint=component.hint)
    if code >= 400 and not (component.tls and code == 401):
        return Row(component.name, "unhealthy", f"answers {code}", command=command, hint=component.hint)
    return Row(component.name, "healthy")
