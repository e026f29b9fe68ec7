"""Which alerts have to follow what is done to the host, and what stands beside what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.alerts import deeds
from tests.alerts.deeds import Make, stopped
from tests.alerts.host import SPOOL

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Fault:
    """`what` for people; `alerts` have to fire while it lasts, `afterwards` behind it, with labels of these values.

    Where it `silences`, the alerts fire while all is well and have to end.
    """

    name: str
    what: str
    make: Make
    alerts: Mapping[str, Labels]
    afterwards: Mapping[str, Labels] = field(default_factory=dict)
    within: float = 240
    silences: bool = False


def at(port: int, job: str = "", **others: str) -> Labels:
    """The labels of a target on the host."""
    return {"instance": f"127.0.0.1:{port}", **({"job": job} if job else {}), **others}


QUEUE = {"queue": deeds.QUEUE}
POSTGRESQL = "postgresql@17-telegram"
TWICE = """
- targets: ["127.0.0.1:9187"]
- targets: ["127.0.0.1:9187"]
  labels: {site: other}
"""
_BURNT = {"slo": "gateway"}

ROUNDS: list[list[Fault]] = [
    [
        Fault("clock", "the simulator's clock goes 10 s ahead", deeds.clock_drifts, {"ClockSkew": at(4006, "gateway")}),
        Fault("host-metrics", "`systemctl stop telegram-host-metrics`", stopped("telegram-host-metrics"),
              {"HostMetricsStale": at(9100, "node")}, within=300),
        Fault("exporter", "`systemctl stop prometheus-redis-exporter`", stopped("prometheus-redis-exporter"),
              {"TargetDown": at(9121, "redis_exporter")}),
        Fault("targets", "the targets' file of Alertmanager is emptied", deeds.targets_file("alertmanager", "[]\n"),
              {"TargetMissing": {"job": "alertmanager"}}),
        Fault("repository", "the folder of the database's repository is moved away, and a backup is begun",
              deeds.repository_away, {"LogArchiveFails": at(9187, "postgres"), "JobFailed": at(9100, job_name="backup"),
                                "UnitFailed": at(9100, name="telegram-backup.service")}),
    ],
    [
        Fault("cache", "Redis' three units and RabbitMQ are stopped", stopped(
              "telegram-redis-sentinel", "telegram-redis-replica", "telegram-redis-primary", "rabbitmq-server"),
              {"RedisClusterDown": {}, "CacheBreakerOpen": at(4011, "worker"), "LowCacheHitRate": at(4011, "worker")},
              within=1200),
    ],
    [
        Fault("telegram", "the simulator cuts every connection and takes no new one", deeds.telegram_away,
              {"TelegramDisconnected": at(4006, "gateway"), "ErrorBudgetBurnsFast": _BURNT,
               "ErrorBudgetBurns": _BURNT}),
        Fault("replica", "`systemctl stop telegram-redis-replica`", stopped("telegram-redis-replica"),
              {"RedisInstanceDown": at(6380, "redis")}),
        Fault("connections", "85 clients connect past PgBouncer", deeds.connections(85, pooled=False),
              {"DatabaseConnectionsHigh": at(9187)}),
    ],
    [
        Fault("gateway", "`systemctl stop telegram-gateway`", stopped("telegram-gateway"),
              {"TelegramGatewayDown": at(4006, "gateway")}),
        Fault("replication", "the replica gets a wrong password and is restarted", deeds.replica_refused,
              {"RedisReplicaBroken": at(6380, "redis")}),
        Fault("pool", "40 clients begin a transaction through PgBouncer and leave it open",
              deeds.connections(40, pooled=True),
              {"DatabaseConnectionPoolExhausted": {"database": "telegram_gateway"}}),
    ],
    [
        Fault("session", "a second process uses the session: Telegram voids it", deeds.session_used_twice,
              {"TelegramSessionInvalid": at(4006, "gateway", state="unauthenticated")}),
        Fault("evictions", "20 MB/s are written into Redis", deeds.cache_flooded,
              {"RedisEvictions": at(6379, "redis")}),
    ],
    [
        Fault("private", "20 messages of a channel are not pushed, and it turns private", deeds.channel_private,
              {"UnresolvedGaps": at(4006, "gateway")}),
        Fault("worker", "`systemctl stop telegram-signal-worker`, 600 messages at once", deeds.worker_stopped(600),
              {"QueueWithoutConsumer": QUEUE, "MessageQueueBuilding": QUEUE}, {"HighPollingLag": at(4011, "worker")}),
    ],
    [
        Fault("flood", "Telegram asks for 600 s without `getDialogs`", deeds.flood_wait,
              {"LongFloodWait": at(4006, "gateway")}),
        Fault("backlog", "`systemctl stop telegram-signal-worker`, 1,200 messages at once", deeds.worker_stopped(1200),
              {"RabbitMQBacklog": QUEUE}),
        Fault("quarantine", "a constraint refuses three messages", deeds.constraint("text NOT LIKE '%by mistake%'"),
              {"EventsQuarantined": at(4006, "gateway", sink="database")}),
    ],
    [
        Fault("poison", "150 messages that are no events come into the queue", deeds.poison,
              {"MessagesFailed": at(4011, "worker"), "DeadLetterQueueBuilding": {"queue": "telegram.messages.dlq"}}),
        Fault("trigger", "a trigger on `telegram.messages` takes 0.4 s", deeds.slow_writes,
              {"SlowDatabaseQueries": at(4006, "gateway")}),
        Fault("rule", "the PostgreSQL exporter is named twice as a target", deeds.targets_file("postgres", TWICE),
              {"RuleEvaluationFails": {"instance": "127.0.0.1:9090"}}),
    ],
    [
        Fault("disk", "a file grows into all of the disk under the spool, 6,000 messages come", deeds.spool_disk_full,
              {"DiskSpaceLow": at(9100, "node", mountpoint=SPOOL), "SpoolReserveGiven": at(4006, "gateway")}),
        Fault("queue", "the worker is stopped and its queue deleted", deeds.queue_deleted,
              {"UnroutableMessages": {"queue": "telegram.unroutable"}}),
    ],
    [
        Fault("lock", "a client locks `telegram.messages` and `telegram.processing`", deeds.tables_locked,
              {"SinkBehind": at(4006, "gateway", sink="database"), "PollingStopped": at(4011, "worker")}, within=300),
    ],
    [
        Fault("login", "the worker's user may not log in", deeds.worker_locked_out,
              {"WorkerCannotCommit": at(4011, "worker")}),
    ],
    [
        Fault("memory", "a unit with `MemoryMax=100M` takes nine tenths of it", deeds.memory_eaten,
              {"HighMemoryUsage": at(9100, "node", unit="hog.service")}),
        Fault("pgbouncer", "`systemctl stop pgbouncer`", stopped("pgbouncer"), {"PgBouncerDown": at(9100)}),
    ],
    [
        Fault("postgresql", f"`systemctl stop {POSTGRESQL}`", stopped(POSTGRESQL), {"DatabaseDown": at(9187)}),
    ],
    [
        Fault("alertmanager", "`systemctl stop prometheus-alertmanager`, until Prometheus drops alerts",
              deeds.alertmanager_away, {"AlertsNotDelivered": at(9090)}),
    ],
    [
        Fault("prometheus", "`systemctl stop prometheus`", stopped("prometheus"), {"DeadMansSwitch": {}},
              within=420, silences=True),
    ],
]  # fmt: skip
"""Those of a round stand beside each other: none disturbs what another one shows."""

NOT_MADE = {
    "JobOverdue": "it takes 26 hours without a good backup, or eight days without a restore test",
}
"""Alerts without a fault here, and why; `make unit` tries them with made-up series."""


def faults() -> dict[str, Fault]:
    """Every fault by its name."""
    return {fault.name: fault for together in ROUNDS for fault in together}
