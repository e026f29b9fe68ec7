"""What was given up, and asking for it again."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from telegram_stack.api.errors import FieldError, invalid
from telegram_stack.console.door import Page, Visit

SHOWN = 50


async def show(visit: Visit) -> dict[str, Any]:
    """The newest of a filter, or those behind a cursor."""
    reason, consumer, replayed = visit.query("reason"), visit.query("consumer"), visit.query("replayed") == "true"
    query = {"reason": reason, "consumer": consumer, "replayed": str(replayed).lower(), "limit": SHOWN}
    failures = await visit.part("GET", "/api/failures", query={**query, "cursor": visit.query("cursor")})
    filters = {"reason": reason, "consumer": consumer, "replayed": "true" if replayed else ""}
    filters = {name: value for name, value in filters.items() if value}
    following = failures.data.next_cursor if failures.data else None
    return {
        "failures": failures,
        "filters": {"reason": reason, "consumer": consumer, "replayed": replayed},
        "first": f"?{urlencode(filters)}",
        "older": f"?{urlencode({**filters, 'cursor': following})}" if following else None,
    }


async def act(visit: Visit) -> str:
    """Replay one, or all that fit the filter."""
    if visit.field("action") == "one":
        number = visit.field("id")
        if not (number.isascii() and number.isdecimal()):
            raise invalid([FieldError("id", "must be a failure's number")])
        wanted: dict[str, Any] = {"ids": [int(number)]}
    elif visit.field("action") == "all":
        wanted = {name: visit.field(name) for name in ("reason", "consumer") if visit.field(name)}
    else:
        raise invalid([FieldError("action", "is none of this page's")])
    done = (await visit.ask("POST", "/api/failures/replay", body=wanted)).data
    words = f"{_failures(done.replayed)} handed to the next poll of the consumer."
    if done.not_stored:
        words += (
            f" {_failures(done.not_stored)} of messages that are not stored: "
            "on the worker's host, telegram-signal-worker replay does them."
        )
    return words


def _failures(ids: list[str]) -> str:
    return f"{len(ids)} failure{'' if len(ids) == 1 else 's'}"


PAGE = Page(path="/console/failures", title="Failures", template="failures.html", show=show, act=act)
