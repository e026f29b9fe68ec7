"""What happens to a healthy stack, and which alerts then fire: of each alert what makes it fire and what must not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tests.unit.alert_rules import GATEWAY, NODE, PRIMARY, REPLICA, WORKER, latency, rising, transactions


class Case(NamedTuple):
    """`changes` replace the values of the healthy series that begin so (None: the series is not there).

    A number is a constant. `at` is the minute of the question, `firing` the alerts beside the dead man's switch.
    """

    what: str
    changes: Mapping[str, str | float | None]
    firing: frozenset[str] = frozenset()
    at: int = 30


def case(what: str, firing: str, at: int = 30, /, **changes: str | float | None) -> Case:
    """A case whose changes are given by the name of the metric alone."""
    return Case(what, {f"{name}{{": value for name, value in changes.items()}, frozenset(firing.split()), at)


def queue(name: str, metric: str = "") -> str:
    """The beginning of the series of a queue."""
    labels = f'job="rabbitmq_queues", instance="h:15692", vhost="telegram", queue="{name}"'
    return f"rabbitmq_detailed_queue_{metric or 'messages'}{{{labels}"


def fire(what: str, firing: str, changes: Mapping[str, str | float | None], at: int = 30) -> Case:
    """A case whose changes are given by the beginning of the series."""
    return Case(what, changes, frozenset(firing.split()), at)


def up(job: str) -> str:
    """The beginning of the series that says whether targets of the job answer."""
    return f'up{{job="{job}"'


def transactions_within(seconds: float, per_minute: float) -> dict[str, str]:
    """So many of the worker's transactions take no longer than that."""
    return {f'telegram_database_transaction_seconds_bucket{{{WORKER}, le="{seconds}"': rising(per_minute)}


SIGNALS = "telegram.consumer.signals"
GONE = "1+0x20 _x2000"

