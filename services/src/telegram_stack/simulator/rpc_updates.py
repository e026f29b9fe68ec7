"""The state of an account and what it missed: updates.* of the API.

Source: https://core.telegram.org/api/updates
"""

from __future__ import annotations

from typing import Any

from telethon.tl import functions, types

from telegram_stack.simulator import objects
from telegram_stack.simulator.rpc import Call, Handler, RpcError

_ACCOUNT_PTS = 1  # counts private chats, of which there are none


def get_state(call: Call, _request: Any) -> Any:
    """updates.getState."""
    assert call.account
    return _state(call)


def get_difference(call: Call, request: Any) -> Any:
    """updates.getDifference: for every channel that changed since, the word that its difference must be asked for."""
    account, store = call.account, call.server.store
    since = objects.second(request.date)
    changed = [c for c in store.channels.values() if c.last_message_id and c.updated_at >= since]
    changed = [c for c in changed if c.id not in call.server.faults.private]
    if not changed:
        return types.updates.DifferenceEmpty(date=objects.when(int(call.server.store.clock())), seq=0)
    return types.updates.Difference(
        new_messages=[],
        new_encrypted_messages=[],
        other_updates=[types.UpdateChannelTooLong(channel_id=c.id, pts=c.pts) for c in changed],
        chats=[objects.channel(store, account, c) for c in changed],
        users=[],
        state=_state(call),
    )


def get_channel_difference(call: Call, request: Any) -> Any:
    """updates.getChannelDifference: new messages as they are now, edits and deletes as updates."""
    account, server = call.account, call.server
    store = server.store
    channel = call.channel(request.channel)
    if request.pts <= 0:
        raise RpcError(400, "PERSISTENT_TIMESTAMP_EMPTY")
    if request.pts > channel.pts:
        raise RpcError(400, "PERSISTENT_TIMESTAMP_INVALID")
    if request.pts == channel.pts:
        return types.updates.ChannelDifferenceEmpty(pts=channel.pts, final=True, timeout=30)
    chats = [objects.channel(store, account, channel)]
    if channel.pts - request.pts > server.settings.difference_limit:
        latest = store.older(channel.id, 0, 0, 0, 10)
        return types.updates.ChannelDifferenceTooLong(
            dialog=objects.dialog(channel, latest[0] if latest else None),
            messages=[objects.message(m) for m in latest],
            chats=chats,
            users=[],
            final=True,
            timeout=30,
        )
    changes = store.changes(channel.id, request.pts, max(1, min(request.limit, 100_000 if account.bot else 100)))
    messages = store.messages(channel.id, sorted({i for c in changes if c.kind != "delete" for i in c.message_ids}))
    found = [u for u in (objects.update(change, messages) for change in changes) if u is not None]
    return types.updates.ChannelDifference(
        pts=changes[-1].pts,
        new_messages=[u.message for u in found if isinstance(u, types.UpdateNewChannelMessage)],
        other_updates=[u for u in found if not isinstance(u, types.UpdateNewChannelMessage)],
        chats=chats,
        users=[],
        final=changes[-1].pts == channel.pts,
        timeout=30,
    )


def _state(call: Call) -> Any:
    return types.updates.State(
        pts=_ACCOUNT_PTS, qts=0, date=objects.when(int(call.server.store.clock())), seq=0, unread_count=0
    )


HANDLERS: dict[type, Handler] = {
    functions.updates.GetStateRequest: get_state,
    functions.updates.GetDifferenceRequest: get_difference,
    functions.updates.GetChannelDifferenceRequest: get_channel_difference,
}
