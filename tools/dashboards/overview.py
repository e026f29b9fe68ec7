"""Is the stack well, and how do messages flow through it?"""

from __future__ import annotations

from tools.dashboards.page import RATE, Limit, Page, Query, Row, lines, percentiles, rate, stat

_UP = ((0, "down"), (1, "up"))

_STATE = Row(
    "Is it well?",
    [
        stat(
            "Components",
            "Whether each answers Prometheus. A job that is not asked for at all is missing here, and has an alert.",
            "short",
            Query("min by (job) (up)", "{{job}}"),
            alerts=("TelegramGatewayDown", "TargetDown", "TargetMissing"),
            states=_UP,
            width=12,
        ),
        stat(
            "Alerts that fire",
            "DeadMansSwitch always does: it shows that rules are computed.",
            "short",
            Query('count by (alertname) (ALERTS{alertstate="firing"})', "{{alertname}}"),
            alerts=("DeadMansSwitch",),
            width=12,
        ),
        stat(
            "Telegram",
            "Whether the gateway is connected.",
            "short",
            Query("max(telegram_connection_status)", "connection"),
            states=((0, "away"), (1, "connected")),
        ),
        stat(
            "Channels with something missing",
            "Open: the recovery works on them. Unreadable: the account cannot read them.",
            "short",
            Query("sum(telegram_recovery_channels)", "open"),
            Query("sum(telegram_recovery_unreadable_channels)", "unreadable"),
            width=5,
        ),
        stat(
            "Longest wait in the spool",
            "Age of the oldest event that a store has not taken yet.",
            "s",
            Query("max(telegram_sink_oldest_waiting_seconds)", "oldest"),
            limit=Limit("SinkBehind", "[[ telegram_lag_limit_seconds ]]"),
        ),
        stat(
            "Since the last message",
            "A quiet night is no fault; a quiet day may be one.",
            "s",
            Query("time() - max(telegram_last_event_timestamp_seconds)", "since"),
            width=5,
        ),
        stat(
            "Quarantined",
            "Events that a store has refused for good; they wait for a replay.",
            "short",
            Query("sum(telegram_sink_quarantined_events)", "events"),
            width=6,
        ),
    ],
)

_FLOW = Row(
    "How do messages flow?",
    [
        lines(
            "Messages a second",
            "What comes in, what the queue confirmed, what took effect at the worker.",
            "cps",
            Query(rate("telegram_events_received_total"), "received"),
            Query(rate("telegram_messages_published_total"), "confirmed by the queue"),
            Query(rate("telegram_worker_messages_total"), "took effect"),
        ),
        lines(
            "From receipt to effect",
            "The whole way of a message through the stack.",
            "s",
            *percentiles("telegram_worker_latency_seconds"),
            limit=Limit("HighPollingLag", "[[ telegram_lag_limit_seconds ]]"),
        ),
        lines(
            "From receipt to each stage, p95",
            "On disk in the spool, in the database, confirmed by the queue, in the cache.",
            "s",
            Query("stage:telegram_stage_seconds:p95_rate5m", "{{stage}}"),
        ),
        lines(
            "Telegram's own delay",
            "From Telegram's date of a message, in whole seconds, to its receipt. Nothing here can shorten it.",
            "s",
            *percentiles("telegram_delay_seconds"),
        ),
        lines(
            "Behind, by store",
            "Events that each store has not taken yet. They are safe in the spool.",
            "short",
            Query("sum by (sink) (telegram_sink_lag_events)", "{{sink}}"),
        ),
        lines(
            "Polls that the cache answered",
            "Of the last 30 minutes. Where nobody polls there is no share.",
            "percent",
            Query("instance:telegram_worker_cache_hit:ratio_rate30m * 100", "{{instance}}"),
            limit=Limit("LowCacheHitRate", "[[ monitoring_cache_hit_limit_percent ]]", below=True),
        ),
    ],
)

