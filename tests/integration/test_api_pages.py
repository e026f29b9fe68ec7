"""Pages by cursor, search, history, export, and what clients change."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta
from typing import Any

import httpx
import pytest
from tests.integration.apis import CHANNELS, START, Data, needs_postgres
from tests.integration.servers import Cable

from telegram_stack.ids import row_id

pytestmark = needs_postgres


async def pages(http: httpx.AsyncClient, path: str, **query: Any) -> list[list[int]]:
    """The message ids of all pages, one after the other."""
    found: list[list[int]] = []
    cursor: str | None = None
    while not found or cursor is not None:
        given = query | ({"cursor": cursor} if cursor else {})
        body = (await http.get(path, params=given)).json()
        assert body["success"] is True, body
        found.append([int(row["messageId"]) for row in body["data"]])
        assert body["pagination"]["hasMore"] is (body["nextCursor"] is not None)
        cursor = body["nextCursor"]
    return found


@pytest.mark.requirement("API-06")
@pytest.mark.parametrize("sort", ["asc", "desc"])
async def test_cursors_pass_every_message_once(
    http: httpx.AsyncClient, data: Data, api_channel: int, sort: str
) -> None:
    other = next(CHANNELS)
    for number in range(1, 8):  # three dates, and in each several messages; one number in two channels
        data.message(number, message_date=START + timedelta(minutes=number // 3))
    data.message(4, channel_id=other, message_date=START + timedelta(minutes=1))
    channels = f"{api_channel},{other}"
    found = await pages(http, "/api/messages", channelId=channels, limit=3, sort=sort)
    assert [len(page) for page in found] == [3, 3, 2]
    expected = [1, 2, 3, 4, 4, 5, 6, 7]
    assert [number for page in found for number in page] == (expected if sort == "asc" else expected[::-1])


@pytest.mark.requirement("API-06")
async def test_a_cursor_stays_where_it_is_while_messages_come(
    http: httpx.AsyncClient, data: Data, api_channel: int
) -> None:
    for number in range(1, 5):
        data.message(number)
    first = (await http.get("/api/messages", params={"channelId": api_channel, "limit": 2})).json()
    assert first["pagination"] == {"total": 4, "limit": 2, "offset": 0, "hasMore": True}
    data.message(5)
    query = {"channelId": api_channel, "limit": 2, "cursor": first["nextCursor"]}
    second = (await http.get("/api/messages", params=query)).json()
    assert [row["messageId"] for row in second["data"]] == ["2", "1"]
    assert second["pagination"] == {"limit": 2, "hasMore": False}


@pytest.mark.requirement("API-06")
@pytest.mark.parametrize("cursor", ["x", "W10", "bm9uZQ", "WzksMCwxXQ", "WzFlMzAsMSwxXQ", "é"])
async def test_a_made_up_cursor_is_refused(http: httpx.AsyncClient, cursor: str) -> None:
    answer = await http.get("/api/messages", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "cursor")


@pytest.mark.requirement("API-06")
async def test_words_are_found_in_any_form_page_by_page(http: httpx.AsyncClient, data: Data, api_channel: int) -> None:
    for number in range(1, 6):
        data.message(number, f"Compramos ações {number}", message_date=START)
    data.message(6, "venda")
    data.message(7, "compra", deleted_at=START)
    search = "/api/messages/search"
    assert await pages(http, search, q="compra", channelId=api_channel, limit=2) == [[5, 4], [3, 2], [1]]
    data.connection.execute("SELECT * FROM telegram.maintain_search()")
    assert await pages(http, search, q="compra", channelId=api_channel, limit=2) == [[5, 4], [3, 2], [1]]
    assert await pages(http, search, q='"ações 3"', channelId=api_channel) == [[3]]
    assert await pages(http, search, q="compra -5", channelId=api_channel) == [[4, 3, 2, 1]]
    assert (await http.get(search)).json()["errors"] == [{"field": "q", "reason": "is required"}]


@pytest.mark.requirement("API-06")
async def test_a_message_shows_what_it_said_before(http: httpx.AsyncClient, data: Data, api_channel: int) -> None:
    write = (
        "SELECT telegram.bulk_upsert_messages(ARRAY[%(channel)s], '{1}', ARRAY[%(date)s], ARRAY[%(version)s]::bigint[],"
        " ARRAY[%(date)s], '{user_client}', '{text}', ARRAY[%(text)s], edit_dates => ARRAY[%(edited)s::timestamptz])"
    )
    versions = ((10, "first", None), (30, "third", START + timedelta(hours=2)), (20, "too late", START))
    for version, text, edited in versions:
        values = {"channel": api_channel, "date": START, "version": version, "text": text, "edited": edited}
        data.connection.execute(write.encode(), values)
    found = (await http.get(f"/api/messages/{row_id(api_channel, 1)}/history")).json()["data"]
    assert [(row["version"], row["text"], row["editDate"]) for row in found] == [
        ("10", "first", None),
        ("30", "third", "2026-05-04T14:00:00Z"),
    ]
    assert [row["replacedAt"] is None for row in found] == [False, True]
    assert (await http.get(f"/api/messages/{row_id(api_channel, 2)}/history")).status_code == 404


@pytest.mark.requirement("API-06")
async def test_an_export_has_every_message_in_either_form(
    http: httpx.AsyncClient, data: Data, api_channel: int
) -> None:
    text = 'a "quote", a comma;\na second line, ação'
    for number in range(1, 1203):  # more than two pages
        data.message(number, text if number == 7 else "x", message_date=START + timedelta(seconds=number // 5))
    data.message(2000, deleted_at=START)
    data.state(7, "published", processed_by="signals")
    query: dict[str, Any] = {"channelId": api_channel}
    answer = await http.get("/api/messages/export", params=query)
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [int(line["messageId"]) for line in lines] == list(range(1, 1203))
    answer = await http.get("/api/messages/export", params=query | {"format": "csv", "sort": "desc"})
    assert answer.headers["Content-Type"].startswith("text/csv")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="messages.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert [int(row["messageId"]) for row in rows] == list(range(1202, 0, -1))
    assert rows[-7]["text"] == text == lines[6]["text"]
    assert (rows[-7]["status"], json.loads(rows[-7]["metadata"])) == ("published", {"processed_by": "signals"})
    empty = await http.get("/api/messages/export", params={"channelId": next(CHANNELS)})
    assert (empty.status_code, empty.content) == (200, b"")


async def test_an_export_without_its_database_is_an_answer(http: httpx.AsyncClient, link: Cable) -> None:
    await link.cut()
    answer = await http.get("/api/messages/export")
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")


@pytest.mark.requirement("API-01")
async def test_a_message_is_deleted_softly_with_its_reason(
    http: httpx.AsyncClient, data: Data, api_channel: int
) -> None:
    identity = data.message(1)
    answer = await http.request("DELETE", f"/api/messages/{identity}", json={"reason": "spam"})
    deleted = answer.json()["data"]
    assert (answer.status_code, deleted["status"], deleted["metadata"]) == (200, "deleted", {"deletion_reason": "spam"})
    again = (await http.delete(f"/api/messages/{identity}")).json()["data"]
    assert again["deletedAt"] == deleted["deletedAt"]
    assert (await http.get("/api/messages", params={"channelId": api_channel})).json()["data"] == []
    assert (await http.delete(f"/api/messages/{row_id(api_channel, 2)}")).status_code == 404


@pytest.mark.requirement("API-01")
async def test_a_message_is_asked_for_again(http: httpx.AsyncClient, data: Data, api_channel: int) -> None:
    identity = data.message(1)
    data.state(1, "published", processed_by="signals")
    answer = await http.post(f"/api/messages/{identity}/reprocess", json={"requestedBy": "anna"})
    message = answer.json()["data"]
    assert (answer.status_code, message["status"]) == (200, "reprocess_pending")
    assert message["reprocessRequestedAt"] is not None
    assert message["metadata"]["reprocess_requested_by"] == "anna"
    waiting = await http.get(
        "/api/messages/unprocessed", params={"channel": api_channel, "status": "reprocess_pending"}
    )
    assert [row["id"] for row in waiting.json()["data"]] == [identity]
    assert (await http.post(f"/api/messages/{row_id(api_channel, 2)}/reprocess")).status_code == 404
