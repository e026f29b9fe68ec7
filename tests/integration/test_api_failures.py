"""What was given up, over HTTP, and its way back to the consumer."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import pytest
from psycopg.types.json import Jsonb
from tests.integration.apis import READER, Data, needs_postgres

pytestmark = needs_postgres


def fail(data: Data, consumer: str, number: int, reason: str) -> str:
    """A message that `consumer` gave up; returns the failure's id."""
    row = data.connection.execute(
        "INSERT INTO telegram.failures (consumer, channel_id, message_id, version, reason, payload, attempts)"
        " VALUES (%s, %s, %s, 10, %s, %s, 4) RETURNING id",
        [consumer, data.channel, number, reason, Jsonb({"text": "x"})],
    ).fetchone()
    assert row is not None
    return str(row[0])


@pytest.mark.requirement("WK-04")
async def test_failures_are_listed_and_asked_for_again(http: httpx.AsyncClient, data: Data, api_channel: int) -> None:
    consumer = f"test-{uuid4()}"
    ids = []
    for number in (1, 2, 3):
        data.message(number)
        data.state(number, "failed", consumer)
        ids.append(fail(data, consumer, number, "ZeroDivisionError" if number < 3 else "Timeout"))
    ids.append(fail(data, consumer, 99, "Timeout"))  # of a message that is not stored

    async def page(**query: Any) -> tuple[list[str], str | None]:
        body = (await http.get("/api/failures", params={"consumer": consumer, **query})).json()
        return [row["id"] for row in body["data"]], body["nextCursor"]

    assert await page() == (ids[::-1], None)
    found, cursor = await page(limit=3)
    assert found == ids[:0:-1]
    assert await page(limit=3, cursor=cursor) == ([ids[0]], None)
    assert await page(reason="zerodiv") == ([ids[1], ids[0]], None)
    [first] = (await http.get("/api/failures", params={"consumer": consumer, "cursor": ids[1]})).json()["data"]
    expected = {"channelId": str(api_channel), "messageId": "1", "attempts": 4, "payload": {"text": "x"}}
    assert {name: first[name] for name in expected} == expected

    async def replay(**selection: Any) -> dict[str, list[str]]:
        answer = await http.post("/api/failures/replay", json={"consumer": consumer, **selection})
        assert answer.status_code == 200, answer.text
        replayed: dict[str, list[str]] = answer.json()["data"]
        return replayed

    assert await replay(ids=[int(ids[0])]) == {"replayed": [ids[0]], "notStored": []}
    assert await replay(reason="Timeout") == {"replayed": [ids[2]], "notStored": [ids[3]]}
    assert await page() == ([ids[3], ids[1]], None)
    assert await page(replayed="true") == (ids[::-1], None)
    query: dict[str, Any] = {"channel": api_channel, "excludeProcessedBy": consumer, "status": "reprocess_pending"}
    waiting = (await http.get("/api/messages/unprocessed", params=query)).json()["data"]
    assert [row["messageId"] for row in waiting] == ["1", "3"]


async def test_a_reader_may_look_but_not_replay(http: httpx.AsyncClient) -> None:
    headers = {"X-API-Key": READER}
    assert (await http.get("/api/failures", headers=headers)).status_code == 200
    assert (await http.post("/api/failures/replay", headers=headers)).status_code == 403


async def test_a_bad_selection_names_its_member(http: httpx.AsyncClient) -> None:
    for body, field in (({"ids": []}, "ids"), ({"ids": [0]}, "ids[0]"), ({"limit": 1001}, "limit")):
        answer = await http.post("/api/failures/replay", json=body)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)
