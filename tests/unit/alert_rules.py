"""The role's rules as a deployment writes them, and a healthy stack as Prometheus sees it, for promtool's tests."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "roles/monitoring/templates/rules"
FILES = ("recording", "services", "data", "hosts", "monitoring", "slo")
JOBS = {
    "prometheus": "h:9090",
    "alertmanager": "h:9093",
    "gateway": "h:4006",
    "api": "h:4010",
    "worker": "h:4011",
    "rabbitmq": "h:15692",
    "rabbitmq_queues": "h:15692",
    "postgres": "h:9187",
    "redis_exporter": "h:9121",
    "node": "h:9100",
}
"""Where each job's target is on a stack of one host, Redis' own two apart."""

GATEWAY, WORKER, API, NODE = (f'job="{job}", instance="{JOBS[job]}"' for job in ("gateway", "worker", "api", "node"))
POSTGRES = f'job="postgres", instance="{JOBS["postgres"]}"'
PRIMARY, REPLICA = ('job="redis", instance="h:6379"', 'job="redis", instance="h:6380"')
QUEUES = f'job="rabbitmq_queues", instance="{JOBS["rabbitmq_queues"]}"'
MEGA = 1 << 20

Series = dict[str, str]


def settings(**given: Any) -> dict[str, Any]:
    """The defaults that the rules use, and `given`."""
    found: dict[str, Any] = {}
    for role in ("common", "monitoring"):
        found |= yaml.safe_load((ROOT / "roles" / role / "defaults/main.yml").read_text(encoding="utf-8"))
    found |= {"monitoring_pgbouncer_host": "127.0.0.1", "monitoring_grafana_url": "", "telegram_monitoring_tls": False}
    found |= yaml.safe_load((ROOT / "roles/monitoring/vars/main/panels.yml").read_text(encoding="utf-8"))
    return found | {"_monitoring_job_names": [*JOBS, "redis"]} | given


def render(name: str, **given: Any) -> str:
    """The file `name` of the rules. Ansible's delimiters for these templates are in their first line."""
    environment = Environment(variable_start_string="[[", variable_end_string="]]", trim_blocks=True, autoescape=False)  # noqa: S701
    environment.filters["bool"] = bool
    text = (TEMPLATES / f"{name}.yml.j2").read_text(encoding="utf-8")
    assert text.startswith("#jinja2: variable_start_string:'[[', variable_end_string:']]'\n"), name
    return environment.from_string(text).render(settings(**given))


def rules(**given: Any) -> list[dict[str, Any]]:
    """Every rule of every file."""
    files = [yaml.safe_load(render(name, **given)) for name in FILES]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def alerts(**given: Any) -> dict[str, dict[str, Any]]:
    """The alerts by name."""
    return {rule["alert"]: rule for rule in rules(**given) if "alert" in rule}


def write(folder: Path, names: tuple[str, ...] = FILES, **given: Any) -> list[str]:
    """Write the files into `folder`; their names."""
    for name in names:
        (folder / f"{name}.yml").write_text(render(name, **given), encoding="utf-8")
    return [f"{name}.yml" for name in names]


