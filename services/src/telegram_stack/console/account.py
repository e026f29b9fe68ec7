"""The account at Telegram: whether it is logged in, and logging it in."""

from __future__ import annotations

import asyncio
from typing import Any

from telegram_stack.api.errors import FieldError, invalid
from telegram_stack.console.asking import Part
from telegram_stack.console.door import Page, Visit

_AUTH = "/api/telegram-gateway/auth"


async def show(visit: Visit) -> dict[str, Any]:
    """How session and log-in are."""
    session, login = await asyncio.gather(
        visit.part("GET", "/api/telegram-gateway/session"), visit.part("GET", f"{_AUTH}/status")
    )
    return {"session": session, "login": login, "seen": _seen(session, login)}


def same(visit: Visit, values: dict[str, Any]) -> bool:
    """Whether a page that asks again shows this already: then nothing disturbs who types."""
    return visit.query("seen") == str(values["seen"])


async def act(visit: Visit) -> str:
    """Begin, go on with, or end a log-in. What was typed in goes to the gateway and is not shown again."""
    action = visit.field("action")
    if action == "phone":
        await visit.ask("POST", f"{_AUTH}/start", body={"phone": visit.field("phone")})
        return "The log-in has begun."
    if action == "bot":
        await visit.ask("POST", f"{_AUTH}/start", body={"botToken": visit.field("bot")})
        return "The log-in has begun."
    if action == "input":
        # A password may begin or end with a space.
        await visit.ask("POST", f"{_AUTH}/input", body={"value": next(iter(visit.form.get("value", ())), "")})
        return "Handed to Telegram."
    if action == "cancel":
        await visit.ask("POST", f"{_AUTH}/cancel")
        return "The log-in is ended."
    raise invalid([FieldError("action", "is none of this page's")])


def _seen(session: Part, login: Part) -> str:
    """What the page shows, in short."""
    account = session.data.status if session.data else session.problem
    step = f"{login.data.status}: {login.data.message}" if login.data else login.problem
    return f"{account}, {step}"


PAGE = Page(path="/console/account", title="Account", template="account.html", show=show, act=act, same=same)
