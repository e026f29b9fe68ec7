"""Every alert fires for its fault and for nothing else: promtool runs the role's rules over made-up series."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.alert_cases import CASES, Case
from tests.unit.alert_rules import (
    API,
    FILES,
    GATEWAY,
    alerts,
    always,
    healthy,
    latency,
    promtool,
    rising,
    rules,
    settings,
    write,
)

REFERENCE = {
    "TelegramGatewayDown",
    "HighPollingLag",
    "RedisClusterDown",
    "DatabaseConnectionPoolExhausted",
    "MessageQueueBuilding",
    "LowCacheHitRate",
    "DiskSpaceLow",
    "HighMemoryUsage",
    "SlowDatabaseQueries",
    "DeadLetterQueueBuilding",
}
DEAD_MAN = "DeadMansSwitch"
FIRING = 'count by (alertname) (ALERTS{alertstate="firing"}) > bool 0'


def changed(series: dict[str, str], case: Case) -> dict[str, str]:
    """`series` after what happens in `case`. A change that meets no series adds one."""
    found: dict[str, str | None] = dict(series)
    for start, value in case.changes.items():
        shown = always(value) if isinstance(value, int | float) else value
        matching = [name for name in series if name.startswith(start)]
        assert matching or start.endswith("}"), f"{case.what}: no series begins with {start}"
        if start:
            found |= dict.fromkeys(matching or [start], shown)
        else:  # everything, with a hole
            found |= {name: holed(values) for name, values in series.items()}
    return {name: values.replace("x2000", f"x{case.at}") for name, values in found.items() if values is not None}


def holed(values: str) -> str:
    """20 minutes of `values`, ten of silence, then on as if the counters had begun again."""
    first, step = re.fullmatch(r"([\d.e+]+?)\+([\d.e]+)x\d+", values).groups()  # type: ignore[union-attr]
    after = first if float(step) != 60 else "1860"  # clocks go on
    return f"{first}+{step}x20 _x10 {after}+{step}x60"


Judged = tuple[str, dict[str, str], int, list[str]]
"""What happens, the series, the minute of the question, and the alerts that then fire."""


def suite(cases: list[Judged], files: list[str], step: str) -> dict[str, Any]:
    """promtool's file: after so many minutes of these series exactly these alerts fire."""
    return {
        "rule_files": files,
        "evaluation_interval": step,
        "group_eval_order": ["telegram_figures", "telegram_slo_objectives", "telegram_slo_burn", "telegram_slo_alerts"],
        "tests": [
            {
                "name": what,
                "interval": step,
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {
                        "expr": FIRING,
                        "eval_time": f"{at}m",
                        "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(firing)],
                    }
                ],
            }
            for what, series, at, firing in cases
        ],
    }


def judged(folder: Path, tests: dict[str, Any]) -> str:
    """What promtool has to say against `tests`; empty when all is as expected."""
    (folder / "tests.yml").write_text(yaml.safe_dump(tests, sort_keys=False), encoding="utf-8")
    code, said = promtool(folder, "test", "rules", "tests.yml")
    return "" if code == 0 else said


@pytest.mark.requirement("MO-02")
@pytest.mark.parametrize(
    "given",
    [{}, {"telegram_staged": True}, {"telegram_queue_enabled": False}, {"monitoring_components": ["prometheus"]}],
    ids=str,
)
def test_promtool_finds_the_rules_good(tmp_path: Path, given: dict[str, Any]) -> None:
    code, said = promtool(tmp_path, "check", "rules", *write(tmp_path, **given))
    assert code == 0, said
    assert "duplicate" not in said


@pytest.mark.requirement("MO-02")
def test_exactly_the_alerts_of_a_fault_fire(tmp_path: Path) -> None:
    files = write(tmp_path, tuple(name for name in FILES if name != "slo"))
    cases = [(case.what, changed(healthy(), case), case.at, [*case.firing, DEAD_MAN]) for case in CASES]
    assert judged(tmp_path, suite(cases, files, "1m")) == ""


