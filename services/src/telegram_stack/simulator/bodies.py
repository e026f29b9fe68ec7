"""What the control port takes."""

from __future__ import annotations

import msgspec

from telegram_stack.simulator.model import ChannelKind, MediaKind

DEFAULT_PHONE = "5511999990000"


class NewSession(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /sessions.

    ``address``: where clients reach the simulator, when not at the listening address. ``bot``: of a bot with the number
    instead of a person.
    """

    phone: str = DEFAULT_PHONE
    address: str | None = None
    bot: bool = False


class NewAccount(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /accounts: the second factor of a phone number; null removes it."""

    phone: str
    password: str | None = None


class NewChannels(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /channels."""

    title: str = "Canal"
    count: int = 1
    kind: ChannelKind = "channel"


class NewTopic(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /topics: a topic of a forum."""

    channel_id: int
    title: str


class NewMessages(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /messages. Without a channel they are dealt out to all, without a text each has its own.

    ``media`` is the kind of a file (or a poll, whose question is the text), ``album`` joins all of the count,
    ``topic`` and ``reply_to`` are message ids, ``forward`` names who wrote it, ``link`` is added and previewed,
    if ``pending`` only after POST /previews.
    """

    channel_id: int | None = None
    text: str | None = None
    count: int = 1
    photo: bool = False
    media: MediaKind | None = None
    album: bool = False
    topic: int | None = None
    reply_to: int | None = None
    forward: str | None = None
    link: str | None = None
    pending: bool = False


class NewHistory(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /history: a past for a channel without messages, over so many seconds.

    Ids begin above ``after_id``, as if what was below it had been deleted long ago.
    """

    channel_id: int
    count: int
    seconds: float
    after_id: int = 0


class Preview(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /previews: the message whose link's preview is made now."""

    channel_id: int
    message_id: int


class Edit(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /edits."""

    channel_id: int
    message_id: int
    text: str


class Deletion(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /deletes."""

    channel_id: int
    message_ids: list[int]


class NewLoad(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /load: for some seconds, for a count of messages, or until DELETE /load; over the first channels.

    After each so many messages one that was posted before is edited, or deleted; 0: none.
    """

    rate: float
    seconds: float | None = None
    count: int | None = None
    channels: int | None = None
    edit_every: int = 0
    delete_every: int = 0


class Disconnect(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /disconnect. New connections are refused for ``seconds``."""

    seconds: float = 0.0


class NewFaults(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Body of POST /faults, as in `Faults`; what is not given stays as it is.

    ``drift``: seconds by which the server's clock is ahead.
    ``floods``: seconds for which a method is answered with FLOOD_WAIT.
    ``private``: marked ids.
    """

    skip: int | None = None
    duplicate: int | None = None
    shuffle: int | None = None
    expire: int | None = None
    silent: bool | None = None
    delay: float | None = None
    drift: float | None = None
    floods: dict[str, float] | None = None
    private: list[int] | None = None