def promtool(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run promtool in `folder`; its exit code and what it said."""
    ended = subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def always(value: float, minutes: int = 2000) -> str:
    """The same value for so long."""
    return f"{value:g}+0x{minutes}"


def rising(per_minute: float, minutes: int = 2000, first: float = 0) -> str:
    """A counter."""
    return f"{first:g}+{per_minute:g}x{minutes}"


def histogram(name: str, labels: str, per_minute: float, le: float, buckets: tuple[str, ...]) -> Series:
    """A histogram all of whose observations are at most `le` and above the bucket before."""
    found = {f"{name}_count{{{labels}}}": rising(per_minute)}
    for bound in buckets:
        found[f'{name}_bucket{{{labels}, le="{bound}"}}'] = rising(per_minute if float(bound) >= le else 0)
    return found


LATENCIES = ("0.008", "0.05", "0.15", "2.5", "30.0", "120.0", "+Inf")


def latency(seconds: float, per_minute: float = 300) -> Series:
    """The worker's latencies."""
    return histogram("telegram_worker_latency_seconds", WORKER, per_minute, seconds, LATENCIES)


def transactions(seconds: float, per_minute: float = 300, labels: str = WORKER) -> Series:
    """The times of transactions."""
    return histogram("telegram_database_transaction_seconds", labels, per_minute, seconds, LATENCIES)


def healthy() -> Series:
    """Every series that a rule looks at, on a stack of one host that works."""
    found = {f'up{{job="{job}", instance="{instance}"}}': always(1) for job, instance in JOBS.items()}
    found |= latency(0.008) | transactions(0.008)
    found |= {
        f"telegram_connection_status{{{GATEWAY}}}": always(1),
        f'telegram_session_state{{{GATEWAY}, state="connected"}}': always(1),
        f'telegram_session_state{{{GATEWAY}, state="unauthenticated"}}': always(0),
        f"telegram_recovery_unreadable_channels{{{GATEWAY}}}": always(0),
        f"telegram_recovery_channels{{{GATEWAY}}}": always(0),
        f"telegram_recovery_seconds{{{GATEWAY}}}": always(0),
        f'telegram_sink_oldest_waiting_seconds{{{GATEWAY}, sink="database"}}': always(0),
        f'telegram_sink_quarantined_events{{{GATEWAY}, sink="database"}}': always(0),
        f"telegram_spool_reserve_bytes{{{GATEWAY}}}": always(16 * MEGA),
        f'telegram_flood_wait_remaining_seconds{{{GATEWAY}, method="getHistory"}}': always(0),
        f"telegram_clock_offset_seconds{{{GATEWAY}}}": always(0),
        f"telegram_worker_last_poll_timestamp_seconds{{{WORKER}}}": rising(60),
        f"telegram_worker_database_up{{{WORKER}}}": always(1),
        f'telegram_worker_messages_total{{{WORKER}, status="published"}}': rising(300),
        f'telegram_worker_messages_total{{{WORKER}, status="failed"}}': always(0),
        f"telegram_worker_poison_total{{{WORKER}}}": always(0),
        f"telegram_worker_cache_hits_total{{{WORKER}}}": rising(12),
        f'telegram_worker_cache_misses_total{{{WORKER}, reason="cold"}}': always(3),
        f"telegram_cache_breaker_state{{{WORKER}}}": always(0),
        f'telegram_api_requests_total{{{API}, method="GET", route="/api/messages", status="200"}}': rising(60),
        f"pg_up{{{POSTGRES}}}": always(1),
        f'pg_stat_activity_count{{{POSTGRES}, datname="telegram_gateway", state="idle"}}': always(20),
        f'pg_settings_max_connections{{{POSTGRES}, server="h:5434"}}': always(100),
        f"pg_stat_archiver_failed_count{{{POSTGRES}}}": always(2),
        f"pgbouncer_up{{{NODE}}}": always(1),
        f'pgbouncer_pools_client_waiting_connections{{{NODE}, database="telegram_gateway"}}': always(0),
        f'node_systemd_unit_state{{{NODE}, name="telegram-gateway.service", state="failed"}}': always(0),
        f"node_timex_offset_seconds{{{NODE}}}": always(0.001),
        f"node_memory_MemAvailable_bytes{{{NODE}}}": always(6000),
        f"node_memory_MemTotal_bytes{{{NODE}}}": always(10000),
        f'telegram_unit_memory_bytes{{{NODE}, unit="telegram-gateway.service"}}': always(100 * MEGA),
        f'telegram_unit_memory_limit_bytes{{{NODE}, unit="telegram-gateway.service"}}': always(300 * MEGA),
        f'node_filesystem_avail_bytes{{{NODE}, mountpoint="/", fstype="ext4"}}': always(60000),
        f'node_filesystem_size_bytes{{{NODE}, mountpoint="/", fstype="ext4"}}': always(100000),
        f'node_textfile_mtime_seconds{{{NODE}, file="/var/lib/prometheus/node-exporter/telegram_host.prom"}}': rising(
            60
        ),
        f'telegram_backup_last_run_ok{{{NODE}, job_name="backup"}}': always(1),
        f'telegram_backup_last_success_timestamp_seconds{{{NODE}, job_name="backup"}}': always(0),
        f'telegram_backup_last_success_timestamp_seconds{{{NODE}, job_name="restore_test"}}': always(0),
        'prometheus_rule_evaluation_failures_total{job="prometheus", instance="h:9090", rule_group="g"}': always(1),
        'prometheus_notifications_dropped_total{job="prometheus", instance="h:9090"}': always(0),
    }
    for labels, role in ((PRIMARY, "master"), (REPLICA, "slave")):
        found |= {
            f"up{{{labels}}}": always(1),
            f"redis_up{{{labels}}}": always(1),
            f'redis_instance_info{{{labels}, role="{role}"}}': always(1),
            f"redis_evicted_keys_total{{{labels}}}": rising(60),
        }
    found[f'redis_master_link_up{{{REPLICA}, master_host="h"}}'] = always(1)
    for queue, consumers in (
        ("telegram.consumer.signals", 1),
        ("telegram.consumer.signals.retry.1s", 0),
        ("telegram.messages.dlq", 0),
        ("telegram.unroutable", 0),
    ):
        labels = f'{QUEUES}, vhost="telegram", queue="{queue}"'
        found |= {
            f"rabbitmq_detailed_queue_messages{{{labels}}}": always(0),
            f"rabbitmq_detailed_queue_messages_ready{{{labels}}}": always(0),
            f"rabbitmq_detailed_queue_consumers{{{labels}}}": always(consumers),
        }
    return found