@pytest.mark.requirement("MO-02")
def test_a_case_that_is_not_so_is_told(tmp_path: Path) -> None:
    files = write(tmp_path, ("recording", "data"))
    wrong = [("nothing happens", healthy(), 30, ["DatabaseDown"])]
    assert "DatabaseDown" in judged(tmp_path, suite(wrong, files, "1m"))


GATEWAY_DOWN = (f"up{{{GATEWAY}}}", f"telegram_connection_status{{{GATEWAY}}}")
ERRORS = f'telegram_api_requests_total{{{API}, method="GET", route="/api/messages", status="503"}}'
BOTH = "ErrorBudgetBurns ErrorBudgetBurnsFast"


def budgets(what: str, firing: str, hours: int, changes: dict[str, str]) -> Judged:
    """A healthy stack in steps of five minutes with `changes`, asked after so many hours."""
    looked_at = ('up{job="gateway', "telegram_connection", "telegram_api", "telegram_worker_latency")
    series = {name: values for name, values in healthy().items() if name.startswith(looked_at)} | changes
    cut = {name: values.replace("x2000", f"x{hours * 12}") for name, values in series.items()}
    return what, cut, hours * 60, firing.split()


SLO_CASES = [
    budgets("all is well", "", 3, {}),
    budgets("nobody asks the API", "", 3, {name: always(9) for name in healthy() if name.startswith("telegram_api")}),
    # 2 % of the requests: 20 times the budget of 0.1 %. The rates over days see only what there is.
    budgets("many errors of the API", BOTH, 2, {ERRORS: rising(1.2)}),
    # 0.35 %: too little to page, too much for a day.
    budgets("some errors of the API", "ErrorBudgetBurns", 8, {ERRORS: rising(0.21)}),
    budgets("few errors of the API", "", 8, {ERRORS: rising(0.03)}),
    # The windows of minutes see that it is over.
    budgets("errors that have ended", "", 12, {ERRORS: "0+0x48 0+1x4 4+0x2000"}),
    budgets("counters of the API reset", "", 9, {ERRORS: "900+0x100 0+0x2000"}),
    budgets("a gateway that is away", BOTH, 9, dict.fromkeys(GATEWAY_DOWN, "1+0x84 0+0x2000")),
    # 5 minutes: more than a month has, but over since two hours.
    budgets("a gateway that was away", "ErrorBudgetBurns", 9, dict.fromkeys(GATEWAY_DOWN, "1+0x83 0+0x1 1+0x2000")),
    budgets("late messages", BOTH, 9, latency(30.0)),
]


@pytest.mark.requirement("MO-03")
def test_error_budgets_burn_as_fast_as_they_are_missed(tmp_path: Path) -> None:
    assert judged(tmp_path, suite(SLO_CASES, write(tmp_path, ("slo",)), "5m")) == ""


@pytest.mark.requirement("MO-02")
def test_each_alert_has_a_case_that_makes_it_fire() -> None:
    fired = {alert for case in CASES for alert in case.firing} | {alert for *_, firing in SLO_CASES for alert in firing}
    assert set(alerts()) == fired | {DEAD_MAN}
    assert set(alerts()) >= REFERENCE


EASED = 1.25
"""What is this much nearer to good than a limit is still near it."""
SEEN = "count by (alertname) (count_over_time(ALERTS[2d])) + 0 * "
"""With the number of the case behind it, by which promtool's answer is told."""


def eased() -> dict[str, float]:
    """The limits, each so much nearer to what is good; those of 0 leave no room."""
    found = {}
    for name, value in settings().items():
        if "_limit_" in name or name.endswith(("_limit", "_silence_seconds")):
            down = name not in {"monitoring_disk_free_limit_percent", "monitoring_cache_hit_limit_percent"}
            found[name] = value / EASED if down else value * EASED
    return found


