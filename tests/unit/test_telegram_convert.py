"""Telegram's objects as events, made with Telethon's own classes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from telethon.tl import types

from telegram_stack import events
from telegram_stack.events import Event, Media
from telegram_stack.telegram.convert import marked, message_event, unmarked

DATE = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
NOW = datetime(2026, 5, 4, 12, 0, 1, tzinfo=UTC)
CHANNEL = 1500000001


def message(text: str = "olá", **fields: Any) -> Any:
    return types.Message(id=7, peer_id=types.PeerChannel(CHANNEL), date=DATE, message=text, **fields)


def converted(text: str = "olá", **fields: Any) -> Event:
    event = message_event(message(text, **fields), "new", NOW)
    assert event is not None
    assert events.decode(events.encode(event)) == event
    return event


def media_of(media: Any) -> tuple[str, Media | None]:
    content = converted(media=media).content
    assert content is not None
    return content.message_type, content.media


def document(*attributes: Any, mime_type: str = "application/pdf") -> Any:
    return types.MessageMediaDocument(
        document=types.Document(
            id=5,
            access_hash=6,
            file_reference=b"",
            date=DATE,
            mime_type=mime_type,
            size=1000,
            dc_id=2,
            attributes=list(attributes),
        )
    )


def test_marked_ids_are_those_of_telegram() -> None:
    assert marked(CHANNEL) == -1001500000001
    assert unmarked(marked(CHANNEL)) == CHANNEL


@pytest.mark.requirement("GW-04")
def test_a_text_with_entities() -> None:
    event = converted(
        "olá PETR4",
        entities=[
            types.MessageEntityBold(0, 3),
            types.MessageEntityTextUrl(4, 5, "https://example.org/"),
            types.MessageEntityCustomEmoji(0, 1, document_id=9),
        ],
    )
    assert (event.channel_id, event.message_id, event.message_date) == (-1001500000001, 7, DATE)
    assert event.content is not None
    assert event.content.message_type == "text"
    assert event.content.entities == (
        {"type": "bold", "offset": 0, "length": 3},
        {"type": "text_url", "offset": 4, "length": 5, "url": "https://example.org/"},
        {"type": "custom_emoji", "offset": 0, "length": 1, "document_id": 9},
    )


@pytest.mark.requirement("GW-04")
def test_an_edit_has_its_date_and_a_higher_version() -> None:
    edited = message_event(message("novo", edit_date=NOW), "edit", NOW)
    assert edited is not None
    assert edited.edit_date == NOW
    assert edited.version > converted().version


@pytest.mark.requirement("GW-04")
def test_sender_reply_forward_album_and_topic() -> None:
    event = converted(
        from_id=types.PeerUser(42),
        reply_to=types.MessageReplyHeader(reply_to_msg_id=3, forum_topic=True, reply_to_top_id=2, quote_text="q"),
        fwd_from=types.MessageFwdHeader(date=DATE, from_id=types.PeerChannel(9), channel_post=8, post_author="Ana"),
        grouped_id=99,
    )
    assert (event.sender_id, event.grouped_id, event.topic_id) == (42, 99, 2)
    assert event.reply_to == {"message_id": 3, "quote": "q"}
    assert event.forward is not None
    assert event.forward["from_id"] == marked(9)
    assert event.forward["message_id"] == 8


@pytest.mark.requirement("GW-04")
def test_what_stands_in_a_topic_is_no_answer_to_it() -> None:
    event = converted(reply_to=types.MessageReplyHeader(reply_to_msg_id=3, forum_topic=True))
    assert (event.topic_id, event.reply_to) == (3, None)
    event = converted(reply_to=types.MessageReplyHeader(reply_to_msg_id=9, reply_to_top_id=3, forum_topic=True))
    assert (event.topic_id, event.reply_to) == (3, {"message_id": 9})
    event = converted(reply_to=types.MessageReplyHeader(reply_to_msg_id=3))
    assert (event.topic_id, event.reply_to) == (None, {"message_id": 3})


@pytest.mark.requirement("GW-04")
def test_a_photo_is_described_by_its_largest_size() -> None:
    photo = types.Photo(
        id=5,
        access_hash=-6,
        file_reference=b"",
        date=DATE,
        dc_id=2,
        sizes=[
            types.PhotoStrippedSize("i", b""),
            types.PhotoSize("m", 320, 200, 9000),
            types.PhotoSizeProgressive("x", 800, 500, [1000, 50000]),
        ],
    )
    assert media_of(types.MessageMediaPhoto(photo=photo)) == (
        "photo",
        Media("photo", id=5, access_hash=-6, size=50000, mime_type="image/jpeg", width=800, height=500),
    )


@pytest.mark.requirement("GW-04")
@pytest.mark.parametrize(
    ("attributes", "kind", "expected"),
    [
        ([types.DocumentAttributeFilename("a.pdf")], "document", {"file_name": "a.pdf"}),
        ([types.DocumentAttributeVideo(2.5, 640, 480)], "video", {"duration": 2.5, "width": 640, "height": 480}),
        ([types.DocumentAttributeAudio(3, voice=True)], "voice", {"duration": 3.0}),
        (
            [types.DocumentAttributeAudio(3, title="Song", performer="Band")],
            "audio",
            {"duration": 3.0, "title": "Band - Song"},
        ),
        (
            [
                types.DocumentAttributeImageSize(512, 512),
                types.DocumentAttributeSticker("x", types.InputStickerSetEmpty()),
            ],
            "sticker",
            {"width": 512, "height": 512},
        ),
    ],
)
def test_documents_are_told_apart(attributes: list[Any], kind: str, expected: dict[str, Any]) -> None:
    assert media_of(document(*attributes)) == (
        kind,
        Media(kind, id=5, access_hash=6, size=1000, mime_type="application/pdf", **expected),
    )


@pytest.mark.requirement("GW-04")
def test_a_poll_has_its_question_and_options() -> None:
    def text(words: str) -> Any:
        return types.TextWithEntities(words, [])

    poll = types.Poll(
        id=5,
        hash=0,
        question=text("Sobe?"),
        answers=[types.PollAnswer(text("sim"), b"0"), types.PollAnswer(text("não"), b"1")],
    )
    found = media_of(types.MessageMediaPoll(poll=poll, results=types.PollResults()))
    assert found == ("poll", Media("poll", id=5, title="Sobe?", options=("sim", "não")))


@pytest.mark.requirement("GW-04")
def test_a_text_with_a_link_preview_is_a_text() -> None:
    page = types.WebPage(
        id=1, url="https://example.org/a", display_url="example.org", hash=0, title="A", type="article"
    )
    content = converted(media=types.MessageMediaWebPage(webpage=page)).content
    assert content is not None
    assert (content.message_type, content.media) == ("text", None)
    assert content.link_preview == {"url": "https://example.org/a", "type": "article", "title": "A"}
    pending = types.MessageMediaWebPage(webpage=types.WebPagePending(id=1, date=DATE))
    pending_content = converted(media=pending).content
    assert pending_content is not None
    assert pending_content.link_preview is None


def test_other_media_are_named() -> None:
    assert media_of(types.MessageMediaDice(value=3, emoticon="🎲")) == ("other", Media("dice"))
    assert media_of(types.MessageMediaPhoto()) == ("other", Media("photo"))  # expired


def test_what_is_no_message_of_a_channel_is_no_event() -> None:
    service = types.MessageService(
        id=7, peer_id=types.PeerChannel(CHANNEL), date=DATE, action=types.MessageActionEmpty()
    )
    private = types.Message(id=7, peer_id=types.PeerUser(1), date=DATE, message="x")
    for other in (service, private, types.MessageEmpty(id=7, peer_id=types.PeerChannel(CHANNEL))):
        assert message_event(other, "new", NOW) is None


def test_views_and_reactions_do_not_change_the_version() -> None:
    assert converted(views=5).version == converted(views=500).version
