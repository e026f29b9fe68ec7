"""What the simulated Telegram knows: accounts, keys, channels, messages and the changes to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

BOT = "bot"
"""Begins the phone of a bot's account."""

Kind = Literal["new", "edit", "delete", "preview"]
ChannelKind = Literal["channel", "group", "forum"]
MediaKind = Literal["video", "document", "voice", "audio", "sticker", "poll"]


class UnknownChannelError(LookupError):
    """There is no such channel."""


@dataclass(frozen=True, slots=True)
class Account:
    """A user, or a bot, whose phone is its token. ``verifier`` is SRP's, None without a second factor.

    Ids are Telegram's bare ones.
    """

    id: int
    phone: str
    salt1: bytes | None
    salt2: bytes | None
    verifier: bytes | None

    @property
    def bot(self) -> bool:
        """Whether it is a bot."""
        return self.phone.startswith(BOT)


@dataclass(frozen=True, slots=True)
class AuthKeyRecord:
    """A client's key. ``awaits_password``: the code was right, the second factor is missing."""

    id: bytes
    key: bytes
    account_id: int | None
    awaits_password: bool
    dead: bool


@dataclass(frozen=True, slots=True)
class LoginCode:
    """The last code sent to a phone; ``sent_at`` in seconds since 1970."""

    code: str
    hash: str
    sent_at: float


@dataclass(slots=True)
class Channel:
    """A broadcast channel, a supergroup or a forum (a supergroup with topics).

    ``shown`` counts its messages that are not deleted. Its id is bare, not marked.
    """

    id: int
    title: str
    username: str
    created_at: int
    pts: int
    last_message_id: int
    shown: int
    updated_at: int
    kind: ChannelKind = "channel"


class Details(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a message is beside its text and photo.

    ``grouped_id`` joins an album, ``topic_id`` and ``reply_to`` are message ids, ``forward`` is the name of who wrote
    it first. ``link`` is shown with a preview, or (``pending``) without one until it is made. ``topic`` makes it the
    service message that opens a topic.
    """

    media: MediaKind | None = None
    grouped_id: int | None = None
    topic_id: int | None = None
    reply_to: int | None = None
    forward: str | None = None
    link: str | None = None
    pending: bool = False
    topic: str | None = None


PLAIN = Details()


@dataclass(frozen=True, slots=True)
class Message:
    """A post as it is now; ``sent_at`` is the moment it was posted, Telegram's date is its whole second."""

    channel_id: int
    id: int
    sent_at: float
    text: str
    has_photo: bool
    edit_date: int | None = None
    edit_pts: int | None = None
    deleted: bool = False
    details: Details = PLAIN

    @property
    def date(self) -> int:
        """Telegram's date of the message."""
        return int(self.sent_at)


@dataclass(frozen=True, slots=True)
class Draft:
    """A message to be posted."""

    channel_id: int
    text: str
    has_photo: bool = False
    details: Details = PLAIN


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of a channel's update log; ``pts`` is the channel's after it, ``count`` what it added."""

    channel_id: int
    pts: int
    kind: Kind
    message_ids: tuple[int, ...]

    @property
    def count(self) -> int:
        """Its pts_count."""
        return len(self.message_ids)
