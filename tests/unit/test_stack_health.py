"""Health checks: from an answer to a finding, and from findings to one word. No server."""

from __future__ import annotations

import time
from typing import Any

import pytest
import yaml
from ansible_collections.tradingsystem.telegram_stack.plugins.module_utils import health, health_judge
from ansible_collections.tradingsystem.telegram_stack.plugins.module_utils.health import Finding, NoAnswer
from ansible_collections.tradingsystem.telegram_stack.plugins.module_utils.health_drivers import DRIVERS
from ansible_collections.tradingsystem.telegram_stack.plugins.modules import stack_health

RUNNING = "LoadState=loaded\nActiveState=active\nSubState=running\nResult=success\n"
STATES = {"healthy": "ok", "degraded": "degraded"}


def unit(text: str, *, required: bool = True, now: float = 10_000.0) -> Finding:
    return health_judge.unit(text, now, "x.service", required, 3)


@pytest.mark.parametrize(
    ("shown", "status", "value"),
    [
        (RUNNING + "NRestarts=0\nActiveEnterTimestampMonotonic=1000000", "ok", "active (running)"),
        (RUNNING + "NRestarts=9\nActiveEnterTimestampMonotonic=1000000", "ok", "active (running)"),  # long ago
        (RUNNING + "NRestarts=9\nActiveEnterTimestampMonotonic=9990000000", "degraded", "9 times, last 10 s ago"),
        ("LoadState=not-found\nActiveState=inactive", "failed", "not installed"),
        ("LoadState=masked\nActiveState=inactive", "failed", "masked"),
        ("LoadState=loaded\nActiveState=inactive\nSubState=dead", "failed", "stopped"),
        ("LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=oom-kill", "failed", "oom-kill"),
        ("LoadState=loaded\nActiveState=activating\nSubState=auto-restart\nResult=signal", "failed", "keeps ending"),
        ("LoadState=loaded\nActiveState=activating\nSubState=start", "degraded", "starting"),
    ],
)
def test_unit_states(shown: str, status: str, value: str) -> None:
    found = unit(shown)
    assert (found.status, value in found.value) == (status, True), found
    assert bool(found.hint) == (status != "ok")


@pytest.mark.parametrize("shown", ["", "garbage", "LoadState=loaded", RUNNING, RUNNING + "NRestarts=\n"])
def test_a_unit_that_systemd_does_not_describe_is_no_answer(shown: str) -> None:
    with pytest.raises(NoAnswer):
        unit(shown)


def test_a_missing_unit_is_off_only_where_it_may_be_missing() -> None:
    assert unit("LoadState=not-found\nActiveState=inactive", required=False).status == "off"


@pytest.mark.parametrize(
    ("code", "body", "status", "value"),
    [
        (200, '{"status": "healthy", "version": "0.1.0"}', "ok", "healthy"),
        (200, '{"status": "degraded", "causes": ["cache down"]}', "degraded", "degraded: cache down"),
        (503, '{"status": "unhealthy"}', "failed", "unhealthy"),
        (200, '{"status": "brilliant"}', "failed", "brilliant"),
        (
            503,
            '{"status": "unhealthy", "components": {"queue": {"status": "unhealthy", "reason": "away"},'
            ' "database": {"status": "healthy"}}}',
            "failed",
            "unhealthy: queue unhealthy (away)",
        ),
    ],
)
def test_a_service_is_believed_its_own_state(code: int, body: str, status: str, value: str) -> None:
    found = health_judge.http_json(code, body, "status", STATES)
    assert (found.status, found.value) == (status, value)


@pytest.mark.parametrize(
    ("code", "body"),
    [
        (200, ""),
        (200, "<html>"),
        (200, "[]"),
        (200, "{}"),
        (200, '{"status": null}'),
        (200, '{"status": 1}'),
        (503, '{"status": "healthy"}'),
    ],
)
def test_a_state_that_cannot_be_read_is_no_answer(code: int, body: str) -> None:
    with pytest.raises(NoAnswer):
        health_judge.http_json(code, body, "status", STATES)


EXPOSITION = """# HELP pg_up Whether the last scrape was well
go_build_info{version="v1"} 1
postgres_exporter_build_info{branch="a b",version="0.17.1"} 1
pg_up 1
pg_upper 0
redis_up{instance="a"} 1
redis_up{instance="b"} 0
pg_odd NaN
pg_bad one
"""


