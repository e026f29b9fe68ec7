"""What the events of a real client hold: live, and the same from history."""

from __future__ import annotations

from typing import Any

import pytest
from tests.integration.gateways import ListSink, running
from tests.integration.servers import until

from telegram_stack.events import Event
from telegram_stack.simulator.model import Details, Draft, MediaKind
from telegram_stack.simulator.server import Server as Telegram
from telegram_stack.telegram.convert import marked
from telegram_stack.telegram.session import SessionFile

MEDIA: tuple[MediaKind, ...] = ("video", "document", "voice", "audio", "sticker", "poll")
LINK = "https://example.org/notícia"


def everything(telegram: Telegram) -> tuple[int, list[Draft]]:
    """A forum, and one message of every kind for it."""
    [forum] = telegram.store.add_channels("Fórum", 1, "forum")
    [topic] = telegram.post([Draft(forum.id, "", details=Details(topic="Opções"))])
    return forum.id, [
        *(Draft(forum.id, f"legenda {kind}", details=Details(media=kind)) for kind in MEDIA),
        *(Draft(forum.id, f"álbum {n}", True, Details(grouped_id=77)) for n in range(2)),
        Draft(forum.id, "no tópico", details=Details(topic_id=topic.id)),
        Draft(forum.id, "resposta", details=Details(topic_id=topic.id, reply_to=3)),
        Draft(forum.id, "encaminhada", details=Details(forward="Analista")),
        Draft(forum.id, f"📈 {LINK}", details=Details(link=LINK)),
    ]


def check(events: list[Event]) -> None:
    by_text: dict[str, Any] = {event.content.text: event for event in events if event.content is not None}
    assert {kind: by_text[f"legenda {kind}"].content.message_type for kind in MEDIA[:-1]} == {
        kind: kind for kind in MEDIA[:-1]
    }
    video, voice = by_text["legenda video"].content.media, by_text["legenda voice"].content.media
    assert (video.width, video.height, video.duration, video.mime_type) == (1280, 720, 12.5, "video/mp4")
    assert (voice.duration, voice.size) == (7.0, 34_000)
    assert by_text["legenda document"].content.media.file_name == "relatório.pdf"
    assert by_text["legenda audio"].content.media.title == "Mercado - Abertura"
    [poll] = [event.content for event in events if event.content and event.content.message_type == "poll"]
    assert poll.media is not None
    assert (poll.media.title, poll.media.options) == ("legenda poll", ("Sim", "Não"))
    assert [by_text[f"álbum {n}"].grouped_id for n in range(2)] == [77, 77]
    assert by_text["álbum 0"].content.media.type == "photo"
    topic = by_text["no tópico"].topic_id
    assert topic == 1
    assert by_text["no tópico"].reply_to is None
    assert (by_text["resposta"].topic_id, by_text["resposta"].reply_to) == (topic, {"message_id": 3})
    assert by_text["encaminhada"].forward["from_name"] == "Analista"
    linked = by_text[f"📈 {LINK}"].content
    assert linked.message_type == "text"
    assert linked.entities == ({"type": "url", "offset": 3, "length": len(LINK)},)
    assert (linked.link_preview["url"], linked.link_preview["site_name"]) == (LINK, "Jornal")


@pytest.mark.requirement("GW-04")
async def test_every_kind_of_message_live_and_from_history(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink]
) -> None:
    forum, drafts = everything(telegram)
    async with running(session, sinks) as gateway:
        await gateway.complete()
        telegram.post(drafts)
        await until(lambda: len(sinks[0].entries) == len(drafts))
        assert gateway.reception.misunderstood == 0
    check([entry.event for entry in sinks[0].entries])
    other = [ListSink("database")]
    async with running(session, other, folder="other") as gateway:
        await gateway.complete()
    check([entry.event for entry in other[0].entries])
    versions = {entry.event.key: entry.event.version for entry in sinks[0].entries}
    assert versions == {entry.event.key: entry.event.version for entry in other[0].entries}
    assert all(entry.event.channel_id == marked(forum) for entry in other[0].entries)


@pytest.mark.requirement("GW-14")
@pytest.mark.parametrize("missed", [False, True])
async def test_a_preview_that_comes_later_is_an_edit(
    telegram: Telegram, session: SessionFile, sinks: list[ListSink], missed: bool
) -> None:
    channel = next(iter(telegram.store.channels))
    async with running(session, sinks) as gateway:
        await gateway.complete()
        [posted] = telegram.post([Draft(channel, LINK, details=Details(link=LINK, pending=True))])
        await until(lambda: len(sinks[0].entries) == 1)
        telegram.faults.skip = int(missed)
        assert telegram.reveal(channel, posted.id)
        telegram.post([Draft(channel, "outra")])
        await until(lambda: len(sinks[0].entries) == 3)
        await gateway.complete()
    first, last = sorted(
        (entry.event for entry in sinks[0].entries if entry.event.message_id == posted.id), key=lambda e: e.version
    )
    assert first.content is not None
    assert first.content.link_preview is None
    assert (last.kind, last.content is not None) == ("edit", True)
    assert last.content is not None
    assert last.content.link_preview is not None
    assert last.content.link_preview["title"] == f"Notícia de {LINK}"
