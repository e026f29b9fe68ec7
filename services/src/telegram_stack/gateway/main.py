"""telegram-gateway: from Telegram through the spool into database, queue and cache."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from telegram_stack import program
from telegram_stack.config import ConfigError, load, read_secret
from telegram_stack.database import TRANSACTION_SECONDS, Pool, open_pool
from telegram_stack.gateway.access import Access
from telegram_stack.gateway.app import application
from telegram_stack.gateway.config import GatewayConfig
from telegram_stack.gateway.health import HealthCheck
from telegram_stack.gateway.lease import DatabaseLease
from telegram_stack.gateway.metrics import Metrics
from telegram_stack.gateway.photos import photo_routes
from telegram_stack.gateway.replay import Replay, replay_push
from telegram_stack.gateway.stored import StoredInDatabase
from telegram_stack.gateway.sync import sync_routes
from telegram_stack.gateway.trace import Trace
from telegram_stack.observability.http import serve
from telegram_stack.observability.systemd import notify, watchdog
from telegram_stack.sinks.base import Observer, Sink, SinkUnavailableError, drain
from telegram_stack.sinks.cache import open_cache
from telegram_stack.sinks.database import FIRST, DatabaseSink
from telegram_stack.sinks.push import PushSink, sink_name
from telegram_stack.sinks.queue import NACKS, QueueSink
from telegram_stack.spool import Entry, Spool, SpoolError, begin_anew
from telegram_stack.telegram.channels import Channels
from telegram_stack.telegram.client import Server
from telegram_stack.telegram.login import Login
from telegram_stack.telegram.photos import PhotoCache, Photos
from telegram_stack.telegram.proxy import Proxy
from telegram_stack.telegram.session import SessionError, SessionFile
from telegram_stack.telegram.source import Limits, TelegramSource
from telegram_stack.telegram.sync import Sync

log = logging.getLogger(__name__)

_NAME = "telegram-gateway"
_CREDENTIALS = "/etc/telegram-stack/credentials"
_REGISTRY_SECONDS = 30.0


def main() -> int:
    """Run the gateway, or one of its commands."""
    if "import-session" in sys.argv[1:]:
        return import_session(sys.argv[1:])
    if "replay-push" in sys.argv[1:]:
        return replay_push(sys.argv[1:], _CREDENTIALS)
    return program.main(_NAME, GatewayConfig, run)


def import_session(arguments: Sequence[str]) -> int:
    """Read a string session of Telethon or GramJS from stdin and keep it encrypted."""
    parser = argparse.ArgumentParser(prog=_NAME, description=import_session.__doc__)
    parser.add_argument("command", choices=["import-session"])
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the gateway's TOML file")
    parser.add_argument("--replace", action="store_true", help="put it in the place of the one that is there")
    parser.add_argument(
        "--begin-anew",
        action="store_true",
        help="another program has used it meanwhile: go on behind what is stored of each channel",
    )
    options = parser.parse_args(arguments)
    try:
        config = load(options.config, GatewayConfig)
        os.environ.setdefault("CREDENTIALS_DIRECTORY", f"{_CREDENTIALS}/{config.unit}")
        session = SessionFile(config.session_path, read_secret(config.telegram.session_key_file))
        if options.begin_anew and config.spool_path.exists():
            with session.locked():
                begin_anew(config.spool_path)
        session.write(sys.stdin.read().strip(), replace=options.replace)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return program.BAD_CONFIG
    except (SessionError, SpoolError) as error:
        sys.stderr.write(f"{error}\n")
        return program.FAILED
    sys.stdout.write(f"the session is at {config.session_path}; a running gateway takes it within seconds\n")
    return program.OK


class _Observers(Observer):
    """Tells several."""

    def __init__(self, metrics: Metrics, health: HealthCheck, trace: Trace, photos: Photos) -> None:
        self._metrics, self._health, self._trace, self._photos = metrics, health, trace, photos

    def written(self, sink: str, entries: Sequence[Entry]) -> None:
        """`entries` are durable downstream."""
        self._metrics.written(sink, entries)
        self._health.written(sink, entries)
        self._trace.written(sink, entries)
        for entry in entries:
            if entry.event.kind != "new":  # from whichever sink is first
                self._photos.forget(*entry.event.key)

    def unavailable(self, sink: str, reason: str) -> None:
        """The sink was tried in vain."""
        self._metrics.unavailable(sink, reason)
        self._health.unavailable(sink, reason)
        log.warning("%s is unavailable: %s", sink, reason, extra={"sink": sink})

    def rejected(self, sink: str, entries: Sequence[Entry], reason: str) -> None:
        """`entries` went into quarantine."""
        self._metrics.rejected(sink, entries, reason)
        keys = [list(entry.event.key) for entry in entries]
        log.error("%s refuses %d events for good: %s", sink, len(entries), reason, extra={"sink": sink, "keys": keys})


async def run(config: GatewayConfig, stop: asyncio.Event) -> None:
    """Work until `stop`, then hand everything over within `stop_seconds`.

    Raises ConfigError for a secret that is missing, CannotRunError when another gateway has the session or the spool
    cannot be opened.
    """
    try:
        await _run(config, stop)
    except (SessionError, SpoolError) as error:
        raise program.CannotRunError(str(error)) from error


async def _run(config: GatewayConfig, stop: asyncio.Event) -> None:
    # Losing and restoring connections is told by our own source, once and in its own words.
    logging.getLogger("telethon.network").setLevel(logging.CRITICAL)
    session = SessionFile(config.session_path, read_secret(config.telegram.session_key_file))
    api_hash = read_secret(config.telegram.api_hash_file)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(TRANSACTION_SECONDS)
    registry.register(NACKS)

    async with AsyncExitStack() as stack:
        stack.enter_context(session.locked())
        stores = ["database", "queue", "cache"] if config.queue.enabled else ["database", "cache"]
        names = [*stores, *(sink_name(address) for address in config.push.addresses)]
        spool = Spool(
            config.spool_path,
            names,
            linger_ms=config.spool.linger_ms,
            group_limit=config.spool.group_limit,
            retain=config.spool.retain,
            pending_limit=config.spool.pending_limit,
            reserve_bytes=config.spool.reserve_mb << 20,
        )
        await spool.open()
        stack.push_async_callback(_close_spool, spool)
        channels = Channels(spool.stored_channels(), config.telegram.channels)
        metrics = Metrics(registry, spool, names)
        spool.on_commit = metrics.committed
        pool = await open_pool(config.database, config.unit)
        lease = _lease(pool, config)
        if lease is not None:
            metrics.follow_lease(lease.seconds_left)
        source = TelegramSource(
            session,
            channels,
            spool,
            metrics,
            api_id=config.telegram.api_id,
            api_hash=api_hash,
            version=program.version(),
            server=_server(config),
            proxy=_proxy(config),
            limits=_limits(config),
            lease=lease,
            stored=StoredInDatabase(pool),
            connect_timeout=config.telegram.connect_timeout,
            watchdog_seconds=config.telegram.watchdog_seconds,
            update_queue_limit=config.telegram.update_queue_limit,
        )
        database = _database_sink(pool, config, channels)
        pushes = list(_push_sinks(config, spool, metrics))
        sinks: list[Sink] = [database, *_other_sinks(config), *pushes]
        for sink in sinks:
            stack.push_async_callback(sink.close)
        sync = Sync(spool, channels, source, not_converted=metrics.not_converted, synced=metrics.synced)
        await sync.load()
        metrics.follow_sync(lambda: sync.progress.channels_open)
        health = HealthCheck(
            source,
            spool,
            channels,
            names,
            program.version(),
            sync=lambda: sync.progress,
            late_seconds=config.late_seconds,
        )
        trace = Trace()
        photos = Photos(source, channels, PhotoCache(config.photo_cache, config.photos.cache_mb << 20))
        metrics.follow_photos(lambda: photos.cached_bytes)
        observers = _Observers(metrics, health, trace, photos)
        login = Login(session, source.login_client, lambda: source.state == "connected")
        stack.push_async_callback(login.close)
        app = application(
            health,
            metrics,
            registry=registry,
            trace=trace,
            source=source,
            login=login,
            access=_access(config),
            more=[*Replay(spool, pushes).routes(), *sync_routes(sync), *photo_routes(photos, metrics.photo)],
        )
        services = [
            asyncio.create_task(serve(app, config.bind_address, config.port, lambda _port: _ready()), name="http"),
            asyncio.create_task(_follow_registry(database, channels, spool), name="registry"),
            asyncio.create_task(watchdog(lambda: spool.running), name="watchdog"),
        ]
        receiving = [
            asyncio.create_task(source.run(), name="telegram"),
            asyncio.create_task(sync.run(), name="sync"),
        ]
        drains = [
            asyncio.create_task(
                drain(
                    sink,
                    spool,
                    observers,
                    batch_size=config.batch_size,
                    window=_window(sink),
                    linger=_linger(config, sink),
                ),
                name=sink.name,
            )
            for sink in sinks
        ]
        try:
            await _stop_or_failure(stop, [*receiving, *drains, services[0]])
            notify("STOPPING=1")
            log.info("stopping")
            await _hand_over(receiving, spool, stores, config.stop_seconds)
        finally:
            await _cancel([*receiving, *drains, *services])


def _ready() -> None:
    log.info("ready")
    notify("READY=1")


async def _stop_or_failure(stop: asyncio.Event, tasks: Sequence[asyncio.Task[None]]) -> None:
    """Wait for `stop`; raises what a task raised that should have gone on for ever."""
    stopping = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
    for task in done - {stopping}:
        await task
        raise RuntimeError(f"{task.get_name()} has ended")


async def _hand_over(receiving: Sequence[asyncio.Task[None]], spool: Spool, sinks: Sequence[str], limit: float) -> None:
    """Take what has arrived into the spool, and what is in the spool to `sinks`, as far as time allows."""
    try:
        async with asyncio.timeout(limit):
            await _cancel(receiving)
            await spool.commit()
            await spool.drained(sinks)
    except TimeoutError:
        waiting = {sink: spool.lag(sink) for sink in sinks}
        log.warning("not everything is delivered: the spool keeps it for the next start", extra={"waiting": waiting})


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _close_spool(spool: Spool) -> None:
    lost = await spool.close()
    if lost:
        log.error("%d events could not be written to the spool: history brings the new ones again", lost)
    log.info("stopped")


def _server(config: GatewayConfig) -> Server | None:
    telegram = config.telegram
    if (
        telegram.server_address is None
        or telegram.server_port is None
        or telegram.server_dc_id is None
        or telegram.server_public_key is None
    ):
        return None
    return Server(telegram.server_address, telegram.server_port, telegram.server_dc_id, telegram.server_public_key)


def _proxy(config: GatewayConfig) -> Proxy | None:
    proxy = config.proxy
    if proxy.kind == "none" or proxy.host is None or proxy.port is None:
        return None
    secret = None if proxy.secret_file is None else read_secret(proxy.secret_file)
    return Proxy(proxy.kind, proxy.host, proxy.port, proxy.user, secret)


def _access(config: GatewayConfig) -> Access:
    return Access(config.bind_address, None if config.token_file is None else read_secret(config.token_file))


def _linger(config: GatewayConfig, sink: Sink) -> float:
    return (config.store_linger_ms if sink.name in ("database", "cache") else config.sink_linger_ms) / 1000


def _window(sink: Sink) -> int:
    """Batches on their way: the broker's confirm takes longer than the next batch does to come."""
    return 4 if sink.name == "queue" else 1