SERVICES = [
    # A process that is killed takes its series along; its target stays, and is down.
    fire("gateway down", "TelegramGatewayDown", {up("gateway"): "1+0x26 0+0x9", "telegram_connection_status": GONE}),
    fire("gateway restarts", "", {up("gateway"): "1+0x28 0 1+0x9", "telegram_connection_status": "1+0x28 _ 1+0x9"}),
    case("Telegram away", "TelegramDisconnected", telegram_connection_status="1+0x26 0+0x9"),
    case("connection lost for a moment", "", telegram_connection_status="1+0x27 0 1+0x9"),
    fire(
        "session revoked",
        "TelegramSessionInvalid",
        {
            f'telegram_session_state{{{GATEWAY}, state="unauthenticated"': "0+0x26 1+0x9",
            "telegram_connection_status": "1+0x26 0+0x9",
        },
    ),
    fire(
        "a log-in within a moment",
        "",
        {f'telegram_session_state{{{GATEWAY}, state="unauthenticated"': "0+0x28 1 0+0x9"},
    ),
    case("a channel cannot be read", "UnresolvedGaps", telegram_recovery_unreadable_channels="0+0x28 1+0x9"),
    case("recovery never ends", "UnresolvedGaps", telegram_recovery_channels=3, telegram_recovery_seconds=301),
    case("recovery after a reconnect", "", telegram_recovery_channels=200, telegram_recovery_seconds=20),
    case("a long recovery that may yet end", "", telegram_recovery_channels=3, telegram_recovery_seconds=299),
    case("a sink is late", "SinkBehind", telegram_sink_oldest_waiting_seconds="0+0x26 31+5x9"),
    case("a sink waits a little", "", telegram_sink_oldest_waiting_seconds=29),
    case("quarantine", "EventsQuarantined", telegram_sink_quarantined_events=1),
    case("what was refused has been replayed", "", telegram_sink_quarantined_events="0+0x10 1+0x10 0+0x20"),
    case("disk full at the spool", "SpoolReserveGiven", telegram_spool_reserve_bytes="1000+0x25 0+0x9"),
    case("no reserve by choice", "", telegram_spool_reserve_bytes=0),
    case("the reserve was made again", "", telegram_spool_reserve_bytes="1000+0x15 0+0x10 1000+0x9"),
    case("long flood wait", "LongFloodWait", telegram_flood_wait_remaining_seconds=400),
    case("flood wait of five minutes", "", telegram_flood_wait_remaining_seconds=300),
    fire("late effects", "HighPollingLag", latency(120.0), 30),
    fire("effects within the limit", "", latency(30.0), 30),
    fire("poller hangs", "PollingStopped", {"telegram_worker_last_poll_timestamp_seconds": "0+60x20 1200+0x20"}),
    fire("worker by the queue alone never polls", "", {"telegram_worker_last_poll_timestamp_seconds": 0}),
    case("database away for the worker", "WorkerCannotCommit", telegram_worker_database_up="1+0x26 0+0x9"),
    case("database restarts", "", telegram_worker_database_up="1+0x27 0 1+0x9"),
    fire(
        "a handler fails for good",
        "MessagesFailed",
        {f'telegram_worker_messages_total{{{WORKER}, status="failed"': "0+0x25 1+0x9"},
    ),
    case("a delivery is no event", "MessagesFailed", telegram_worker_poison_total="0+0x25 2+0x9"),
    fire(
        "a handler failed twenty minutes ago",
        "",
        {f'telegram_worker_messages_total{{{WORKER}, status="failed"': "0+0x9 1+0x30"},
    ),
    # Ten minutes ago 5,000 had failed in all; the restarted worker begins at 0.
    fire(
        "the counter of failures is reset",
        "",
        {f'telegram_worker_messages_total{{{WORKER}, status="failed"': "5000+0x20 0+0x20"},
    ),
    case(
        "cold cache",
        "LowCacheHitRate",
        telegram_worker_cache_hits_total=4,
        telegram_worker_cache_misses_total="0+12x90",
    ),
    case("some misses", "", telegram_worker_cache_misses_total="0+10x90"),
    case("no polls at all", "", telegram_worker_cache_hits_total=4),
    case("breaker open", "CacheBreakerOpen", telegram_cache_breaker_state="0+0x15 2 1 2 2 1 2+0x20"),
    case("breaker opened for a moment", "", telegram_cache_breaker_state="0+0x25 2 0+0x9"),
    case("breaker closes after six minutes", "", telegram_cache_breaker_state="0+0x22 2+0x6 0+0x9"),
    fire("slow transactions", "SlowDatabaseQueries", transactions(2.5)),
    fire("quick transactions", "", transactions(0.05)),
    # Nine of a hundred in the bucket of 50 to 150 ms: the ninety-fifth is at 94 ms.
    fire("transactions within the limit", "", transactions(0.15) | transactions_within(0.05, 273)),
    fire("one slow transaction in a quiet night", "", transactions(2.5, 0.2)),
]

