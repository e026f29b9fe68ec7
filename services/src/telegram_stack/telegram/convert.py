"""Telegram's updates as events. Pure: a TL object in, an event out.

Only channels and supergroups are taken. Service messages (a pin, a new title) and the empty shells that history
returns for deleted messages are no events.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from telethon.tl import types

from telegram_stack.events import Content, Event, Kind, Media, MessageType, version_of

_MARK = 10**12
_WORD = re.compile(r"(?<!^)(?=[A-Z])")


def marked(channel_id: int) -> int:
    """Telegram's marked id of a channel, ``-100…``."""
    return -(_MARK + channel_id)


def unmarked(channel_id: int) -> int:
    """The bare id behind a marked one."""
    return -channel_id - _MARK


def message_event(message: Any, kind: Kind, received_at: datetime, source: str = "user_client") -> Event | None:
    """The event of a TL message; None for what is none, or of no channel."""
    if not isinstance(message, types.Message) or not isinstance(message.peer_id, types.PeerChannel):
        return None
    content = content_of(message)
    return Event(
        kind=kind,
        channel_id=marked(message.peer_id.channel_id),
        message_id=message.id,
        version=version_of(content, message.date, message.edit_date),
        received_at=received_at,
        message_date=message.date,
        edit_date=message.edit_date,
        content=content,
        sender_id=peer_id(message.from_id),
        reply_to=_reply(message.reply_to),
        forward=_forward(message.fwd_from),
        grouped_id=message.grouped_id,
        topic_id=_topic(message.reply_to),
        source=source,
    )


def content_of(message: types.Message) -> Content:
    """What the message shows."""
    message_type, media = _media(message.media)
    return Content(
        text=message.message or "",
        message_type=message_type,
        entities=tuple(_entity(entity) for entity in message.entities or ()),
        media=media,
        link_preview=_link_preview(message.media),
    )


def peer_id(peer: Any) -> int | None:
    """A peer's id, a channel's marked, a group's negative."""
    match peer:
        case types.PeerUser():
            return int(peer.user_id)
        case types.PeerChat():
            return -int(peer.chat_id)
        case types.PeerChannel():
            return marked(peer.channel_id)
    return None


def _entity(entity: Any) -> dict[str, Any]:
    name = type(entity).__name__.removeprefix("MessageEntity")
    fields = {key: value for key, value in vars(entity).items() if isinstance(value, int | str)}
    return {"type": _WORD.sub("_", name).lower(), **fields}


def _reply(header: Any) -> dict[str, Any] | None:
    if not isinstance(header, types.MessageReplyHeader) or header.reply_to_msg_id is None:
        return None
    if header.forum_topic and header.reply_to_top_id is None:
        return None  # stands in the topic and answers nobody
    return _known(
        message_id=header.reply_to_msg_id,
        channel_id=peer_id(header.reply_to_peer_id),
        quote=header.quote_text,
    )


def _topic(header: Any) -> int | None:
    if not isinstance(header, types.MessageReplyHeader) or not header.forum_topic:
        return None
    topic: int | None = header.reply_to_top_id or header.reply_to_msg_id
    return topic


def _forward(header: Any) -> dict[str, Any] | None:
    if not isinstance(header, types.MessageFwdHeader):
        return None
    return _known(
        from_id=peer_id(header.from_id),
        from_name=header.from_name,
        message_id=header.channel_post,
        author=header.post_author,
        date=header.date.isoformat() if header.date else None,
    )


def _link_preview(media: Any) -> dict[str, Any] | None:
    if not isinstance(media, types.MessageMediaWebPage) or not isinstance(media.webpage, types.WebPage):
        return None
    page = media.webpage
    return _known(
        url=page.url,
        type=page.type,
        site_name=page.site_name,
        title=page.title,
        description=page.description,
        author=page.author,
        photo_id=page.photo.id if isinstance(page.photo, types.Photo) else None,
    )


def _media(media: Any) -> tuple[MessageType, Media | None]:
    match media:
        case None | types.MessageMediaEmpty() | types.MessageMediaWebPage():
            return "text", None
        case types.MessageMediaPhoto(photo=types.Photo() as photo):
            return "photo", _photo(photo)
        case types.MessageMediaDocument(document=types.Document() as document):
            return _document(document)
        case types.MessageMediaPoll(poll=poll):
            question, options = poll.question.text, tuple(answer.text.text for answer in poll.answers)
            return "poll", Media(type="poll", id=poll.id, title=question, options=options)
    name = type(media).__name__.removeprefix("MessageMedia")
    return "other", Media(type=_WORD.sub("_", name).lower())


def _photo(photo: types.Photo) -> Media:
    sizes = [
        (
            size.w * size.h,
            size.w,
            size.h,
            max(size.sizes) if isinstance(size, types.PhotoSizeProgressive) else size.size,
        )
        for size in photo.sizes
        if isinstance(size, types.PhotoSize | types.PhotoSizeProgressive)
    ]
    _, width, height, size = max(sizes, default=(0, None, None, None))
    return Media(
        type="photo",
        id=photo.id,
        access_hash=photo.access_hash,
        size=size,
        mime_type="image/jpeg",
        width=width,
        height=height,
    )


def _document(document: types.Document) -> tuple[MessageType, Media]:
    kind: MessageType = "document"
    name = duration = width = height = title = None
    for attribute in document.attributes:
        match attribute:
            case types.DocumentAttributeFilename():
                name = attribute.file_name
            case types.DocumentAttributeSticker():
                kind = "sticker"
            case types.DocumentAttributeVideo():
                kind = "video" if kind == "document" else kind  # a video sticker stays a sticker
                duration, width, height = float(attribute.duration), attribute.w, attribute.h
            case types.DocumentAttributeAudio():
                kind = "voice" if attribute.voice else "audio"
                duration = float(attribute.duration)
                title = " - ".join(part for part in (attribute.performer, attribute.title) if part) or None
            case types.DocumentAttributeImageSize():
                width, height = attribute.w, attribute.h
    return kind, Media(
        type=kind,
        id=document.id,
        access_hash=document.access_hash,
        size=document.size,
        mime_type=document.mime_type,
        file_name=name,
        duration=duration,
        width=width,
        height=height,
        title=title,
    )


def _known(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
