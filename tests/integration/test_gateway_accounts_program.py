"""Two accounts' gateways as programs before the same servers: what one suffers is not the other's."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator

import pytest
from tests.integration.brokers import Broker
from tests.integration.gateway_programs import (
    Gateway,
    Telegram,
    broker,
    cache,
    database,
    pytestmark,
    supervisor,
    telegram,
    wait,
)
from tests.integration.servers import Postgres, free_port
from tests.integration.test_gateway_program import gateway, published, stored

__all__ = ["broker", "cache", "database", "gateway", "pytestmark", "telegram"]  # fixtures, and when to skip


@pytest.fixture
def second(gateway: Gateway) -> Iterator[Gateway]:
    """The same configuration, but for name, port, session and spool."""
    folder = gateway.folder / "second"
    (folder / "state").mkdir(parents=True, mode=0o700)
    (folder / "credentials").symlink_to(gateway.folder / "credentials")
    further = Gateway(folder, free_port())
    settings = (gateway.folder / "gateway.toml").read_text()
    for ours, theirs in ((f"port = {gateway.port}", f"port = {further.port}"), ("/state/", "/second/state/")):
        settings = settings.replace(ours, theirs)
    (folder / "gateway.toml").write_text(f'account = "second"\n{settings}')
    (gateway.folder / "gateway.toml").write_text(
        f'other_accounts = ["second"]\n{(gateway.folder / "gateway.toml").read_text()}'
    )
    with supervisor(further):
        try:
            yield further
        finally:
            if further.process is not None:
                further.stop(signal.SIGKILL)


def taken(gateway: Gateway) -> int:
    """How many channels it takes."""
    number: int = gateway.get("/health").json()["channels"]
    return number


@pytest.mark.requirement("GW-11")
def test_one_is_killed_while_the_other_goes_on(
    telegram: Telegram, gateway: Gateway, second: Gateway, database: Postgres, broker: Broker
) -> None:
    assert gateway.command("import-session", text=telegram.session()).returncode == 0
    assert second.command("import-session", text=telegram.session("5511999990001")).returncode == 0
    channels = sorted({key[0] for key in telegram.post(5)})
    of_second = channels[:2]
    with database.connect() as connection:
        for channel in channels:
            owner = "second" if channel in of_second else ""
            connection.execute("INSERT INTO telegram.channels (channel_id, account) VALUES (%s, %s)", [channel, owner])
    both = (gateway, second)
    for each in both:
        each.start()
    wait(lambda: [taken(each) for each in both] == [3, 2], "both have read the registry")
    for each in both:
        each.healthy()
    sent = telegram.post(50)
    wait(lambda: sent <= set(stored(database)), "everything is stored")
    second.stop(signal.SIGKILL)
    missed = telegram.post(50)
    of_first = {key for key in missed if key[0] not in of_second}
    wait(lambda: of_first <= set(stored(database)), "the other one goes on")
    assert not (missed - of_first) & set(stored(database))
    assert gateway.get("/health").json()["status"] == "healthy"
    second.start()
    second.healthy()
    wait(lambda: missed <= set(stored(database)), "the killed one has caught up")
    wait(lambda: all(not each.get("/health").json()["sinks"]["queue"]["lag"] for each in both), "all is published")
    assert set(stored(database).values()) == {1}
    found = published(broker)
    assert all(found[key] == 1 for key in of_first), "nobody but the first one has published them"
    with database.connect() as connection:
        owners = Counter(row[0] for row in connection.execute("SELECT account FROM telegram.channels").fetchall())
    assert owners == {"": 3, "second": 2}