DATA = [
    case("database down", "DatabaseDown", pg_up="1+0x27 0+0x9"),
    case("database restarts in a moment", "", pg_up="1+0x28 0 1+0x9"),
    case("connections run out", "DatabaseConnectionsHigh", pg_stat_activity_count="20+0x26 81+0x9"),
    case("many connections", "", pg_stat_activity_count=80),
    case("log archive fails", "LogArchiveFails", pg_stat_archiver_failed_count="2+0x20 5+0x20"),
    case("the archive failed twenty minutes ago", "", pg_stat_archiver_failed_count="2+0x9 5+0x30"),
    case("statistics of the archiver reset", "", pg_stat_archiver_failed_count="7+0x20 0+0x20"),
    case("PgBouncer down", "PgBouncerDown", pgbouncer_up="1+0x27 0+0x9"),
    case("PgBouncer restarts", "", pgbouncer_up="1+0x28 0 1+0x9"),
    case(
        "pool exhausted", "DatabaseConnectionPoolExhausted", pgbouncer_pools_client_waiting_connections="0+0x26 11+0x9"
    ),
    case("ten clients wait", "", pgbouncer_pools_client_waiting_connections=10),
    fire(
        "no primary",
        "RedisClusterDown RedisInstanceDown",
        {f"redis_up{{{PRIMARY}": "1+0x27 0+0x9", f"redis_instance_info{{{PRIMARY}": "1+0x20 _x20"},
    ),
    # The other has become the primary; an exporter's series of a new role is a new series.
    fire(
        "an instance is down after a fail-over",
        "RedisInstanceDown",
        {
            f"redis_up{{{PRIMARY}": "1+0x27 0+0x9",
            f"redis_instance_info{{{PRIMARY}": "1+0x20 _x20",
            f'redis_instance_info{{{REPLICA}, role="master"}}': "_x20 1+0x20",
        },
    ),
    fire(
        "a fail-over takes a minute",
        "",
        {
            f"redis_up{{{PRIMARY}": "1+0x27 0 1+0x9",
            f"redis_instance_info{{{PRIMARY}": "1+0x27 stale",
            f'redis_instance_info{{{REPLICA}, role="master"}}': "_x29 1+0x9",
        },
    ),
    fire("Redis restarts", "", {f"redis_up{{{PRIMARY}": "1+0x28 0 1+0x9"}),
    fire(
        "the exporter of Redis is down, which says nothing of Redis",
        "TargetDown",
        {
            up("redis_exporter"): "1+0x20 0+0x20",
            up("redis"): "1+0x20 0+0x20",
            "redis_up": "1+0x20 _x20",
            "redis_instance_info": "1+0x20 _x20",
        },
    ),
    case("replica without link", "RedisReplicaBroken", redis_master_link_up="1+0x26 0+0x9"),
    case("replica syncs again", "", redis_master_link_up="1+0x27 0 1+0x9"),
    case("evictions", "RedisEvictions", redis_evicted_keys_total="0+7000x90"),
    case("few evictions", "", redis_evicted_keys_total="0+5000x90"),
    case("counter of evictions reset", "", redis_evicted_keys_total="9000000+0x25 0+0x9"),
    fire("a queue builds", "MessageQueueBuilding", {queue(SIGNALS): "0+0x26 501+0x9"}),
    fire("a queue holds 500", "", {queue(SIGNALS): 500}),
    fire("retries wait in their own queue", "", {queue(f"{SIGNALS}.retry.1s"): 5000}),
    fire(
        "nobody takes from a queue",
        "MessageQueueBuilding RabbitMQBacklog",
        {queue(SIGNALS): 1001, queue(SIGNALS, "messages_ready"): 1001},
    ),
    fire(
        "a thousand are ready", "MessageQueueBuilding", {queue(SIGNALS): 1000, queue(SIGNALS, "messages_ready"): 1000}
    ),
    fire("dead letters", "DeadLetterQueueBuilding", {queue("telegram.messages.dlq"): 101}),
    fire("a hundred dead letters", "", {queue("telegram.messages.dlq"): 100}),
    fire("unroutable", "UnroutableMessages", {queue("telegram.unroutable"): 1}),
    fire("unroutable ones were taken out", "", {queue("telegram.unroutable"): "0+0x10 5+0x10 0+0x20"}),
    fire("no consumer", "QueueWithoutConsumer", {queue(SIGNALS, "consumers"): "1+0x26 0+0x9"}),
    fire("the consumer restarts", "", {queue(SIGNALS, "consumers"): "1+0x27 0 1+0x9"}),
]

