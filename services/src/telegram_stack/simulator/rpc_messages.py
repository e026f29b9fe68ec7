"""Users, channels, dialogs, history and files."""

from __future__ import annotations

from typing import Any

from telethon.tl import functions, types

from telegram_stack.simulator import objects, photos
from telegram_stack.simulator.model import Channel, Message
from telegram_stack.simulator.rpc import Call, Handler, RpcError

_PAGE = 100  # Telegram gives no more dialogs or messages at once


def get_users(call: Call, request: Any) -> list[Any]:
    """users.getUsers: there is nobody but the account itself."""
    account = call.account
    own = [
        u
        for u in request.id
        if isinstance(u, types.InputUserSelf) or (isinstance(u, types.InputUser) and u.user_id == account.id)
    ]
    return [objects.user(call.server.store, account) for _ in own]


def get_dialogs(call: Call, request: Any) -> Any:
    """messages.getDialogs: every channel, the latest spoken in first."""
    call.people_only()
    account, store = call.account, call.server.store
    readable = [c for c in store.channels.values() if c.id not in call.server.faults.private]
    tops = [(channel, store.newest(channel.id)) for channel in readable]
    tops.sort(key=_dialog_order, reverse=True)
    total = len(tops)
    since = objects.second(request.offset_date)
    if since or request.offset_id:
        below = (since, request.offset_id, getattr(request.offset_peer, "channel_id", 0))
        tops = [top for top in tops if _dialog_order(top) < below]
    page = tops[: max(0, min(request.limit, _PAGE))]
    content = {
        "dialogs": [objects.dialog(channel, top) for channel, top in page],
        "messages": [objects.message(top) for _, top in page if top],
        "chats": [objects.channel(store, account, channel) for channel, _ in page],
        "users": [],
    }
    if len(page) == total:
        return types.messages.Dialogs(**content)
    return types.messages.DialogsSlice(count=total, **content)


def _dialog_order(top: tuple[Channel, Message | None]) -> tuple[int, int, int]:
    channel, message = top
    return (message.date, message.id, channel.id) if message else (0, 0, channel.id)


def get_peer_dialogs(call: Call, request: Any) -> Any:
    """messages.getPeerDialogs."""
    account, store = call.account, call.server.store
    found = [call.channel(peer.peer) for peer in request.peers]
    tops = [(channel, store.newest(channel.id)) for channel in found]
    state = types.updates.State(pts=1, qts=0, date=objects.when(0), seq=0, unread_count=0)
    return types.messages.PeerDialogs(
        dialogs=[objects.dialog(channel, top) for channel, top in tops],
        messages=[objects.message(top) for _, top in tops if top],
        chats=[objects.channel(store, account, channel) for channel in found],
        users=[],
        state=state,
    )


def get_channels(call: Call, request: Any) -> Any:
    """channels.getChannels."""
    found = [call.channel(peer) for peer in request.id]
    return types.messages.Chats(chats=[objects.channel(call.server.store, call.account, c) for c in found])


def get_full_channel(call: Call, request: Any) -> Any:
    """channels.getFullChannel."""
    account, store = call.account, call.server.store
    channel = call.channel(request.channel)
    full = types.ChannelFull(
        id=channel.id,
        about="",
        read_inbox_max_id=0,
        read_outbox_max_id=0,
        unread_count=channel.shown,
        chat_photo=types.PhotoEmpty(id=0),
        notify_settings=types.PeerNotifySettings(),
        bot_info=[],
        pts=channel.pts,
    )
    return types.messages.ChatFull(full_chat=full, chats=[objects.channel(store, account, channel)], users=[])


def resolve_username(call: Call, request: Any) -> Any:
    """contacts.resolveUsername."""
    account, store = call.account, call.server.store
    name = request.username.lower()
    channel = next((c for c in store.channels.values() if c.username == name), None)
    if channel is None:
        raise RpcError(400, "USERNAME_NOT_OCCUPIED")
    return types.contacts.ResolvedPeer(
        peer=types.PeerChannel(channel.id), chats=[objects.channel(store, account, channel)], users=[]
    )


def get_history(call: Call, request: Any) -> Any:
    """messages.getHistory, with Telegram's offsets: see https://core.telegram.org/api/offsets."""
    call.people_only()
    store = call.server.store
    channel = call.channel(request.peer)
    call.server.history_limit.take(call.account.id)
    limit = max(0, min(request.limit, _PAGE))
    wanted_newer = max(0, -request.add_offset)
    found: list[Message] = []
    if wanted_newer and request.offset_id:
        newer = store.newer(channel.id, request.offset_id, wanted_newer)
        found = newer[::-1][: max(0, limit - (wanted_newer - len(newer)))]
    before = 0 if request.offset_id else objects.second(request.offset_date)
    room = limit - max(wanted_newer, len(found))
    if room > 0:
        found += store.older(channel.id, request.offset_id, before, max(0, request.add_offset), room)
    found = [m for m in found if m.id > request.min_id and (not request.max_id or m.id < request.max_id)]
    return _channel_messages(call, channel, [objects.message(m) for m in found], channel.shown)


def get_messages(call: Call, request: Any) -> Any:
    """channels.getMessages."""
    channel = call.channel(request.channel)
    wanted = [getattr(given, "id", 0) for given in request.id]
    known = call.server.store.messages(channel.id, wanted)
    found = [objects.message(known[i]) if i in known else types.MessageEmpty(id=i, peer_id=None) for i in wanted]
    return _channel_messages(call, channel, found, len(found))


def _channel_messages(call: Call, channel: Channel, messages: list[Any], count: int) -> Any:
    return types.messages.ChannelMessages(
        pts=channel.pts,
        count=count,
        messages=messages,
        topics=[],
        chats=[objects.channel(call.server.store, call.account, channel)],
        users=[],
    )


def get_file(call: Call, request: Any) -> Any:
    """upload.getFile: photos of messages that are shown."""
    assert call.account
    place = request.location
    if not isinstance(place, types.InputPhotoFileLocation):
        raise RpcError(400, "LOCATION_INVALID")
    faults = call.server.faults
    if faults.expire:
        faults.expire -= 1
        raise RpcError(400, "FILE_REFERENCE_EXPIRED")
    message_id, channel_id = place.id & 0xFFFFFF, place.id >> 24
    record = call.server.store.messages(channel_id, [message_id]).get(message_id)
    if record is None or not record.has_photo or place.access_hash != objects.photo_hash(place.id):
        raise RpcError(400, "FILE_ID_INVALID")
    data = photos.jpeg(place.id)[request.offset : request.offset + request.limit]
    return types.upload.File(type=types.storage.FileJpeg(), mtime=record.date, bytes=data)


HANDLERS: dict[type, Handler] = {
    functions.users.GetUsersRequest: get_users,
    functions.messages.GetDialogsRequest: get_dialogs,
    functions.messages.GetPeerDialogsRequest: get_peer_dialogs,
    functions.channels.GetChannelsRequest: get_channels,
    functions.channels.GetFullChannelRequest: get_full_channel,
    functions.contacts.ResolveUsernameRequest: resolve_username,
    functions.messages.GetHistoryRequest: get_history,
    functions.channels.GetMessagesRequest: get_messages,
    functions.upload.GetFileRequest: get_file,
}
