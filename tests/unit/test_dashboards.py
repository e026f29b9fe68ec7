"""The dashboards are current, show what is counted, and agree with the alerts that they explain."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from roles.monitoring.files.dashboard_check import SOURCE, expressions, faults
from tests.unit.alert_rules import ROOT, alerts, rules
from tests.unit.dashboards import NAMES, TEMPLATES, board, panels, render
from tests.unit.test_runbook import SECTIONS
from tools.dashboards.__main__ import files
from tools.dashboards.build import SOURCE as BUILT_FOR
from tools.dashboards.pages import PAGES, homes
from tools.dashboards.pictures import legend, with_unit
from tools.metrics import known

UNITS = {"s", "ms", "h", "bytes", "Bps", "cps", "ops", "reqps", "percent", "percentunit", "short", "bool"}
OTHERS = frozenset(re.findall(r"\w+", """
node_boot_time_seconds node_cpu_seconds_total node_disk_read_bytes_total node_disk_written_bytes_total node_load1
node_load5 node_network_receive_bytes_total node_network_transmit_bytes_total node_systemd_unit_state
node_textfile_mtime_seconds node_timex_offset_seconds node_uname_info pg_database_size_bytes pg_locks_count
pg_settings_max_connections pg_stat_activity_count pg_stat_activity_max_tx_duration pg_stat_archiver_archived_count
pg_stat_archiver_failed_count pg_stat_database_blks_hit pg_stat_database_blks_read pg_stat_database_deadlocks
pg_stat_database_temp_files pg_stat_database_tup_deleted pg_stat_database_tup_fetched pg_stat_database_tup_inserted
pg_stat_database_tup_updated pg_stat_database_xact_commit pg_stat_database_xact_rollback pg_up
prometheus_notifications_dropped_total prometheus_rule_evaluation_failures_total
rabbitmq_alarms_free_disk_space_watermark rabbitmq_alarms_memory_used_watermark rabbitmq_channels rabbitmq_connections
rabbitmq_connections_closed_total rabbitmq_connections_opened_total rabbitmq_detailed_queue_consumers
rabbitmq_detailed_queue_messages rabbitmq_detailed_queue_messages_ready rabbitmq_disk_space_available_bytes
rabbitmq_disk_space_available_limit_bytes rabbitmq_global_messages_acknowledged_total
rabbitmq_global_messages_confirmed_total rabbitmq_global_messages_delivered_total
rabbitmq_global_messages_received_total rabbitmq_global_messages_redelivered_total
rabbitmq_global_messages_unroutable_dropped_total rabbitmq_identity_info rabbitmq_process_resident_memory_bytes
rabbitmq_resident_memory_limit_bytes redis_commands_duration_seconds_total redis_commands_processed_total
redis_commands_total redis_connected_clients redis_connected_slave_lag_seconds redis_db_keys redis_evicted_keys_total
redis_expired_keys_total redis_instance_info redis_keyspace_hits_total redis_keyspace_misses_total
redis_master_link_up redis_memory_max_bytes redis_memory_used_bytes redis_net_input_bytes_total
redis_net_output_bytes_total redis_up up ALERTS
"""))  # fmt: skip
"""What the exporters, RabbitMQ and Prometheus count, as seen on a running stack of each Debian."""

every_board = pytest.mark.parametrize("name", NAMES)


@pytest.mark.requirement("MO-03")
def test_the_files_are_what_the_pages_say() -> None:
    made = files()
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is out of date: run python -m tools.dashboards"
    assert {path for path in made if path.suffix == ".j2"} == set(TEMPLATES.iterdir())
    assert tuple(page.name for page in PAGES) == NAMES
    assert SOURCE == BUILT_FOR


@pytest.mark.requirement("MO-03")
@every_board
def test_each_dashboard_is_good_as_the_role_judges_it(name: str) -> None:
    assert faults(render(name)) == []


def test_no_two_dashboards_or_panels_are_taken_for_each_other() -> None:
    boards = [board(name) for name in NAMES]
    assert len({found["uid"] for found in boards}) == len({found["title"] for found in boards}) == len(NAMES)
    for found in boards:
        titles = [panel["title"] for panel in found["panels"]]
        assert len(titles) == len(set(titles)), found["title"]


@every_board
def test_panels_lie_beside_each_other(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in board(name)["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells


@every_board
def test_units_are_ones_that_grafana_knows(name: str) -> None:
    assert {panel["fieldConfig"]["defaults"]["unit"] for panel in panels(name)} <= UNITS


@every_board
def test_variables_ask_the_same_data_source_and_are_used(name: str) -> None:
    asked = " ".join(target["expr"] for panel in panels(name) for target in panel["targets"])
    for variable in board(name)["templating"]["list"]:
        assert variable["datasource"]["uid"] == SOURCE
        assert f"${variable['name']}" in asked, variable["name"]
        assert variable["allValue"] == ".*"
        assert names_in(variable["query"]["query"]) <= metrics()
    assert ("host" in {variable["name"] for variable in board(name)["templating"]["list"]}) == (
        name not in {"overview", "slo"}
    )


def metrics() -> set[str]:
    """Every name that a panel may ask for."""
    names = {rule["record"] for rule in rules() if "record" in rule} | set(OTHERS)
    for row in known():
        parts = ("_bucket", "_sum", "_count") if row.kind == "histogram" else ("",)
        names |= {row.name + part for part in parts}
    return names


def names_in(expression: str) -> set[str]:
    """The metrics that an expression asks for: what stands before a brace, a bracket or an end, and is no function."""
    without = re.sub(r'"[^"]*"|\b(?:by|on|without) *\([^)]*\)|\{[^}]*\}|, \w+\)$', " ", expression)
    name = r"[a-z]+_\w+|[a-z_]+:\w[\w:]*|up|ALERTS"
    return set(re.findall(rf"(?<![\w:$.])(?:{name})\b(?! *\()", without))


@every_board
def test_panels_ask_for_metrics_that_are_counted(name: str) -> None:
    asked = set().union(*(names_in(expr) for expr in expressions(board(name))))
    assert len(asked) >= 5
    assert asked <= metrics(), asked - metrics()


def test_every_other_metric_that_is_listed_is_asked_for() -> None:
    asked: set[str] = set()
    for found in map(board, NAMES):
        asked = asked.union(*(names_in(expr) for expr in expressions(found)))
        asked = asked.union(*(names_in(variable["query"]["query"]) for variable in found["templating"]["list"]))
    assert set(OTHERS) <= asked, OTHERS - asked


def steps(panel: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
    return found


def other_limits() -> dict[str, Any]:
    """The limits of an operator who has changed all of them, each to a number of its own."""
    defaults: dict[str, Any] = {}
    for role in ("common", "monitoring"):
        defaults |= yaml.safe_load((ROOT / "roles" / role / "defaults/main.yml").read_text(encoding="utf-8"))
    names = [name for name in defaults if re.search(r"_limit(_|$)|polling_silence", name)]
    return {name: 10_007 + number for number, name in enumerate(names)}


@pytest.mark.requirement("MO-03")
@pytest.mark.parametrize("given", [{}, other_limits()], ids=["defaults", "an operator's limits"])
def test_red_begins_where_the_alert_does(given: dict[str, Any]) -> None:
    found = alerts(**given)
    drawn = set()
    for page in PAGES:
        shown = {panel["id"]: panel for panel in panels(page.name, **given)}
        for number, panel in page.numbered():
            if panel.limit is None:
                assert steps(shown[number]) == [], panel.title
                continue
            first, second = steps(shown[number])
            sign = "<" if panel.limit.below else ">"
            assert (first["color"], second["color"]) == (("red", "green") if panel.limit.below else ("green", "red"))
            limits = [float(limit) for limit in re.findall(rf"{sign} ([\d.]+)", found[panel.limit.alert]["expr"])]
            assert second["value"] in limits, (panel.title, second["value"], limits)
            drawn.add(panel.limit.alert)
    assert len(drawn) >= 18


@pytest.mark.requirement("MO-03", "MO-04")
def test_each_alert_leads_to_its_panel_and_the_panel_to_the_runbook() -> None:
    found = alerts(monitoring_grafana_url="https://grafana.example", monitoring_runbook_url="https://docs.example/t")
    assert set(homes()) == set(found) == set(SECTIONS)
    shown = {
        f"https://grafana.example/d/{board(name)['uid']}?viewPanel={panel['id']}": panel
        for name in NAMES
        for panel in panels(name, monitoring_runbook_url="https://docs.example/t")
    }
    for name, alert in found.items():
        panel = shown[alert["annotations"]["dashboard_url"]]
        assert alert["annotations"]["runbook_url"] in {link["url"] for link in panel["links"]}, name
        assert name in panel["description"]


def test_without_grafana_an_alert_links_to_the_runbook_alone() -> None:
    for name, alert in alerts(monitoring_grafana_url="").items():
        assert "dashboard_url" not in alert["annotations"], name


GOOD = render("slo")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (GOOD[:-20], "it is no JSON"),
        ("[]", "it is no JSON object"),
        (GOOD.replace('"uid": "telegram-slo"', '"uid": ""'), "it has no uid"),
        (GOOD.replace('"id": 2,', '"id": 1,'), "several panels have the id 1"),
        (GOOD.replace('"unit": "bool"', '"unit": ""'), "'Gateway available': it has no unit"),
        (GOOD.replace('"uid": "telegram-prometheus"', '"uid": "P1809F7CD0C75ACF3"'), "data source is not"),
        (GOOD.replace('"value": 14.4', '"value": "14.4"'), "its thresholds are no rising numbers"),
        (GOOD.replace('"expr": "slo:objective:ratio"', '"expr": ""'), "an expression is empty"),
        (GOOD.replace('"expr": "slo:objective:ratio"', '"expr": "up{job=\\"$jb\\"}"'), "there is no variable jb"),
        (GOOD.replace('"expr": "slo:objective:ratio"', '"expr": "rate(up)"'), "expected type range vector"),
        (render("slo", monitoring_runbook_url='https://docs.example/"a"'), "it is no JSON"),
    ],
    ids=lambda value: value if len(value) < 60 else "",
)
def test_a_bad_dashboard_is_told(broken: str, said: str) -> None:
    assert said in "; ".join(faults(broken))


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.0125, "s", "12.5 ms"),
        (301, "s", "301 s"),
        (57410, "s", "15.95 h"),
        (0.0000085, "s", "8.5 µs"),
        (262144, "bytes", "256 KiB"),
        (1500, "Bps", "1.5 kB/s"),
        (0.999, "percentunit", "99.9 %"),
        (80, "percent", "80 %"),
        (0, "cps", "0 /s"),
        (1200, "short", "1.2 k"),
    ],
)
def test_a_picture_has_values_as_people_read_them(value: float, unit: str, shown: str) -> None:
    assert with_unit(value, unit) == shown


def test_a_picture_knows_every_unit() -> None:
    assert all(with_unit(1, unit) for unit in UNITS)


@pytest.mark.parametrize("name", ["a", "127.0.0.1:9100 and more", "/a/mount/point/" * 20])
def test_a_legend_stays_inside_its_panel(name: str) -> None:
    figure = Figure(figsize=(3, 2))
    axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    for _ in range(3):
        axes.plot([0, 1], [0, 1], label=name)
    legend(axes, 2.4)
    FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    shown = axes.get_legend()
    assert shown is not None
    assert axes.bbox.containsx(shown.get_window_extent().x1)