def _limits(config: GatewayConfig) -> Limits:
    telegram = config.telegram
    return Limits(
        history_depth=telegram.history_depth,
        edit_window=telegram.edit_window,
        check_seconds=telegram.recovery_seconds,
        concurrency=telegram.recovery_concurrency,
    )


def _lease(pool: Pool, config: GatewayConfig) -> DatabaseLease | None:
    if not config.lease_seconds:
        return None
    # A session that two accounts of one host were given by mistake is one that two hosts have.
    host = socket.gethostname()
    holder = host if config.account is None else f"{host} (account {config.account})"
    return DatabaseLease(pool, config.lease_seconds, holder=holder)


def _database_sink(pool: Pool, config: GatewayConfig, channels: Channels) -> DatabaseSink:
    return DatabaseSink(
        pool,
        lambda: channels.known,
        register=config.telegram.channels == "all",
        account=config.account or FIRST,
        others=config.other_accounts,
    )


def _other_sinks(config: GatewayConfig) -> Iterator[Sink]:
    if config.queue.enabled:
        yield QueueSink(config.queue, read_secret(config.queue.password_file))
    cache = config.cache
    sentinel_password = None if cache.sentinel_password_file is None else read_secret(cache.sentinel_password_file)
    yield open_cache(cache, read_secret(cache.password_file), sentinel_password)


def _push_sinks(config: GatewayConfig, spool: Spool, metrics: Metrics) -> Iterator[PushSink]:
    push = config.push
    if push.addresses:
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells of each request
        key = read_secret(push.key_file)
        for address in push.addresses:
            yield PushSink(
                address,
                key,
                timeout=push.timeout,
                backlog_limit=push.backlog_limit,
                lag=partial(spool.lag, sink_name(address)),
                given_up=metrics.given_up,
            )


async def _follow_registry(database: DatabaseSink, channels: Channels, spool: Spool) -> None:
    """Mirror which channels are registered and active; without the database the last known state holds."""
    while True:
        try:
            spool.append(channels=channels.register(await database.registered()))
        except SinkUnavailableError as error:
            log.info("the channel registry cannot be read: %s", error)
        await asyncio.sleep(_REGISTRY_SECONDS)
