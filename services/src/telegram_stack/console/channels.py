"""The registry: what is taken, how far, and with what gaps."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from telegram_stack.api.dashboards import ChannelHealth
from telegram_stack.api.errors import FieldError, invalid
from telegram_stack.api.shapes import Channel
from telegram_stack.console.asking import Part
from telegram_stack.console.door import Page, Visit

_ONE = "/api/channels/{id}"
_SYNC = "/api/telegram-gateway/sync-messages"


@dataclass(frozen=True)
class Row:
    """A channel with its health; `gap` says why something may be missing, None where the gateway knows of nothing."""

    channel: Channel
    health: ChannelHealth | None
    gap: str | None

    @property
    def name(self) -> str:
        """What people call it."""
        given = self.channel.label or self.channel.title or self.channel.username
        return given or f"Channel {self.channel.channel_id}"


async def show(visit: Visit) -> dict[str, Any]:
    """The registry with what database and gateway say of each channel."""
    registry, health, recovery, sync = await asyncio.gather(
        visit.part("GET", "/api/channels"),
        visit.part("GET", "/api/channels/health"),
        visit.part("GET", "/api/telegram-gateway/recovery"),
        visit.part("GET", _SYNC),
    )
    known = {row.channel_id: row for row in health.data or ()}
    gaps = _gaps(recovery)
    rows = [
        Row(channel, known.get(channel.channel_id), gaps.get(channel.channel_id)) for channel in registry.data or ()
    ]
    rows.sort(key=lambda row: (row.gap is None, not row.channel.is_active, row.name.lower()))
    return {"registry": registry, "rows": rows, "recovery": recovery, "sync": sync}


async def act(visit: Visit) -> str:
    """Register, label, activate, deactivate, or read history again."""
    channel, action = visit.field("channel"), visit.field("action")
    within = {"id": channel}
    if action == "register":
        body = {"channelId": channel, "label": visit.field("label") or None}
        added = (await visit.ask("POST", "/api/channels", body=body)).data
        return f"Channel {added.channel_id} is registered; the gateway takes it within seconds."
    if action == "label":
        label = visit.field("label") or None
        await visit.ask("PUT", _ONE, within=within, body={"label": label})
        return f"Channel {channel} is now called {label}." if label else f"Channel {channel} has no label now."
    if action in ("activate", "deactivate"):
        await visit.ask("PUT", _ONE, within=within, body={"isActive": action == "activate"})
        if action == "activate":
            return f"Channel {channel} is active: what was missed is read from its history."
        return f"Channel {channel} is inactive: nothing of it is taken. What is stored stays."
    if action == "sync":
        await visit.ask("POST", _SYNC, body={"channels": [channel] if channel else []})
        return f"The history of {f'channel {channel}' if channel else 'all channels'} is being read again."
    raise invalid([FieldError("action", "is none of this page's")])


def _gaps(recovery: Part) -> dict[str, str]:
    """The channels of which something may be missing, and why."""
    if recovery.data is None:
        return {}
    being_read = dict.fromkeys(recovery.data.gaps, "what was missed is being read")
    unreadable = recovery.data.progress.get("unreadable", {})
    return being_read | {channel: f"the account cannot read it: {reason}" for channel, reason in unreadable.items()}


PAGE = Page(path="/console/channels", title="Channels", template="channels.html", show=show, act=act)
