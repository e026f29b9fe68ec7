"""What messages hold beside text and photo: files, polls, previews, replies, forwards.

Files but photos have no bytes behind them.
"""

from __future__ import annotations

import zlib
from datetime import UTC, datetime
from typing import Any

from telethon.tl import types

from telegram_stack.simulator.model import Message

_DOCUMENT_BIT = 1 << 62

_FILES: dict[str, tuple[str, int, list[Any]]] = {
    "video": (
        "video/mp4",
        2_500_000,
        [types.DocumentAttributeVideo(duration=12.5, w=1280, h=720), types.DocumentAttributeFilename("video.mp4")],
    ),
    "document": ("application/pdf", 81_920, [types.DocumentAttributeFilename("relatório.pdf")]),
    "voice": ("audio/ogg", 34_000, [types.DocumentAttributeAudio(duration=7, voice=True, waveform=b"\x11" * 8)]),
    "audio": (
        "audio/mpeg",
        3_100_000,
        [
            types.DocumentAttributeAudio(duration=183, title="Abertura", performer="Mercado"),
            types.DocumentAttributeFilename("abertura.mp3"),
        ],
    ),
    "sticker": (
        "image/webp",
        22_000,
        [
            types.DocumentAttributeImageSize(w=512, h=512),
            types.DocumentAttributeSticker(alt="📈", stickerset=types.InputStickerSetEmpty()),
        ],
    ),
}
"""By kind: MIME type, bytes, attributes."""


def media(record: Message) -> Any | None:
    """The media of a message without a photo; None when it has none."""
    details = record.details
    if details.media == "poll":
        return _poll(record)
    if details.media is not None:
        return types.MessageMediaDocument(
            document=_document(record, details.media),
            video=details.media == "video" or None,
            voice=details.media == "voice" or None,
        )
    return None if details.link is None else types.MessageMediaWebPage(webpage=preview(details.link, details.pending))


def entities(record: Message) -> list[Any] | None:
    """The link of a text, in UTF-16 units as Telegram counts."""
    link = record.details.link
    place = record.text.find(link) if link else -1
    if not link or place < 0:
        return None
    offset, length = (len(part.encode("utf-16-le")) // 2 for part in (record.text[:place], link))
    return [types.MessageEntityUrl(offset=offset, length=length)]


def reply(record: Message) -> Any | None:
    """The header that says what a message answers, and in which topic it stands."""
    details = record.details
    if details.topic_id is not None:
        answers = details.reply_to is not None
        return types.MessageReplyHeader(
            forum_topic=True,
            reply_to_msg_id=details.reply_to if answers else details.topic_id,
            reply_to_top_id=details.topic_id if answers else None,
        )
    return None if details.reply_to is None else types.MessageReplyHeader(reply_to_msg_id=details.reply_to)


def forward(record: Message) -> Any | None:
    """The header of a forwarded message, an hour older than itself."""
    name = record.details.forward
    date = datetime.fromtimestamp(record.date - 3600, UTC)
    return None if name is None else types.MessageFwdHeader(date=date, from_name=name)


def service(record: Message) -> Any:
    """The service message that opens a topic; its id is the topic's."""
    return types.MessageService(
        id=record.id,
        peer_id=types.PeerChannel(record.channel_id),
        date=datetime.fromtimestamp(record.date, UTC),
        action=types.MessageActionTopicCreate(title=record.details.topic or "", icon_color=0x6FB9F0),
        from_id=types.PeerChannel(record.channel_id),
    )


def _number(record: Message) -> int:
    return _DOCUMENT_BIT | record.channel_id << 24 | record.id


def _document(record: Message, kind: str) -> Any:
    mime_type, size, attributes = _FILES[kind]
    number = _number(record)
    return types.Document(
        id=number,
        access_hash=number ^ 0x5DEECE66D,
        file_reference=b"\x00" + number.to_bytes(8, "big"),
        date=datetime.fromtimestamp(record.date, UTC),
        mime_type=mime_type,
        size=size,
        dc_id=2,
        attributes=attributes,
    )


def _poll(record: Message) -> Any:
    def plain(text: str) -> Any:
        return types.TextWithEntities(text=text, entities=[])

    answers = [types.PollAnswer(text=plain(text), option=bytes([number])) for number, text in enumerate(("Sim", "Não"))]
    poll = types.Poll(id=_number(record), question=plain(record.text), answers=answers, hash=0)
    return types.MessageMediaPoll(poll=poll, results=types.PollResults())


def preview(link: str, pending: bool) -> Any:
    """The page behind a link, or the word that it is not known yet."""
    number = zlib.crc32(link.encode())
    if pending:
        return types.WebPagePending(id=number, date=datetime.fromtimestamp(0, UTC))
    return types.WebPage(
        id=number,
        url=link,
        display_url=link.partition("://")[2],
        hash=0,
        type="article",
        site_name="Jornal",
        title=f"Notícia de {link}",
        description="O que o mercado espera para amanhã.",
        author="Redação",
    )
