"""The TL objects that clients see, made from what the store holds. Complete: Telethon drops what it cannot parse."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from telethon.tl import types

from telegram_stack.simulator import contents, photos
from telegram_stack.simulator.model import Account, Change, Channel, Message
from telegram_stack.simulator.store import Store

DC_ID = 2
"""The only data centre there is; every address of it is the simulator's."""


def when(at: int) -> datetime:
    """A TL date."""
    return datetime.fromtimestamp(at, UTC)


def second(date: datetime | None) -> int:
    """The second of a TL date; clients send 1970 for "no date"."""
    return int(date.timestamp()) if date else 0


def access_hash(store: Store, account: Account, object_id: int) -> int:
    """The hash that proves that `account` has seen the object; another account has another one."""
    return store.hash_of(account.id, object_id)


def user(store: Store, account: Account) -> Any:
    """The account as it sees itself."""
    return types.User(
        id=account.id,
        is_self=True,
        contact=False,
        access_hash=access_hash(store, account, account.id),
        first_name="Conta",
        last_name=account.phone[-4:],
        phone=None if account.bot else account.phone,
        bot=account.bot,
        bot_info_version=1 if account.bot else None,
        status=types.UserStatusOffline(was_online=when(0)),
    )


def channel(store: Store, account: Account, record: Channel) -> Any:
    """A channel that the account is a member of."""
    return types.Channel(
        id=record.id,
        title=record.title,
        photo=types.ChatPhotoEmpty(),
        date=when(record.created_at),
        broadcast=record.kind == "channel",
        megagroup=record.kind != "channel",
        forum=record.kind == "forum",
        access_hash=access_hash(store, account, record.id),
        username=record.username,
    )


def message(record: Message) -> Any:
    """A post, or the service message that opens a topic. Its sender is its channel, so there is no from_id."""
    if record.details.topic is not None:
        return contents.service(record)
    return types.Message(
        id=record.id,
        peer_id=types.PeerChannel(record.channel_id),
        date=when(record.date),
        message="" if record.details.media == "poll" else record.text,
        post=True,
        views=1,
        forwards=0,
        media=types.MessageMediaPhoto(photo=photo(record)) if record.has_photo else contents.media(record),
        entities=contents.entities(record),
        reply_to=contents.reply(record),
        fwd_from=contents.forward(record),
        grouped_id=record.details.grouped_id,
        edit_date=when(record.edit_date) if record.edit_date else None,
    )


def photo(record: Message) -> Any:
    """The photo of a message, in one size."""
    number = photos.photo_id(record.channel_id, record.id)
    return types.Photo(
        id=number,
        access_hash=photo_hash(number),
        file_reference=b"\x00" + number.to_bytes(8, "big"),
        date=when(record.date),
        sizes=[types.PhotoSize(type="m", w=photos.WIDTH, h=photos.HEIGHT, size=len(photos.jpeg(number)))],
        dc_id=DC_ID,
    )


def photo_hash(number: int) -> int:
    """A photo's access hash."""
    return number ^ 0x5DEECE66D


def update(change: Change, messages: dict[int, Message]) -> Any | None:
    """An entry of the update log as a client gets it; None when a later change made it void."""
    if change.kind == "delete":
        return types.UpdateDeleteChannelMessages(
            channel_id=change.channel_id, messages=list(change.message_ids), pts=change.pts, pts_count=change.count
        )
    record = messages.get(change.message_ids[0])
    if record is None or (change.kind == "edit" and record.edit_pts != change.pts):
        return None
    if change.kind == "preview":
        page = contents.preview(record.details.link or "", pending=False)
        return types.UpdateChannelWebPage(
            channel_id=record.channel_id, webpage=page, pts=change.pts, pts_count=change.count
        )
    kind = types.UpdateNewChannelMessage if change.kind == "new" else types.UpdateEditChannelMessage
    return kind(message=message(record), pts=change.pts, pts_count=change.count)


def dialog(record: Channel, top: Message | None) -> Any:
    """A channel's line in the list of chats."""
    return types.Dialog(
        peer=types.PeerChannel(record.id),
        top_message=top.id if top else 0,
        read_inbox_max_id=0,
        read_outbox_max_id=0,
        unread_count=record.shown,
        unread_mentions_count=0,
        unread_reactions_count=0,
        unread_poll_votes_count=0,
        notify_settings=types.PeerNotifySettings(),
        pts=record.pts,
    )


def updates(found: Iterable[Any], chats: list[Any], now: int) -> Any:
    """Updates pushed to a client. Those of channels need no seq."""
    return types.Updates(updates=list(found), users=[], chats=chats, date=when(now), seq=0)


def config(address: str, port: int, now: int) -> Any:
    """What help.getConfig answers: every data centre is here."""
    options = [types.DcOption(id=number, ip_address=address, port=port) for number in range(1, 6)]
    return types.Config(
        date=when(now),
        expires=when(now + 3600),
        test_mode=False,
        this_dc=DC_ID,
        dc_options=options,
        dc_txt_domain_name="localhost",
        chat_size_max=200,
        megagroup_size_max=200000,
        forwarded_count_max=100,
        online_update_period_ms=210000,
        offline_blur_timeout_ms=5000,
        offline_idle_timeout_ms=30000,
        online_cloud_timeout_ms=300000,
        notify_cloud_delay_ms=30000,
        notify_default_delay_ms=1500,
        push_chat_period_ms=60000,
        push_chat_limit=2,
        edit_time_limit=172800,
        revoke_time_limit=2147483647,
        revoke_pm_time_limit=2147483647,
        rating_e_decay=2419200,
        stickers_recent_limit=200,
        channels_read_media_period=604800,
        call_receive_timeout_ms=20000,
        call_ring_timeout_ms=90000,
        call_connect_timeout_ms=30000,
        call_packet_timeout_ms=10000,
        me_url_prefix="https://t.me/",
        caption_length_max=1024,
        message_length_max=4096,
        webfile_dc_id=DC_ID,
    )
