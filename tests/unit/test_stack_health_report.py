"""The health report: rows, table, sentence."""

from __future__ import annotations

from typing import Any

from ansible_collections.tradingsystem.telegram_stack.plugins.module_utils.health_report import (
    host_results,
    report,
    table,
)


def result(component: str, name: str, status: str, **fields: Any) -> dict[str, Any]:
    return {
        "component": component,
        "name": name,
        "status": status,
        "value": f"{name} is {status}",
        "threshold": "",
        "hint": "" if status == "ok" else f"mend {name}",
        "note": "",
        "version": "",
        "port": None,
        "unit": "",
        **fields,
    }


CHECKS = [
    {"component": "Redis primary", "name": "unit", "kind": "unit", "unit": "redis.service", "port": 6379},
    {"component": "RabbitMQ", "name": "queue", "kind": "off", "port": 5672},
]


def test_a_host_that_does_not_answer_has_failed_in_all_it_runs() -> None:
    found = host_results(CHECKS, {"unreachable": True, "msg": "ssh: no route"})
    assert [(entry["component"], entry["status"], entry["value"]) for entry in found] == [
        ("Redis primary", "failed", "host unreachable"),
        ("RabbitMQ", "off", "host unreachable"),
    ]
    assert found[0]["unit"] == "redis.service"


def test_an_answer_that_is_not_whole_is_none() -> None:
    answers: tuple[dict[str, Any], ...] = (
        {},
        {"failed": True, "msg": "no python\ntraceback"},
        {"results": []},
        {"results": None},
    )
    for answer in answers:
        assert host_results(CHECKS, answer)[0]["status"] == "failed"
    assert "no python" in host_results(CHECKS, {"msg": "no python\ntraceback"})[0]["value"]
    whole = [result("Redis primary", "unit", "ok"), result("RabbitMQ", "queue", "off")]
    assert host_results(CHECKS, {"results": whole}) == whole


def test_a_component_shows_its_first_worst_check_and_what_any_check_knows() -> None:
    made = report(
        {
            "a": [
                result("TimescaleDB", "unit", "ok", unit="pg.service", port=5434),
                result("TimescaleDB", "load", "degraded"),
                result("TimescaleDB", "query", "failed", version="17.2"),
                result("TimescaleDB", "more", "failed"),
            ]
        }
    )
    (row,) = made["components"]
    assert (row["status"], row["version"], row["port"], row["unit"]) == ("failed", "17.2", 5434, "pg.service")
    assert (row["problem"], row["action"]) == ("query: query is failed", "mend query")
    assert (made["status"], made["counts"]) == ("failed", {"ok": 0, "off": 0, "degraded": 0, "failed": 1})


def test_the_sentence_names_the_worst_first_and_who_is_off() -> None:
    made = report({"a": [result("B", "x", "degraded"), result("C", "y", "off")], "b": [result("D", "z", "failed")]})
    assert made["summary"] == ("2 of 3 components are not well (C off): D on b failed, B on a degraded; first: mend z")
    assert report({"a": [result("B", "x", "ok")]})["summary"] == "All 1 components are well."


def test_the_sentence_stays_one() -> None:
    made = report({"a": [result(f"C{number}", "x", "failed") for number in range(9)]})
    assert made["summary"].endswith("C4 on a failed and 4 more; first: mend x")


def test_nothing_checked_is_a_failure() -> None:
    assert report({})["status"] == "failed"
    assert "Nothing was checked" in report({"a": []})["summary"]


def test_the_table_is_aligned_and_explains_what_is_wrong() -> None:
    rows = report(
        {
            "a": [
                result("Prometheus", "unit", "ok", version="2.53", port=9090, unit="prometheus.service"),
                result("Redis", "unit", "failed", unit="redis.service"),
            ]
        }
    )["components"]
    assert table(rows).splitlines() == [
        "COMPONENT   STATE   VERSION  PORT  UNIT",
        "Prometheus  ok      2.53     9090  prometheus.service",
        "Redis       FAILED  -        -     redis.service",
        "            why: unit: unit is failed",
        "            do:  mend unit",
    ]
    assert table([*rows, {**rows[0], "host": "b"}]).startswith("HOST  COMPONENT")


def test_what_is_to_know_stands_below_a_component_that_is_well() -> None:
    remark = result("TimescaleDB", "failed messages", "ok", note="1 failed message to replay")
    made = report({"a": [result("TimescaleDB", "unit", "ok"), remark]})
    assert made["summary"] == "All 1 components are well."
    assert table(made["components"]).splitlines()[-1].strip() == "note: 1 failed message to replay"
