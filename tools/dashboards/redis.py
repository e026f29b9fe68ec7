"""Redis, and what the services get from their cache."""

from __future__ import annotations

from tools.dashboards.page import RATE, Limit, Page, Query, Row, Variable, lines, rate, stat

_H = 'instance=~"$host"'


def _rate(metric: str) -> str:
    return f"sum by (instance) (rate({metric}{{{_H}}}{RATE}))"


_SERVERS = Row(
    "Instances",
    [
        stat(
            "Redis",
            "Whether each instance answers.",
            "short",
            Query(f"redis_up{{{_H}}}", "{{instance}}"),
            alerts=("RedisInstanceDown",),
            states=((0, "down"), (1, "up")),
            width=6,
        ),
        stat(
            "Role",
            "Which instance is the primary (master) now. Sentinel changes it.",
            "short",
            Query(f"sum by (instance, role) (redis_instance_info{{{_H}}})", "{{role}} {{instance}}"),
            alerts=("RedisClusterDown",),
            states=((1, "now"),),
            bad=(),
            width=6,
        ),
        stat(
            "Link to the primary",
            "Of a replica.",
            "short",
            Query(f"redis_master_link_up{{{_H}}}", "{{instance}}"),
            alerts=("RedisReplicaBroken",),
            states=((0, "lost"), (1, "whole")),
            width=6,
        ),
        stat(
            "Replica behind",
            "Since the primary last heard from it.",
            "s",
            Query(f"max by (instance) (redis_connected_slave_lag_seconds{{{_H}}})", "{{instance}}"),
            width=6,
        ),
        lines(
            "Memory",
            "In use, and what the instance may use.",
            "bytes",
            Query(f"redis_memory_used_bytes{{{_H}}}", "used {{instance}}"),
            Query(f"redis_memory_max_bytes{{{_H}}}", "limit {{instance}}"),
        ),
        lines(
            "Evicted keys",
            "Thrown out because memory is full. The cache then answers fewer polls.",
            "cps",
            Query(f"rate(redis_evicted_keys_total{{{_H}}}[5m])", "{{instance}}"),
            limit=Limit("RedisEvictions", "[[ monitoring_redis_evictions_limit ]]"),
        ),
        lines(
            "Keys",
            "In the database that the stack uses.",
            "short",
            Query(f'redis_db_keys{{{_H}, db="db0"}}', "{{instance}}"),
        ),
        lines(
            "Commands",
            "Of all clients, the replica's included.",
            "ops",
            Query(_rate("redis_commands_processed_total"), "{{instance}}"),
        ),
        lines(
            "Time of a command",
            "The mean inside the server: without network and waiting.",
            "s",
            Query(
                f"{_rate('redis_commands_duration_seconds_total')} / ({_rate('redis_commands_total')} > 0)",
                "{{instance}}",
            ),
        ),
        lines(
            "Keys asked for and found",
            "Of all clients.",
            "cps",
            Query(_rate("redis_keyspace_hits_total"), "found {{instance}}"),
            Query(_rate("redis_keyspace_misses_total"), "not found {{instance}}"),
        ),
        lines("Clients", "Connected ones.", "short", Query(f"redis_connected_clients{{{_H}}}", "{{instance}}")),
        lines(
            "Network",
            "Bytes a second.",
            "Bps",
            Query(_rate("redis_net_input_bytes_total"), "in {{instance}}"),
            Query(_rate("redis_net_output_bytes_total"), "out {{instance}}"),
        ),
        lines("Expired keys", "Their time was over.", "cps", Query(_rate("redis_expired_keys_total"), "{{instance}}")),
    ],
)

_SERVICES = Row(
    "What the services get from it",
    [
        lines(
            "Breaker",
            "0 closed: the cache is asked. 1 half-open: one call is trying. 2 open: not asked, all from the database.",
            "short",
            Query("max by (job, instance) (telegram_cache_breaker_state)", "{{job}}"),
            alerts=("CacheBreakerOpen",),
        ),
        lines(
            "Calls that failed",
            "Or took too long.",
            "cps",
            Query(rate("telegram_cache_failures_total", "job"), "{{job}}"),
        ),
        lines(
            "The worker's polls",
            "Answered by the cache alone, and those that needed the database, by reason.",
            "cps",
            Query(rate("telegram_worker_cache_hits_total"), "hit"),
            Query(rate("telegram_worker_cache_misses_total", "reason"), "miss: {{reason}}"),
        ),
        lines(
            "Polls that the cache answered",
            "Of the last 30 minutes.",
            "percent",
            Query("instance:telegram_worker_cache_hit:ratio_rate30m * 100", "{{instance}}"),
            limit=Limit("LowCacheHitRate", "[[ monitoring_cache_hit_limit_percent ]]", below=True),
        ),
        lines(
            "The API's answers",
            "By what the cache had. Changed: it had one that no longer holds.",
            "cps",
            Query(rate("telegram_api_cache_answers_total", "result"), "{{result}}"),
        ),
    ],
)

PAGE = Page(
    name="redis",
    title="Telegram: Redis",
    text="The cache: its instances, and what worker and API get from it.",
    variables=[Variable("host", "instance", "redis_up", "Instance")],
    rows=[_SERVERS, _SERVICES],
)
