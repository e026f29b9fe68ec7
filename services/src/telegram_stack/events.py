"""The event contract: one schema for spool, broker, cache and API.

An event is what Telegram said about one message of one channel. Its key is
``(channel_id, message_id)``; ``version`` orders everything said about that key.
Nothing here depends on another module of the package.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

SCHEMA_VERSION = 1
"""Version of this schema. A reader refuses newer ones and still reads all older ones."""

Kind = Literal["new", "edit", "delete"]

MessageType = Literal["text", "photo", "video", "document", "voice", "audio", "sticker", "poll", "other"]
"""A text with a link preview is a text."""

_CONTENT_BITS = 19
_SECOND_SHIFT = _CONTENT_BITS + 1


class UnknownSchemaError(ValueError):
    """The body was written by a newer schema than this program knows."""


class Media(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is attached to a message; bytes are fetched on demand.

    ``size`` is in bytes, ``duration`` in seconds, ``width`` and ``height`` in pixels.
    ``access_hash`` is Telegram's, valid for the account that received the message.
    ``title`` is a poll's question or a piece of music's name, ``options`` are a poll's answers.
    """

    type: str
    id: int | None = None
    access_hash: int | None = None
    size: int | None = None
    mime_type: str | None = None
    file_name: str | None = None
    duration: float | None = None
    width: int | None = None
    height: int | None = None
    title: str | None = None
    options: tuple[str, ...] = ()


class Content(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a message shows: everything that an edit may change. Entities count in UTF-16 units, as Telegram does."""

    text: str = ""
    message_type: MessageType = "text"
    entities: tuple[dict[str, Any], ...] = ()
    media: Media | None = None
    link_preview: dict[str, Any] | None = None


class Event(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One message as it was at one version, or its deletion.

    ``channel_id`` is Telegram's marked id (``-100…``), ``message_id`` positive.
    ``message_date`` is Telegram's and never changes; a ``delete`` has none.
    ``received_at`` is the moment the update was read from the socket, ``version`` is made by `version_of`.
    All times are aware and in UTC.
    """

    schema_version: int = SCHEMA_VERSION
    kind: Kind
    channel_id: int
    message_id: int
    version: int
    received_at: datetime
    message_date: datetime | None = None
    edit_date: datetime | None = None
    content: Content | None = None
    sender_id: int | None = None
    reply_to: dict[str, Any] | None = None
    forward: dict[str, Any] | None = None
    grouped_id: int | None = None
    topic_id: int | None = None
    source: str = "user_client"

    @property
    def key(self) -> tuple[int, int]:
        """The key every store dedupes by, with `version`."""
        return (self.channel_id, self.message_id)


def version_of(content: Content, message_date: datetime, edit_date: datetime | None) -> int:
    """Order the states of one message: the edit's second, then whether it is an edit, then 19 bits of a content hash.

    Live updates and history give the same number for the same state, which pts would not (history carries none); so do
    several accounts, to each of which Telegram gives an access hash of its own.
    Two edits within one second differ by hash only: who receives them in their order uses `version_after`.
    """
    second = int((edit_date or message_date).timestamp())
    shown = content
    if content.media is not None and content.media.access_hash is not None:
        shown = msgspec.structs.replace(content, media=msgspec.structs.replace(content.media, access_hash=None))
    digest = hashlib.blake2b(msgspec.msgpack.encode(shown), digest_size=4).digest()
    content_bits = int.from_bytes(digest, "big") >> (32 - _CONTENT_BITS)
    return second << _SECOND_SHIFT | (edit_date is not None) << _CONTENT_BITS | content_bits


def version_after(version: int, previous: int) -> int:
    """`version`, moved behind `previous` when both are of the same second: what came later shows later."""
    if version > previous or version >> _SECOND_SHIFT != previous >> _SECOND_SHIFT:
        return version
    return previous + 1


def deletion(channel_id: int, message_id: int, received_at: datetime) -> Event:
    """A deletion. Its version is the second it was received at, above any edit that came before it."""
    version = (int(received_at.timestamp()) + 1) << _SECOND_SHIFT
    return Event(kind="delete", channel_id=channel_id, message_id=message_id, version=version, received_at=received_at)


def routing_key(event: Event) -> str:
    """The broker's routing key, ``telegram.channel.{id}``."""
    return f"telegram.channel.{event.channel_id}"


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)


class _Header(msgspec.Struct):
    schema_version: int = 1


_header_decoder = msgspec.json.Decoder(_Header)


def encode(event: Event) -> bytes:
    """The JSON body that spool, broker and cache hold."""
    return _encoder.encode(event)


def decode(body: bytes) -> Event:
    """Read a body written by `encode`.

    Raises UnknownSchemaError for a newer schema, msgspec.DecodeError for anything that is no event.
    """
    version = _header_decoder.decode(body).schema_version
    if version > SCHEMA_VERSION:
        raise UnknownSchemaError(f"event schema {version} is newer than {SCHEMA_VERSION}: upgrade this service")
    return _decoder.decode(body)


def utc_now() -> datetime:
    """The current time, aware, in UTC."""
    return datetime.now(UTC)