_WORKER = Row(
    "Worker",
    [
        lines(
            "Messages by state",
            "What the worker made of each: published is an effect, ignored had none, failed was given up.",
            "cps",
            Query(rate("telegram_worker_messages_total", "status"), "{{status}}"),
            Query(rate("telegram_worker_poison_total"), "no event at all"),
            alerts=("MessagesFailed",),
            stacked=True,
        ),
        lines(
            "Seen before",
            "Deliveries that changed nothing, and what the cache answered when it was asked for a version.",
            "cps",
            Query(rate("telegram_worker_duplicates_total"), "known or superseded"),
            Query(rate("telegram_worker_dedup_total", "result"), "cache: {{result}}"),
        ),
        lines(
            "Time to commit a batch",
            "Effect and state of a batch, in one transaction.",
            "s",
            *percentiles("telegram_worker_commit_seconds"),
        ),
        lines(
            "Polls",
            "Polls of the database by reason, and what polls brought by where it came from.",
            "cps",
            Query(rate("telegram_worker_database_polls_total", "reason"), "polls: {{reason}}"),
            Query(rate("telegram_worker_polled_messages_total", "source"), "messages: {{source}}"),
        ),
        stat(
            "Worker's connections",
            "Whether batches can be committed, and whether the queue is consumed.",
            "short",
            Query("min by (instance) (telegram_worker_database_up)", "database"),
            Query("min by (instance) (telegram_worker_queue_up)", "queue"),
            alerts=("WorkerCannotCommit",),
            states=_UP,
        ),
        stat(
            "Since the last poll",
            "Shown where the worker polls.",
            "s",
            Query("time() - max(telegram_worker_last_poll_timestamp_seconds > 0)", "since"),
            limit=Limit("PollingStopped", "[[ monitoring_polling_silence_seconds ]]"),
        ),
    ],
)

_API = Row(
    "API",
    [
        lines(
            "Requests by status",
            "All routes.",
            "reqps",
            Query(rate("telegram_api_requests_total", "status"), "{{status}}"),
            stacked=True,
        ),
        lines(
            "Time to answer",
            "Of the routes below /api/.",
            "s",
            *percentiles("telegram_api_request_seconds", 'route=~"/api/.*"'),
        ),
        lines(
            "Live streams",
            "Clients that are connected, and events they were given.",
            "short",
            Query("sum(telegram_api_stream_clients)", "clients"),
            Query(rate("telegram_api_stream_events_total"), "events a second"),
            Query(rate("telegram_api_stream_cut_total"), "cut off a second: too slow"),
        ),
    ],
)

_MONITORING = Row(
    "Monitoring itself, and a migration",
    [
        lines(
            "Rules that cannot be computed",
            "Any is a fault of the rules or of Prometheus.",
            "cps",
            Query("sum(rate(prometheus_rule_evaluation_failures_total[5m]))", "failures a second"),
            alerts=("RuleEvaluationFails",),
            width=6,
        ),
        lines(
            "Alerts that Alertmanager did not take",
            "Any means that nobody is told.",
            "cps",
            Query("sum(rate(prometheus_notifications_dropped_total[5m]))", "dropped a second"),
            alerts=("AlertsNotDelivered",),
            width=6,
        ),
        stat(
            "Migration",
            "The phase that was finished last. There only beside a legacy system.",
            "short",
            Query("max(telegram_migration_phase)", "phase"),
            Query("max(telegram_migration_failed)", "failed"),
            width=6,
        ),
        lines(
            "Feed back to the legacy database",
            "Changes that wait for it, as long as it is fed.",
            "short",
            Query("sum(telegram_legacy_feed_backlog)", "changes"),
            Query(f"sum by (kind) (rate(telegram_legacy_feed_rows_total{RATE}))", "{{kind}} a second"),
            width=6,
        ),
    ],
)

PAGE = Page(
    name="overview",
    title="Telegram: overview",
    text="Is the stack well, and how do messages flow through it?",
    rows=[_STATE, _FLOW, _WORKER, _API, _MONITORING],
    since="now-1h",
)