@pytest.mark.parametrize(("metric", "status"), [("pg_up", "ok"), ("redis_up", "failed"), ("pg_odd", "failed")])
def test_every_sample_of_a_metric_counts(metric: str, status: str) -> None:
    found = health_judge.metrics(EXPOSITION, metric, 1)
    assert (found.status, found.version) == (status, "0.17.1")


def test_the_samples_that_are_too_low_are_named() -> None:
    assert health_judge.metrics(EXPOSITION, "redis_up", 1).value == "redis_up 0 (b)"


@pytest.mark.parametrize("metric", ["pg", "absent", "pg_bad"])
def test_a_metric_that_is_not_there_is_no_answer(metric: str) -> None:
    with pytest.raises(NoAnswer):
        health_judge.metrics(EXPOSITION, metric, 1)


@pytest.mark.parametrize(
    ("value", "status"), [(0, "ok"), ("80", "ok"), (80.1, "degraded"), (97, "degraded"), (98, "failed")]
)
def test_numbers_have_two_thresholds(value: object, status: str) -> None:
    assert health_judge.number(value, "percent", 80, 97, "17").status == status


@pytest.mark.parametrize("value", [None, "", "many", float("nan")])
def test_what_is_no_number_is_no_answer_rather_than_zero(value: object) -> None:
    with pytest.raises(NoAnswer):
        health_judge.number(value, "percent", 80, 97, "17")


def info(**fields: str) -> dict[str, str]:
    text = "# Replication\r\n" + "".join(f"{key}:{value}\r\n" for key, value in fields.items())
    return dict(health_judge.info(text))


@pytest.mark.requirement("RD-02")
def test_redis_roles_may_change_but_a_replica_needs_its_link() -> None:
    assert health_judge.redis(info(role="master", connected_slaves="1")).status == "ok"
    assert health_judge.redis(info(role="slave", master_link_status="up")).status == "ok"
    assert health_judge.redis(info(role="slave", master_link_status="down")).status == "failed"
    assert health_judge.redis(info(role="slave")).status == "failed"
    for nonsense in (info(), info(role="king")):
        with pytest.raises(NoAnswer):
            health_judge.redis(nonsense)


ONE, TWO, SENTINEL = ("10.0.0.1", 6379), ("10.0.0.1", 6380), ("s", 26379)


@pytest.mark.parametrize(
    ("answers", "roles", "replicas", "status"),
    [
        ({SENTINEL: ONE}, {ONE: "master", TWO: "slave"}, 1, "ok"),
        ({SENTINEL: TWO}, {ONE: "slave", TWO: "master"}, 1, "ok"),  # failed over
        ({SENTINEL: ONE}, {ONE: "master", TWO: ""}, 0, "degraded"),
        ({SENTINEL: ONE}, {ONE: "slave", TWO: "master"}, 1, "failed"),
        ({SENTINEL: ONE}, {ONE: "master", TWO: "master"}, 1, "failed"),
        ({SENTINEL: ONE}, {ONE: "", TWO: ""}, 1, "failed"),
        ({SENTINEL: ONE, ("t", 26379): TWO}, {ONE: "master", TWO: "slave"}, 1, "failed"),
    ],
)
def test_sentinels_and_instances_must_agree(
    answers: dict[Any, Any], roles: dict[Any, str], replicas: int, status: str
) -> None:
    assert health_judge.sentinel(answers, roles, replicas, "8.0").status == status


@pytest.mark.requirement("MQ-01")
def test_a_rabbitmq_node_without_statistics_has_not_given_the_all_clear() -> None:
    good = {"name": "rabbit@a", "running": True, "mem_alarm": False, "disk_free_alarm": False}
    overview = {"rabbitmq_version": "4.0.5"}
    assert health_judge.rabbitmq_nodes(overview, [good])[:2] == ("ok", "1 node running, no alarm")
    for bad in ({**good, "running": False}, {**good, "mem_alarm": True}, {"name": "rabbit@a", "running": True}):
        assert health_judge.rabbitmq_nodes(overview, [good, bad]).status == "failed"
    answers: tuple[Any, ...] = ([], {}, None)
    for nonsense in answers:
        with pytest.raises(NoAnswer):
            health_judge.rabbitmq_nodes(overview, nonsense)


