"""The simulator's control port, and the load that it makes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from telethon import events
from tests.unit.simulators import Telegram, until

from telegram_stack.simulator import texts


async def test_the_control_port_tells_what_telegram_shows(telegram: Telegram) -> None:
    async def call(method: str, path: str, body: Any = None) -> Any:
        answer = await telegram.control.request(method, path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    made = (await call("POST", "/channels", {"title": "Sinais", "count": 3}))["channels"]
    assert [c["title"] for c in made] == ["Sinais 1", "Sinais 2", "Sinais 3"]
    posted = (await call("POST", "/messages", {"count": 30}))["messages"]
    assert {m["channel_id"] for m in posted} == {c["id"] for c in made}
    chosen = made[1]["id"]
    [single] = (await call("POST", "/messages", {"channel_id": chosen, "text": "olá", "photo": True}))["messages"]
    assert (single["channel_id"], single["text"], single["photo"]) == (chosen, "olá", True)
    await call("POST", "/edits", {"channel_id": chosen, "message_id": 2, "text": "outro"})
    assert (await call("POST", "/deletes", {"channel_id": chosen, "message_ids": [1, 77]}))["message_ids"] == [1]
    shown = (await call("GET", f"/messages?channel={chosen}&text=true"))["messages"]
    assert [m["message_id"] for m in shown] == list(range(2, 12))
    assert shown[0]["text"] == "outro"
    assert shown[0]["edit_date"] >= shown[0]["date"]
    assert len((await call("GET", "/messages"))["messages"]) == 30
    deleted = (await call("GET", "/messages?deleted=true"))["messages"]
    assert [(m["channel_id"], m["message_id"]) for m in deleted] == [(chosen, 1)]
    assert (await call("GET", "/health"))["messages_posted"] == 31


@pytest.mark.parametrize(
    ("method", "path", "body", "refusal"),
    [
        ("POST", "/messages", {"cont": 1}, (422, "unknown field `cont`")),
        ("POST", "/messages", {"channel_id": 5}, (422, "5 is no marked channel id")),
        ("POST", "/messages", {"channel_id": -1009999999999}, (404, "there is no channel 9999999999")),
        ("POST", "/messages", {}, (409, "there is no channel: make some")),
        ("POST", "/load", {"rate": 5}, (409, "there is no channel: make some")),
        ("POST", "/load", {"rate": 0}, (422, "rate must be above 0")),
        ("POST", "/load", {"rate": 5, "seconds": 1, "count": 1}, (422, "not both")),
        ("POST", "/sessions", {"address": "localhost"}, (422, "must be an IP address")),
        ("POST", "/sessions", {"address": "::"}, (422, "say in address")),
        ("GET", "/codes/5511999990001", None, (404, "no code is waiting")),
    ],
)
async def test_the_control_port_says_what_is_wrong(
    telegram: Telegram, method: str, path: str, body: Any, refusal: tuple[int, str]
) -> None:
    answer = await telegram.control.request(method, path, json=body)
    assert answer.status_code == refusal[0]
    assert refusal[1] in answer.json()["error"]


async def test_load_sends_at_its_rate_what_it_says(telegram: Telegram) -> None:
    telegram.store.add_channels("Canal", 4)
    seen: list[tuple[int, int]] = []

    async def note(event: Any) -> None:
        seen.append((event.chat_id, event.id))

    async def progress() -> Any:
        return (await telegram.control.get("/load")).json()

    async with telegram.client() as client:
        client.add_event_handler(note, events.NewMessage)
        started = await telegram.control.post("/load", json={"rate": 300, "seconds": 1, "channels": 3})
        assert started.json()["count"] == 300
        assert (await telegram.control.post("/load", json={"rate": 1})).status_code == 409
        async with asyncio.timeout(10):
            while (state := await progress())["running"]:
                await asyncio.sleep(0.05)
        await until(lambda: len(seen) >= 300)
    shown = [(m["channel_id"], m["message_id"]) for m in (await telegram.control.get("/messages")).json()["messages"]]
    assert state["sent"] == 300
    assert 0.9 <= state["seconds"] <= 3
    assert sorted(seen) == sorted(shown)
    assert len({channel for channel, _ in shown}) == 3


async def test_load_without_end_is_ended(telegram: Telegram) -> None:
    telegram.store.add_channels("Canal", 1)
    await telegram.control.post("/load", json={"rate": 200})
    await until(lambda: telegram.store.sequence >= 10)
    ended = (await telegram.control.delete("/load")).json()
    assert not ended["running"]
    assert ended["sent"] == telegram.store.sequence
    await asyncio.sleep(0.05)
    assert ended["sent"] == telegram.store.sequence


def test_texts_differ_and_half_of_them_are_signals() -> None:
    made = [texts.text(number) for number in range(1, 1001)]
    assert len(set(made)) == 1000
    assert made[0] == texts.text(1)
    signals = [text for text in made if text.startswith("ATIVO: ")]
    assert 400 < len(signals) < 600
    assert all("STOP: " in text and "COMPRA: " in text for text in signals)