def seen(folder: Path, cases: list[Judged], files: tuple[str, ...], step: str, **given: Any) -> dict[str, set[str]]:
    """By case, every alert whose condition has held for a moment at least, with the settings `given`."""
    tests = suite(cases, write(folder, files, **given), step)
    for number, test in enumerate(tests["tests"]):
        test["promql_expr_test"][0] |= {"expr": SEEN + str(number), "exp_samples": []}  # so that it says what there is
    found = {}
    for told in judged(folder, tests).split(f'expr: "{SEEN}')[1:]:
        what = cases[int(told.partition('"')[0])][0]
        found[what] = set(re.findall(r'alertname="(\w+)"', told.partition("got:")[2]))
    return found


@pytest.mark.requirement("MO-02")
def test_each_alert_has_a_near_miss_that_must_not_make_it_fire(tmp_path: Path) -> None:
    """At its end it does not fire, though its condition held before, or would with a limit that is a little nearer."""
    plain = [(case.what, changed(healthy(), case), case.at, [*case.firing]) for case in CASES if case.at <= 120]
    lacking = set(alerts()) - {DEAD_MAN}
    for cases, files, step in ((plain, FILES[:-1], "1m"), (SLO_CASES, FILES[-1:], "5m")):
        firing = {what: set(firing) for what, *_, firing in cases}
        assert len(firing) == len(cases), "two cases have one name"
        touched = seen(tmp_path, cases, files, step, **eased())
        assert all(expected <= touched.get(what, set()) for what, expected in firing.items())
        lacking -= set().union(*(found - firing[what] for what, found in touched.items()))
    assert lacking == set()


@pytest.mark.requirement("MO-04")
def test_each_alert_says_how_bad_what_why_and_where_to_read_on() -> None:
    for name, alert in alerts(monitoring_runbook_url="https://docs.example/troubleshooting.html").items():
        assert alert["labels"]["severity"] in ({"none"} if name == DEAD_MAN else {"critical", "warning"}), name
        told = alert["annotations"]
        assert told["summary"], name
        assert told["description"].endswith("."), name
        assert told["runbook_url"] == f"https://docs.example/troubleshooting.html#{name.lower()}"


@pytest.mark.requirement("MO-04")
def test_an_alert_reads_as_a_sentence(tmp_path: Path) -> None:
    tests = suite(
        [("gateway", {'up{job="gateway", instance="h:4006"}': always(0)}, 5, [])], write(tmp_path, ("services",)), "1m"
    )
    tests["tests"][0].pop("promql_expr_test")
    tests["tests"][0]["alert_rule_test"] = [
        {
            "eval_time": "5m",
            "alertname": "TelegramGatewayDown",
            "exp_alerts": [
                {
                    "exp_labels": {"severity": "critical", "job": "gateway", "instance": "h:4006"},
                    "exp_annotations": {
                        **alerts()["TelegramGatewayDown"]["annotations"],
                        "description": "The gateway h:4006 has not answered for 2 minutes: nothing is received. "
                        "Telegram keeps what is posted meanwhile.",
                    },
                }
            ],
        }
    ]
    assert judged(tmp_path, tests) == ""


@pytest.mark.requirement("MO-02")
def test_limits_and_patience_are_the_settings() -> None:
    found = alerts(
        telegram_pool_waiting_limit=77,
        telegram_dead_letters_limit=88,
        telegram_lag_limit_seconds=99,
        monitoring_alert_patience=0.1,
    )
    assert found["DatabaseConnectionPoolExhausted"]["expr"].endswith("> 77")
    assert found["DeadLetterQueueBuilding"]["expr"].endswith("> 88")
    assert found["SinkBehind"]["expr"].endswith("> 99")
    assert found["HighPollingLag"]["expr"].endswith("> 99")
    assert found["DatabaseConnectionPoolExhausted"]["for"] == "12s"


def test_a_stack_before_its_cut_over_is_not_called_silent() -> None:
    names = set(alerts(telegram_staged=True))
    assert not names & {"TelegramGatewayDown", "HighPollingLag", "QueueWithoutConsumer", "LowCacheHitRate"}
    assert {"DatabaseDown", "SlowDatabaseQueries", "DiskSpaceLow", DEAD_MAN} <= names
    assert [rule for rule in rules(telegram_staged=True) if rule.get("record") == "slo:gateway_available:bool"] == []