@pytest.mark.parametrize(
    ("queues", "status"),
    [
        ([{"name": "dlq", "messages": 0}, {"name": "work", "messages": 10, "consumers": 1}], "ok"),
        ([{"name": "dlq", "messages": 6}, {"name": "work", "messages": 0, "consumers": 1}], "degraded"),
        ([{"name": "dlq", "messages": 0}, {"name": "work", "messages": 0, "consumers": 0}], "degraded"),
        ([{"name": "dlq", "messages": 0}], "failed"),
        ([], "failed"),
    ],
)
def test_queue_depths_and_consumers(queues: list[dict[str, Any]], status: str) -> None:
    limits = [{"queue": "dlq", "messages": 5, "consumers": 0}, {"queue": "wor*", "messages": 100, "consumers": 1}]
    assert health_judge.rabbitmq_queues(queues, limits).status == status


def test_a_queue_without_a_depth_is_no_answer_rather_than_empty() -> None:
    with pytest.raises(NoAnswer):
        health_judge.rabbitmq_queues([{"name": "dlq"}], [{"queue": "dlq", "messages": 5}])


def targets(*states: str) -> dict[str, Any]:
    return {"data": {"activeTargets": [{"labels": {"job": f"job{i}"}, "health": was} for i, was in enumerate(states)]}}


@pytest.mark.requirement("MO-01")
def test_prometheus_must_have_targets_and_reach_them() -> None:
    assert health_judge.prometheus_targets(targets("up", "up")).status == "ok"
    degraded = health_judge.prometheus_targets(targets("up", "down", "unknown"))
    assert (degraded.status, degraded.value.startswith("2 of 3 targets: job1")) == ("degraded", True)
    assert health_judge.prometheus_targets(targets("up", "down"), ["job1"]).status == "ok"
    assert health_judge.prometheus_targets(targets()).status == "failed"
    with pytest.raises(NoAnswer):
        health_judge.prometheus_targets({"status": "error"})


def check(**fields: Any) -> dict[str, Any]:
    return {"component": "A", "name": "b", "kind": "test", "timeout": 1.0, "port": 1, "unit": "a.service", **fields}


@pytest.mark.parametrize("error", [NoAnswer("nothing came"), ValueError("nothing came"), OSError("nothing came")])
def test_whatever_goes_wrong_within_a_check_is_its_failure(error: Exception) -> None:
    def driver(_check: health.Check) -> Finding:
        raise error

    result = health.run_check(check(), {"test": driver})
    assert (result["status"], "nothing came" in result["value"]) == ("failed", True)
    assert result["hint"] == "journalctl -u a.service -n 50"


def test_a_check_that_hangs_is_given_up() -> None:
    def driver(_check: health.Check) -> Finding:
        time.sleep(30)
        return Finding("ok", "too late")

    result = health.run_check(check(timeout=0.01), {"test": driver})
    assert (result["status"], result["value"]) == ("failed", "no answer within 0.03 s")


def test_an_unknown_state_is_a_failure() -> None:
    assert health.run_check(check(), {"test": lambda _: Finding("splendid", "")})["status"] == "failed"
    assert health.run_check(check(kind="unheard of"), {})["status"] == "failed"


def test_behind_a_unit_that_may_be_missing_nothing_is_asked() -> None:
    def refuse(_check: health.Check) -> Finding:
        raise AssertionError("asked")

    checks = [check(kind="gone"), check(name="c", kind="refuse"), check(component="B", kind="gone")]
    results = health.run_checks(checks, {"gone": lambda _: Finding("off", "not installed"), "refuse": refuse})
    assert [(result["component"], result["name"], result["status"]) for result in results] == [
        ("A", "b", "off"),
        ("A", "c", "off"),
        ("B", "b", "off"),
    ]


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        (["ok", "off"], "ok"),
        (["off"], "ok"),
        (["ok", "degraded", "off"], "degraded"),
        (["degraded", "failed", "ok"], "failed"),
        ([], "failed"),
        (["ok", "???"], "failed"),
    ],
)
def test_the_worst_counts_and_nothing_is_a_failure(statuses: list[str], status: str) -> None:
    assert health.worst(statuses) == status


def test_the_documentation_describes_every_option() -> None:
    def compare(spec: dict[str, Any], documented: dict[str, Any]) -> None:
        assert set(spec) == set(documented)
        for name, option in spec.items():
            for key in ("type", "elements", "choices", "default", "required"):
                assert option.get(key) == documented[name].get(key), (name, key)
            compare(option.get("options", {}), documented[name].get("suboptions", {}))

    compare(stack_health.argument_spec(), yaml.safe_load(stack_health.DOCUMENTATION)["options"])


def test_every_kind_has_a_driver() -> None:
    assert set(DRIVERS) == set(stack_health.NEEDED)
