"""How often a client may ask, and what every answer carries."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator
from unittest.mock import patch

import pytest
from tests.unit.test_api import READER, TOKENS, WRITER, client

from telegram_stack.api import params, tokens
from telegram_stack.api.limits import RateLimit

pytestmark = pytest.mark.requirement("API-04")

PATH = "/api/messages/no-uuid"  # 422 for whoever is let in


def test_a_window_begins_with_the_first_request_and_ends_a_minute_later() -> None:
    now = 100.0
    limit = RateLimit(2, lambda: now)
    assert [limit.take("a").allowed for _ in range(3)] == [True, True, False]
    assert limit.take("b").remaining == 1
    now = 159.5
    assert limit.take("a").headers()["Retry-After"] == "1"
    now = 160.0
    assert limit.take("a").remaining == 1


def test_clients_beyond_number_do_not_fill_the_memory() -> None:
    limit = RateLimit(2, lambda: 0.0)
    for number in range(20_000):
        limit.take(f"address {number}")
    assert len(limit._windows) <= 10_000


async def test_a_client_learns_its_limit_and_when_it_ends() -> None:
    async with client({"rate_limit": 2}) as http:
        answers = [await http.get(PATH, headers={"X-API-Key": READER}) for _ in range(3)]
        other = await http.get(PATH, headers={"X-API-Key": WRITER})
        health = await http.get("/health")
    assert [answer.status_code for answer in answers] == [422, 422, 429]
    assert [answer.headers["RateLimit-Remaining"] for answer in answers] == ["1", "0", "0"]
    assert answers[0].headers["RateLimit-Limit"] == "2"
    assert 0 < int(answers[2].headers["Retry-After"]) <= 60
    assert answers[2].json()["code"] == "rate_limited"
    assert other.status_code == 422
    assert "RateLimit-Limit" not in health.headers


async def test_300_a_minute_is_the_default() -> None:
    async with client() as http:
        assert (await http.get(PATH, headers={"X-API-Key": READER})).headers["RateLimit-Limit"] == "300"


async def test_who_guesses_tokens_is_stopped_by_its_address() -> None:
    async with client({"rate_limit": 2}) as http:
        answers = [await http.get(PATH, headers={"X-API-Key": f"guess-{n:020}"}) for n in range(3)]
        known = await http.get(PATH, headers={"X-API-Key": READER})
    assert [answer.status_code for answer in answers] == [401, 401, 429]
    assert known.status_code == 422  # a client with a token is not its address


async def test_a_token_can_be_exempt() -> None:
    async with client({"rate_limit": 1, "rate_limit_exempt": ("dashboard",)}) as http:
        answers = [await http.get(PATH, headers={"X-API-Key": READER}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [422] * 3


@pytest.mark.parametrize("path", ["/", "/health", "/api/nothing", "/api/messages"])
async def test_every_answer_has_the_security_headers(path: str) -> None:
    async with client() as http:
        headers = (await http.get(path)).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"


async def test_scripts_of_other_pages_are_let_in_by_name_only() -> None:
    ours, theirs = "https://board.example", "https://evil.example"
    ask = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "X-API-Key"}
    async with client({"cors_origins": (ours,)}) as http:
        allowed = await http.options("/api/messages", headers={"Origin": ours, **ask})
        refused = await http.options("/api/messages", headers={"Origin": theirs, **ask})
        answer = await http.get(PATH, headers={"Origin": ours, "X-API-Key": READER})
    assert allowed.headers["Access-Control-Allow-Origin"] == ours
    assert "X-API-Key" in allowed.headers["Access-Control-Allow-Headers"]
    assert refused.status_code == 400
    assert "ETag" in answer.headers["Access-Control-Expose-Headers"]
    async with client() as http:
        assert "Access-Control-Allow-Origin" not in (await http.get(PATH, headers={"Origin": ours})).headers


async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(30)

    with patch.object(params, "BODY_SECONDS", 0.05):
        async with client() as http:
            answer = await http.post("/api/channels", content=slow(), headers={"X-API-Key": WRITER})
    assert (answer.status_code, answer.json()["code"]) == (408, "body_timeout")


def test_a_wrong_token_is_compared_whole_with_each() -> None:
    """Always the same comparisons of the same lengths, whatever the guess has in common with a token."""
    seen: list[tuple[int, int]] = []

    compare = hmac.compare_digest

    def watched(one: bytes, other: bytes) -> bool:
        seen.append((len(one), len(other)))
        return compare(one, other)

    with patch("hmac.compare_digest", watched):
        for guess in ("", "x", READER[:-1], READER + "x", READER, "x" * 1000):
            seen.clear()
            tokens.find(TOKENS, guess)
            assert seen == [(32, 32)] * len(TOKENS)
