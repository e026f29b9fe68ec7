"""The circuit breaker of the cache, and how a client uses it; the servers are in the integration tests."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from redis.exceptions import ResponseError

from telegram_stack.cache import Breaker, CacheClient, CacheConfig, CacheUnavailableError, connect, open_cache


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """What time it is."""
        return self.now


def opened(clock: Clock) -> Breaker:
    """A breaker after three failures."""
    breaker = Breaker(failures=3, rest=1.0, clock=clock)
    for _ in range(3):
        assert breaker.admits()
        breaker.failed()
    return breaker


@pytest.mark.requirement("RD-04")
def test_it_opens_after_failures_in_a_row_only() -> None:
    breaker = Breaker(failures=3)
    for _ in range(2):
        breaker.failed()
    breaker.succeeded()
    for _ in range(2):
        breaker.failed()
    assert (breaker.state, breaker.admits()) == ("closed", True)
    breaker.failed()
    assert (breaker.state, breaker.admits()) == ("open", False)
    assert REGISTRY.get_sample_value("telegram_cache_breaker_state") == 2


@pytest.mark.parametrize("good", [True, False])
def test_one_call_tries_after_the_rest(good: bool) -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 0.9
    assert not breaker.admits()
    clock.now += 0.2
    assert breaker.admits()
    assert (breaker.state, breaker.admits()) == ("half-open", False)  # one only
    if good:
        breaker.succeeded()
        assert (breaker.state, breaker.admits()) == ("closed", True)
    else:
        breaker.failed()
        assert (breaker.state, breaker.admits()) == ("open", False)
        clock.now += 1.1
        assert breaker.admits()


async def test_a_client_asks_no_more_while_it_is_open_and_says_why() -> None:
    clock = Clock()
    client = CacheClient(connect(CacheConfig(user="x"), "", None), opened(clock))
    asked = 0

    async def refuse(_redis: object) -> None:
        nonlocal asked
        asked += 1
        raise ResponseError("NOPERM")

    async def answer(_redis: object) -> int:
        return 1

    with pytest.raises(CacheUnavailableError, match="not asked"):
        await client.call(refuse)
    clock.now += 2
    with pytest.raises(CacheUnavailableError, match="NOPERM"):
        await client.call(refuse)
    with pytest.raises(CacheUnavailableError, match="not asked: NOPERM"):
        await client.call(refuse)
    assert (asked, client.state, client.reason) == (1, "open", "NOPERM")
    clock.now += 2
    assert await client.call(answer) == 1
    assert (client.state, client.reason) == ("closed", None)
    await client.close()


async def test_a_call_that_was_given_up_does_not_keep_it_half_open() -> None:
    clock = Clock()
    client = CacheClient(connect(CacheConfig(user="x"), "", None), opened(clock))
    clock.now += 2

    async def hang(_redis: object) -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(client.call(hang))
    await asyncio.sleep(0)
    states = [client.state]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [*states, client.state] == ["half-open", "open"]
    await client.close()


async def test_sentinels_that_do_not_answer_are_said_so_soon(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret")
    client = open_cache(CacheConfig(user="x", password_file=str(password), sentinels=("127.0.0.1:1", "127.0.0.1:2")))
    with pytest.raises(CacheUnavailableError, match="no sentinel that answers knows a primary"):
        await client.call(lambda redis: redis.ping())
    await client.close()