HOSTS = [
    case("disk nearly full", "DiskSpaceLow", node_filesystem_avail_bytes=9000),
    case("disk with a little more than it has to have", "", node_filesystem_avail_bytes=10100),
    case("disk full within a day", "DiskSpaceLow", 120, node_filesystem_avail_bytes="42000-60x200"),
    case("disk fills slowly", "", 120, node_filesystem_avail_bytes="30000-5x200"),
    case("disk fills quickly, but has room", "", 60, node_filesystem_avail_bytes="95000-80x200"),
    case("unit short of memory", "HighMemoryUsage", telegram_unit_memory_bytes=260 << 20),
    case("unit within its memory", "", telegram_unit_memory_bytes=230 << 20),
    case("unit without a limit", "", telegram_unit_memory_limit_bytes=None, telegram_unit_memory_bytes=9 << 30),
    case("host short of memory", "HighMemoryUsage", node_memory_MemAvailable_bytes=1900),
    case("host with little to spare", "", node_memory_MemAvailable_bytes=2100),
    case("clock off", "ClockSkew", node_timex_offset_seconds=-6),
    case("Telegram's clock drifts", "ClockSkew", telegram_clock_offset_seconds=40),
    case("Telegram's clock is coarse", "", telegram_clock_offset_seconds=-1),
    case("clock a little off", "", node_timex_offset_seconds=4.9),
    case("unit failed", "UnitFailed", node_systemd_unit_state="0+0x27 1+0x9"),
    case("unit failed and restarted", "", node_systemd_unit_state="0+0x28 1 0+0x9"),
    case("backup failed", "JobFailed", telegram_backup_last_run_ok=0),
    case("backup failed and was repeated", "", telegram_backup_last_run_ok="1+0x10 0+0x10 1+0x20"),
    fire(
        "backup of yesterday",
        "",
        {f'telegram_backup_last_success_timestamp_seconds{{{NODE}, job_name="backup"': -25 * 3600},
    ),
    case("no backup yet", "", telegram_backup_last_run_ok=None, telegram_backup_last_success_timestamp_seconds=None),
    fire(
        "backup a day late",
        "JobOverdue",
        {f'telegram_backup_last_success_timestamp_seconds{{{NODE}, job_name="backup"': -30 * 3600},
    ),
    fire(
        "restore test overdue",
        "JobOverdue",
        {f'telegram_backup_last_success_timestamp_seconds{{{NODE}, job_name="restore_test"': -200 * 3600},
    ),
    fire(
        "restore test of last week",
        "",
        {f'telegram_backup_last_success_timestamp_seconds{{{NODE}, job_name="restore_test"': -191 * 3600},
    ),
    case("host metrics stand still", "HostMetricsStale", node_textfile_mtime_seconds="0+60x20 1200+0x20"),
    case("host metrics are late once", "", node_textfile_mtime_seconds="0+60x26 1560 1560 1740+60x9"),
    case("host metrics never came", "HostMetricsStale", node_textfile_mtime_seconds=None),
]

MONITORING = [
    fire("API down", "TargetDown", {up("api"): "1+0x20 0+0x20"}),
    fire("API restarts", "", {up("api"): "1+0x27 0 0 1+0x9"}),
    fire("a target is not asked for", "TargetMissing", {up("postgres"): None}),
    fire("no gateway is asked for", "TelegramGatewayDown TargetMissing", {up("gateway"): None}),
    case("a rule fails", "RuleEvaluationFails", prometheus_rule_evaluation_failures_total="1+0x27 2+0x9"),
    case("a rule failed some time ago", "", prometheus_rule_evaluation_failures_total="1+0x10 5+0x40"),
    case("alerts are dropped", "AlertsNotDelivered", prometheus_notifications_dropped_total="0+0x20 5+5x20"),
    case("Alertmanager restarts", "", prometheus_notifications_dropped_total="0+0x27 5+0x9"),
    case("alerts were dropped once", "", prometheus_notifications_dropped_total="0+0x10 5+0x30"),
]

HEALTHY = [
    case("a healthy hour", "", 60),
    # Nothing is posted and nobody asks: counters stand still, the poller and Telegram's connection go on.
    fire(
        "a quiet night",
        "",
        {
            **latency(0.008, 0),
            **transactions(0.008, 0),
            "telegram_worker_messages_total{": 70,
            "telegram_api_requests_total": 900,
            "redis_evicted_keys_total": 0,
            "node_filesystem_avail_bytes": 60000,
        },
        480,
    ),
    # stop.yml, ten minutes, start.yml: Prometheus itself was down and has a hole; then all is up again.
    fire("a planned stop of everything", "", {"": "1+0x20 _x10 1+0x60"}, 32),
    # A job of another host that has neither units nor Redis: its series are not there.
    fire(
        "a host without limits, queue and cache",
        "",
        {"telegram_unit_": None, "redis_evicted": None, "telegram_worker_cache": None, "telegram_cache": None},
    ),
]
CASES = [*SERVICES, *DATA, *HOSTS, *MONITORING, *HEALTHY]
