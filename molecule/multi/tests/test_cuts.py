"""Each host's cable is cut once under load: what is down says so, the rest goes on, and all heals without a loss."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from probe import telegram, wait_until
from stack import OTHERS, cable, health, links
from test_chain import Keys, effects, once, shown, stored
from testinfra.host import Host

On = Callable[[str], Host]
pytestmark = pytest.mark.requirement("OP-05")
RATE = 50
CUT = 40.0
"""Seconds a cable is out at least: longer than every time-out of a client."""


class Load:
    """Messages that are posted while the test runs."""

    def __init__(self) -> None:
        self.before = shown()
        telegram().ask("POST", "/load", {"rate": RATE})

    def end(self) -> Keys:
        """Stop it; the keys of what was posted."""
        telegram().ask("DELETE", "/load")
        wait_until("the load ended", 30, lambda: not telegram().ask("GET", "/load")["running"])
        return shown() - self.before


@pytest.fixture
def load() -> Iterator[Load]:
    running = Load()
    time.sleep(3)
    yield running
    telegram().ask("DELETE", "/load")


def everything_is_there(on: On, keys: Keys) -> None:
    """Stored once, and taken effect once."""
    assert len(keys) > RATE * CUT / 2
    wait_until("every message stored", 180, lambda: stored(on("database"), keys) == once(keys))
    wait_until("every effect", 180, lambda: effects(on("database"), keys) == once(keys))


def linked(host: Host) -> bool:
    """Whether a host reaches all others."""
    return all(links(host).values())


def lost(host: Host, other: str) -> bool:
    """Whether a host knows that it does not reach another."""
    return not links(host)[other]


def well(host: Host, port: int) -> bool:
    """Whether a service of ours calls itself well."""
    return health(host, port).get("status") in ("healthy", "ok")


def all_is_well(on: On) -> None:
    for name in OTHERS:
        wait_until(f"the links of {name}", 60, partial(linked, on(name)))
    application = on("application")
    for port in (4006, 4010, 4011):
        wait_until(f"port {port} well", 120, partial(well, application, port))


def sinks(host: Host) -> dict[str, Any]:
    found: dict[str, Any] = health(host, 4006).get("sinks", {})
    return found


def down(host: Host) -> set[str]:
    """What the API says is not well."""
    components = health(host, 4010).get("components", {})
    return {name for name, part in components.items() if part["status"] != "healthy"}


def test_without_the_database_telegram_and_the_queue_go_on(on: On, load: Load) -> None:
    application, began = on("application"), time.monotonic()
    cable("cut", "database")
    try:
        wait_until("the link says so", 20, lambda: links(application) == {"database": False, "cache": True})
        wait_until("the API says so", 60, lambda: "database" in down(application))
        wait_until("the gateway says so", 60, lambda: not sinks(application)["database"]["available"])
        first = health(application, 4006)
        time.sleep(max(0.0, CUT - (time.monotonic() - began)))
        then = health(application, 4006)
        assert then["connected"]
        assert then["spoolSequence"] > first["spoolSequence"]
        assert then["sinks"]["queue"]["available"]
        assert then["sinks"]["queue"]["lag"] < RATE * 10
        assert then["sinks"]["database"]["lag"] > first["sinks"]["database"]["lag"]
    finally:
        cable("heal", "database")
    everything_is_there(on, load.end())
    all_is_well(on)


def test_without_cache_and_queue_messages_are_stored_and_polled(on: On, load: Load) -> None:
    application, began = on("application"), time.monotonic()
    cable("cut", "cache")
    try:
        wait_until("the link says so", 20, lambda: links(application) == {"database": True, "cache": False})
        wait_until("the API says so", 60, lambda: down(application) >= {"cache", "queue"})
        wait_until("the gateway says so", 60, lambda: not sinks(application)["queue"]["available"])
        first = health(application, 4006)
        time.sleep(max(0.0, CUT - (time.monotonic() - began)))
        then = health(application, 4006)
        assert then["connected"]
        assert then["sinks"]["database"]["available"]
        assert then["sinks"]["database"]["lag"] < RATE * 10
        assert then["sinks"]["queue"]["lag"] > first["sinks"]["queue"]["lag"]
        # The worker of a queue that is away polls the database: what is posted still takes effect.
        now = {key for key in shown() if key not in load.before}
        assert len(effects(on("database"), now)) > 0.5 * len(now)
    finally:
        cable("heal", "cache")
    everything_is_there(on, load.end())
    all_is_well(on)


def test_without_the_application_the_stores_wait_and_it_catches_up(on: On, load: Load) -> None:
    cable("cut", "application")
    try:
        for name in ("database", "cache"):
            wait_until(f"{name} says so", 20, partial(lost, on(name), "application"))
        time.sleep(CUT)
        assert links(on("database"))["cache"]
    finally:
        cable("heal", "application")
    everything_is_there(on, load.end())
    all_is_well(on)
