"""Config, health and trace of the gateway."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from cryptography.fernet import Fernet
from prometheus_client import CollectorRegistry
from telethon import errors, functions
from tests.unit.test_spool import event

from telegram_stack.config import ConfigError, load
from telegram_stack.events import deletion, encode, utc_now
from telegram_stack.gateway.access import Access
from telegram_stack.gateway.app import application
from telegram_stack.gateway.config import GatewayConfig
from telegram_stack.gateway.health import HealthCheck
from telegram_stack.gateway.metrics import Metrics
from telegram_stack.gateway.trace import Trace
from telegram_stack.spool import Entry, Spool
from telegram_stack.telegram.asking import FloodWaits
from telegram_stack.telegram.channels import Channels
from telegram_stack.telegram.login import Login
from telegram_stack.telegram.recovery import Progress
from telegram_stack.telegram.session import SessionFile
from telegram_stack.telegram.source import TelegramSource

MINIMAL = """
[telegram]
api_id = 1
[database]
user = "telegram_ingest"
password_file = "postgres-password"
"""


def config(tmp_path: Path, text: str) -> GatewayConfig:
    (tmp_path / "gateway.toml").write_text(text)
    return load(tmp_path / "gateway.toml", GatewayConfig)


def test_two_sections_are_enough(tmp_path: Path) -> None:
    found = config(tmp_path, MINIMAL)
    assert (found.port, found.telegram.channels, found.queue.enabled) == (4006, "all", True)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("api_id = 1", 'api_id = 1\nserver_address = "10.0.0.1"'), "telegram.server_port, telegram.server_dc_id"),
        (("api_id = 1", 'api_id = 1\nchannels = "some"'), "bad value of telegram.channels"),
        (("[database]", '[cache]\nsentinels = ["nowhere"]\n[database]'), "bad value of cache.sentinels"),
        (("[database]", '[cache]\nconsumers = ["Big One"]\n[database]'), "consumer name 'Big One' is not usable"),
        (("[database]", "[spool]\nlingerms = 3\n[database]"), "unknown key spool.lingerms"),
        (("[telegram]", 'account = "Big One"\n[telegram]'), "bad value of account"),
        (("[telegram]", 'other_accounts = [""]\n[telegram]'), "bad value of other_accounts"),
        (("[telegram]", 'account = "a"\nother_accounts = ["b"]\n[telegram]'), "other_accounts is the first account's"),
    ],
)
def test_a_bad_config_is_named(tmp_path: Path, change: tuple[str, str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        config(tmp_path, MINIMAL.replace(*change))


@pytest.mark.requirement("GW-11")
def test_a_further_account_has_a_unit_of_its_own(tmp_path: Path) -> None:
    assert config(tmp_path, MINIMAL).unit == "telegram-gateway"
    assert config(tmp_path, f'account = "second"\n{MINIMAL}').unit == "telegram-gateway@second"


class Gateway:
    """A gateway without Telegram and without sinks."""

    def __init__(self, spool: Spool, bind: str = "127.0.0.1", token: str | None = None) -> None:
        self.spool = spool
        self.source = SimpleNamespace(
            gaps=0,
            state="connected",
            cause="",
            progress=Progress(),
            queued_updates=7,
            floods=FloodWaits(self),
            clock_offset=-2.0,
            last_message_ids={-1001: 42},
        )
        self.trace = Trace(capacity=3)
        channels = Channels({}, "all")
        names = ["database", "queue"]
        self.health = HealthCheck(cast(TelegramSource, self.source), spool, channels, names, "1.2.3")
        registry = CollectorRegistry()
        self.metrics = Metrics(registry, spool, names)
        source = cast(TelegramSource, self.source)
        login = Login(SessionFile(Path("/nowhere"), Fernet.generate_key().decode()), SimpleNamespace, lambda: True)
        app = application(
            self.health,
            self.metrics,
            registry=registry,
            trace=self.trace,
            source=source,
            login=login,
            access=Access(bind, token),
        )
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway")

    def flood_wait(self, method: str, seconds: int) -> None:
        self.metrics.flood_wait(method, seconds)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    spool = Spool(tmp_path / "spool.db", ["database", "queue"])
    await spool.open()
    yield Gateway(spool)
    await spool.close()


def entry(number: int) -> Entry:
    return Entry(number, event(number), encode(event(number)), 1.0)


@pytest.mark.requirement("GW-09")
@pytest.mark.parametrize(
    ("state", "cause", "status", "serves"),
    [
        ("connected", "", "healthy", True),
        ("unauthenticated", "there is no session", "unauthenticated", False),
        ("connecting", "no answer", "unhealthy", False),
        ("starting", "", "unhealthy", False),
    ],
)
async def test_the_state_of_telegram_decides(
    gateway: Gateway, state: str, cause: str, status: str, serves: bool
) -> None:
    gateway.source.state, gateway.source.cause = state, cause
    found = await gateway.health.check()
    assert (found.status, found.serving) == (status, serves)
    assert (cause or state) in " ".join(found.causes) or status == "healthy"


@pytest.mark.requirement("GW-09")
async def test_a_sink_that_is_away_degrades_until_it_writes_again(gateway: Gateway) -> None:
    await gateway.spool.commit([event(1)])
    gateway.health.unavailable("queue", "refused")
    found = await gateway.health.check()
    assert (found.status, found.serving) == ("degraded", True)
    assert found.causes == ["queue is unavailable (refused): 1 events wait in the spool"]
    gateway.health.written("queue", [entry(1)])
    assert (await gateway.health.check()).status == "healthy"


@pytest.mark.requirement("GW-09")
async def test_quarantine_and_a_failing_spool_are_causes(gateway: Gateway) -> None:
    await gateway.spool.quarantine("database", [entry(1)], "bad")
    assert (await gateway.health.check()).causes == ["database has refused 1 events for good: they are in quarantine"]
    gateway.spool.failure = "disk is full"
    found = await gateway.health.check()
    assert (found.status, found.causes[0]) == ("unhealthy", "the spool cannot be written: disk is full")


def test_the_trace_shows_the_newest_version_and_forgets_the_oldest() -> None:
    trace = Trace(capacity=3)
    trace.written("database", [entry(1), entry(2)])
    trace.written("queue", [entry(1)])
    path: Any = trace.path(-1001, 1)
    assert path.received <= path.stored <= path.published
    assert (path.spooled, path.cached) == (1.0, None)
    edited = Entry(3, event(1, "edited"), b"", 2.0)
    trace.written("database", [edited])
    newest = max(event(1).version, edited.event.version)
    path = trace.path(-1001, 1)
    assert path.version == newest
    trace.written("database", [entry(4), entry(5), entry(6)])
    assert (trace.path(-1001, 1), trace.path(-1001, 2)) == (None, None)


async def test_the_port_answers_health_trace_and_their_errors(gateway: Gateway) -> None:
    gateway.trace.written("database", [entry(1)])
    assert (await gateway.http.get("/trace/-1001/1")).json()["stored"] > 0
    assert [path["message_id"] for path in (await gateway.http.get("/trace")).json()] == [1]
    assert (await gateway.http.get("/trace/-1001/2")).status_code == 404
    assert (await gateway.http.get("/trace/a/b")).status_code == 422
    assert (await gateway.http.get("/health")).status_code == 200
    gateway.source.state = "connecting"
    assert (await gateway.http.get("/health")).status_code == 503


async def test_metrics_follow_events_and_sinks(gateway: Gateway) -> None:
    gateway.metrics.received(event(1))
    await gateway.spool.commit([event(1), event(2)])
    gateway.metrics.written("queue", [entry(1)])
    gateway.metrics.unavailable("queue", "refused")
    text = (await gateway.http.get("/metrics")).text
    for line in (
        'telegram_messages_received_total{channel_id="-1001"} 1.0',
        "telegram_messages_published_total 1.0",
        'telegram_publish_failures_total{reason="unavailable"} 1.0',
        'telegram_retry_attempts_total{sink="queue"} 1.0',
        'telegram_sink_lag_events{sink="database"} 2.0',
        'telegram_sink_available{sink="queue"} 0.0',
        "telegram_failure_queue_size 2.0",
    ):
        assert line in text.splitlines()


async def test_metrics_tell_the_session_the_clock_and_how_far_each_channel_is(gateway: Gateway) -> None:
    gateway.source.state = "unauthenticated"
    lines = (await gateway.http.get("/metrics")).text.splitlines()
    states = [line for line in lines if line.startswith("telegram_session_state{")]
    assert len(states) == 5
    assert [line for line in states if line.endswith(" 1.0")] == ['telegram_session_state{state="unauthenticated"} 1.0']
    assert "telegram_clock_offset_seconds -2.0" in lines
    assert 'telegram_channel_last_message_id{channel_id="-1001"} 42.0' in lines
    gateway.source.last_message_ids = {}
    assert "telegram_channel_last_message_id{" not in (await gateway.http.get("/metrics")).text


async def test_what_is_late_is_what_the_settings_say(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    await gateway.spool.commit([event(1)])
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 20)
    assert (await gateway.health.check()).status == "healthy"
    monkeypatch.setattr(gateway.health, "_late_seconds", 15.0)
    assert (await gateway.health.check()).causes[0].startswith("database is 20 s behind")


@pytest.mark.requirement("GW-06")
async def test_recovery_and_flood_waits_are_seen_in_health_and_metrics(gateway: Gateway) -> None:
    progress: Progress = gateway.source.progress
    progress.begin()
    progress.count([event(1), event(2)])
    progress.channels_open, progress.seconds, progress.unreadable = 3, 2.5, {-1007: "private"}
    gateway.metrics.recovered([event(1), deletion(-1001, 1, utc_now())])
    gateway.source.floods.note(errors.FloodWaitError(functions.updates.GetStateRequest(), 40))
    health = (await gateway.http.get("/health")).json()
    assert health["recovery"] == {
        "running": True,
        "seconds": 2.5,
        "channelsDone": 0,
        "channelsOpen": 3,
        "messages": 2,
        "edits": 0,
        "deletions": 0,
        "unreadable": {"-1007": "private"},
    }
    assert 0 < health["floodWaits"]["getState"] <= 40
    text = (await gateway.http.get("/metrics")).text
    for line in (
        'telegram_recovered_messages_total{kind="new"} 1.0',
        'telegram_recovered_messages_total{kind="delete"} 1.0',
        'telegram_flood_wait_seconds_total{method="getState"} 40.0',
        "telegram_recovery_channels 3.0",
        "telegram_update_queue_size 7.0",
        "telegram_recovery_unreadable_channels 1.0",
        "telegram_recovery_seconds 2.5",
    ):
        assert line in text.splitlines()
    assert 'telegram_flood_wait_remaining_seconds{method="getState"}' in text


@pytest.mark.requirement("GW-16")
@pytest.mark.parametrize(
    ("bind", "token", "given", "statuses"),
    [
        ("127.0.0.1", None, None, {"/health": 200, "/metrics": 200, "/login": 200, "/trace": 200}),
        ("::1", None, None, {"/login": 200}),
        ("10.0.0.1", None, None, {"/health": 200, "/metrics": 200, "/login": 403, "/trace": 403}),
        ("10.0.0.1", "secret", None, {"/health": 200, "/metrics": 401, "/login": 401, "/trace": 401}),
        ("10.0.0.1", "secret", "Bearer secre", {"/metrics": 401}),
        ("10.0.0.1", "secret", "Bearer secret", {"/health": 200, "/metrics": 200, "/login": 200, "/trace": 200}),
        ("127.0.0.1", "secret", None, {"/login": 401}),
    ],
)
async def test_the_port_is_on_loopback_or_needs_a_token(
    tmp_path: Path, bind: str, token: str | None, given: str | None, statuses: dict[str, int]
) -> None:
    spool = Spool(tmp_path / "spool.db", ["database", "queue"])
    await spool.open()
    http = Gateway(spool, bind, token).http
    headers = {} if given is None else {"Authorization": given}
    assert {path: (await http.get(path, headers=headers)).status_code for path in statuses} == statuses
    await spool.close()
