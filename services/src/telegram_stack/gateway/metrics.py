"""The gateway's metrics. Legacy names stay where their meaning does; every other name has its unit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from telegram_stack.events import Event
from telegram_stack.observability.metrics import BATCH_BUCKETS, LATENCY_BUCKETS
from telegram_stack.sinks.base import Observer
from telegram_stack.spool import Entry, Spool
from telegram_stack.telegram.source import STATES, Reception, TelegramSource

_DELAY_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30, 60, 300, 3600)


class Metrics(Reception, Observer):
    """Counts what source, spool and sinks report; `refresh` reads the rest when it is asked for."""

    def __init__(self, registry: CollectorRegistry, spool: Spool, sinks: Sequence[str]) -> None:
        self._spool = spool
        self._sinks = tuple(sinks)

        self._connection = Gauge("telegram_connection_status", "1 while connected to Telegram", registry=registry)
        self._state = Gauge(
            "telegram_session_state", "1 for the state that the session is in, 0 for the others", ["state"],
            registry=registry,
        )  # fmt: skip
        self._clock = Gauge(
            "telegram_clock_offset_seconds", "How far Telegram's clock is ahead of this host's", registry=registry
        )
        self._last_id = Gauge(
            "telegram_channel_last_message_id",
            "Message up to which the channel is complete",
            ["channel_id"],
            registry=registry,
        )
        self._reconnects = Counter("telegram_reconnects", "Connections to Telegram that ended", registry=registry)
        self._queued = Gauge(
            "telegram_update_queue_size", "Updates that the client holds, not yet looked at", registry=registry
        )
        self._back_pressure = Counter(
            "telegram_back_pressure_disconnects",
            "Connections given up because more came in than could be kept",
            registry=registry,
        )
        self._messages = Counter(
            "telegram_messages_received", "New messages received live", ["channel_id"], registry=registry
        )
        self._events = Counter("telegram_events_received", "Live updates taken", ["kind"], registry=registry)
        self._not_converted = Counter(
            "telegram_updates_not_understood", "Updates and messages that could not be converted", registry=registry
        )
        self._delay = Histogram(
            "telegram_delay_seconds",
            "From Telegram's date of a new message (whole seconds) to its receipt",
            buckets=_DELAY_BUCKETS,
            registry=registry,
        )
        self._last_event = Gauge(
            "telegram_last_event_timestamp_seconds", "When the last live update came", registry=registry
        )
        self._gaps = Counter(
            "telegram_gaps_detected",
            "Channels found to lack something, each time anew: their records at Telegram went on behind ours",
            registry=registry,
        )
        self._gaps_counted = 0
        self._recovered = Counter(
            "telegram_recovered_messages",
            "Events read from Telegram's records after they were missed",
            ["kind"],
            registry=registry,
        )
        self._open = Gauge(
            "telegram_recovery_channels", "Channels of which something may be missing", registry=registry
        )
        self._unreadable = Gauge(
            "telegram_recovery_unreadable_channels", "Channels that the account cannot read", registry=registry
        )
        self._recovery_seconds = Gauge(
            "telegram_recovery_seconds",
            "How long the recovery that runs has taken; 0 when none runs",
            registry=registry,
        )
        self._synced = Counter(
            "telegram_synced_messages", "Messages that a backfill on request has brought", registry=registry
        )
        self._sync_open = Gauge(
            "telegram_sync_channels", "Channels that the backfill has not read to its end", registry=registry
        )
        self._photos = Counter(
            "telegram_photo_requests",
            "Photos asked for: cached, downloaded, missing or unavailable",
            ["result"],
            registry=registry,
        )
        self._photo_bytes = Gauge("telegram_photo_cache_bytes", "Photos that are kept on disk", registry=registry)
        self._flood = Counter(
            "telegram_flood_wait_seconds", "Pauses that Telegram asked for", ["method"], registry=registry
        )
        self._flood_remaining = Gauge(
            "telegram_flood_wait_remaining_seconds",
            "Until the method may be used again; 0 when it may",
            ["method"],
            registry=registry,
        )

        self._commit = Histogram(
            "telegram_spool_commit_seconds",
            "Time of a group's commit, its fsync included",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._group = Histogram(
            "telegram_spool_group_events", "Events in a commit group", buckets=BATCH_BUCKETS, registry=registry
        )
        self._pending = Gauge("telegram_spool_pending_events", "Events that wait for their commit", registry=registry)
        self._bytes = Gauge("telegram_spool_bytes", "Size of the spool on disk", registry=registry)
        self._reserve = Gauge(
            "telegram_spool_reserve_bytes",
            "Room kept to be given back to a full disk; 0 while it is given back",
            registry=registry,
        )
        self._last_seq = Gauge("telegram_spool_last_sequence", "Newest entry of the spool", registry=registry)

        self._cursor = Gauge("telegram_sink_cursor_sequence", "Last entry done", ["sink"], registry=registry)
        self._lag = Gauge("telegram_sink_lag_events", "Entries a sink is behind", ["sink"], registry=registry)
        self._oldest = Gauge(
            "telegram_sink_oldest_waiting_seconds",
            "Age of the first entry that a sink has not done",
            ["sink"],
            registry=registry,
        )
        self._available = Gauge(
            "telegram_sink_available", "1 when the last write succeeded", ["sink"], registry=registry
        )
        self._written = Counter("telegram_sink_events", "Entries done", ["sink"], registry=registry)
        self._quarantined = Gauge(
            "telegram_sink_quarantined_events", "Events that a sink refused for good", ["sink"], registry=registry
        )
        self._given_up = Counter(
            "telegram_push_given_up_events", "Events that an address far behind never gets", ["sink"], registry=registry
        )
        self._published = Counter("telegram_messages_published", "Events that the queue confirmed", registry=registry)
        self._failures = Counter(
            "telegram_publish_failures", "Failed writes to the queue", ["reason"], registry=registry
        )
        self._retries = Counter("telegram_retry_attempts", "Writes to be repeated", ["sink"], registry=registry)
        self._failure_queue = Gauge(
            "telegram_failure_queue_size", "Events that wait for the sink that is furthest behind", registry=registry
        )
        self._stage = Histogram(
            "telegram_stage_seconds",
            "From the receipt of an event to the end of a stage: spool, database, queue, cache",
            ["stage"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._registry = registry
        self._lease: Gauge | None = None
        self._flooded: set[str] = set()
        for kind in ("new", "edit", "delete"):
            self._recovered.labels(kind)
        for sink in self._sinks:
            for metric in (self._written, self._retries, self._available):
                metric.labels(sink)

    # What the source reports

    def received(self, event: Event) -> None:
        """An update became an event."""
        self._events.labels(event.kind).inc()
        self._last_event.set_to_current_time()
        if event.kind == "new":
            self._messages.labels(str(event.channel_id)).inc()
            if event.message_date is not None:
                self._delay.observe(max(0.0, (event.received_at - event.message_date).total_seconds()))

    def not_converted(self, channel_id: int | None) -> None:
        """An update or message could not be understood."""
        self._not_converted.inc()

    def recovered(self, events: Sequence[Event]) -> None:
        """These came from Telegram's records."""
        for event in events:
            self._recovered.labels(event.kind).inc()

    def synced(self, events: Sequence[Event]) -> None:
        """A backfill on request has brought these."""
        self._synced.inc(len(events))

    def follow_sync(self, channels_open: Callable[[], int]) -> None:
        """Ask `channels_open` how many channels a backfill has not read to their end."""
        self._sync_open.set_function(channels_open)

    def follow_lease(self, seconds_left: Callable[[], float]) -> None:
        """Ask `seconds_left` how long the session's lease lasts. Without one there is no such metric."""
        self._lease = Gauge(
            "telegram_lease_remaining_seconds",
            "Until the session's lease ends unless it is renewed; only where hosts stand by for each other",
            registry=self._registry,
        )
        self._lease.set_function(seconds_left)

    def photo(self, result: str) -> None:
        """A photo was asked for."""
        self._photos.labels(result).inc()

    def follow_photos(self, cached_bytes: Callable[[], int]) -> None:
        """Ask `cached_bytes` how much is kept."""
        self._photo_bytes.set_function(cached_bytes)

    def flood_wait(self, method: str, seconds: int) -> None:
        """Telegram asked for a pause."""
        self._flood.labels(method).inc(seconds)
        self._flooded.add(method)

    def backed_off(self) -> None:
        """The connection was given up because more came in than could be kept."""
        self._back_pressure.inc()

    def connected(self, up: bool) -> None:
        """The connection came or went."""
        self._connection.set(up)
        if not up:
            self._reconnects.inc()

    # What spool and sinks report

    def committed(self, events: int, seconds: float) -> None:
        """A group is on disk. Called in the spool's thread."""
        self._commit.observe(seconds)
        self._group.observe(events)

    def written(self, sink: str, entries: Sequence[Entry]) -> None:
        """`entries` are durable downstream."""
        if not entries:
            return
        now = time.time()
        self._available.labels(sink).set(1)
        self._written.labels(sink).inc(len(entries))
        if sink == "queue":
            self._published.inc(len(entries))
        stage = self._stage.labels(sink)
        for entry in entries:
            received = entry.event.received_at.timestamp()
            stage.observe(max(0.0, now - received))
            if sink == self._sinks[0]:
                self._stage.labels("spool").observe(max(0.0, entry.spooled_at - received))

    def unavailable(self, sink: str, reason: str) -> None:
        """The sink was tried in vain."""
        self._available.labels(sink).set(0)
        self._retries.labels(sink).inc()
        if sink == "queue":
            self._failures.labels("unavailable").inc()

    def rejected(self, sink: str, entries: Sequence[Entry], reason: str) -> None:
        """`entries` went into quarantine."""
        if sink == "queue":
            self._failures.labels("rejected").inc(len(entries))

    def given_up(self, sink: str, events: int) -> None:
        """A push address is too far behind: it never gets these."""
        self._given_up.labels(sink).inc(events)

    async def refresh(self, source: TelegramSource) -> None:
        """Bring the gauges up to date."""
        quarantined = await self._spool.quarantined()
        for sink in self._sinks:
            oldest = await self._spool.oldest_waiting(sink)
            self._cursor.labels(sink).set(self._spool.cursor(sink))
            self._lag.labels(sink).set(self._spool.lag(sink))
            self._oldest.labels(sink).set(0 if oldest is None else max(0.0, time.time() - oldest))
            self._quarantined.labels(sink).set(quarantined.get(sink, 0))
        self._failure_queue.set(max((self._spool.lag(sink) for sink in self._sinks), default=0))
        self._pending.set(self._spool.pending)
        self._bytes.set(self._spool.size())
        self._reserve.set(self._spool.reserve_bytes)
        self._last_seq.set(self._spool.last_seq)
        self._queued.set(source.queued_updates)
        self._clock.set(source.clock_offset)
        for state in STATES:
            self._state.labels(state).set(state == source.state)
        self._last_id.clear()  # a channel that was left has none
        for channel_id, message_id in source.last_message_ids.items():
            self._last_id.labels(str(channel_id)).set(message_id)
        self._gaps.inc(source.gaps - self._gaps_counted)
        self._gaps_counted = source.gaps
        self._open.set(source.progress.channels_open)
        self._unreadable.set(len(source.progress.unreadable))
        self._recovery_seconds.set(source.progress.seconds if source.progress.running else 0)
        for method in self._flooded:
            self._flood_remaining.labels(method).set(source.floods.remaining(method))
