"""Pages as Grafana's JSON, by its own library. A number that the role fills in is left as the template's expression."""

from __future__ import annotations

import json
import re
from typing import Any, cast

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models

from tools.dashboards.page import Limit, Page, Panel, Variable

SOURCE = "telegram-prometheus"
"""The uid of the data source that the role provisions."""
HEADER = "#jinja2: variable_start_string:'[[', variable_end_string:']]'\n"
_MANAGED = "Managed by tradingsystem.telegram_stack: the next deployment takes back what is changed by hand."
_PROMETHEUS = models.DataSourceRef(type_val="prometheus", uid=SOURCE)
_RUNBOOK = "[[ monitoring_runbook_url ]]"
_COLUMNS = 24
_STAT_HEIGHT, _LINES_HEIGHT = 5, 8


def template(page: Page) -> str:
    """The role's template of a page. Its numbers stand without quotes where the role fills them in."""
    text = json.dumps(built(page), cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False)
    return HEADER + re.sub(r'"value": "(\[\[ [^"]+ \]\])"', r'"value": \1', text) + "\n"


def built(page: Page) -> models.Dashboard:
    """The page as a value of Grafana's library."""
    board = (
        dashboard.Dashboard(page.title)
        .uid(page.uid)
        .description(f"{page.text} {_MANAGED}")
        .tags(["telegram"])
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time(page.since, "now")
        .refresh("30s")
        .readonly()
        .link(
            dashboard.DashboardLink("Telegram")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["telegram"])
            .as_dropdown(True)
            .include_vars(False)
            .keep_time(True)
        )
    )
    board.variables([_variable(variable) for variable in page.variables])
    numbers = {id(panel): number for number, panel in page.numbered()}
    top = 0
    for index, row in enumerate(page.rows):
        board.with_row(dashboard.Row(row.title).id(100 + index).grid_pos(models.GridPos(h=1, w=_COLUMNS, x=0, y=top)))
        top, left, height = top + 1, 0, 0
        for panel in row.panels:
            if left + panel.width > _COLUMNS:
                top, left, height = top + height, 0, 0
            size = _STAT_HEIGHT if panel.kind == "stat" else _LINES_HEIGHT
            position = models.GridPos(h=size, w=panel.width, x=left, y=top)
            board.with_panel(_panel(panel).id(numbers[id(panel)]).grid_pos(position))
            left, height = left + panel.width, max(height, size)
        top += height
    return board.build()


def _variable(variable: Variable) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(variable.name)
        .label(variable.title)
        .datasource(_PROMETHEUS)
        .query({"query": f"label_values({variable.metric}, {variable.label})", "refId": variable.name})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )


def _panel(panel: Panel) -> stat.Panel | timeseries.Panel:
    shown = _stat() if panel.kind == "stat" else _lines(panel)
    shown.title(panel.title).description(_described(panel)).datasource(_PROMETHEUS).unit(panel.unit)
    for index, query in enumerate(panel.queries):
        asked = prometheus.Dataquery().ref_id(chr(ord("A") + index)).datasource(_PROMETHEUS).expr(query.expr).range()
        shown.with_target(asked.legend_format(query.legend))
    shown.links(
        [
            dashboard.DashboardLink(f"{alert}: what to do")
            .type(models.DashboardLinkType.LINK)
            .url(f"{_RUNBOOK}#{alert.lower()}")
            .target_blank(True)
            for alert in panel.tells
        ]
    )
    if panel.limit is not None:
        shown.thresholds(_thresholds(panel.limit))
    elif panel.states:
        shown.mappings([_states(panel)])
    if panel.unit in {"percent", "percentunit", "bool"}:
        shown.min(0)
    return shown


def _described(panel: Panel) -> str:
    told = f" Alerts: {', '.join(panel.tells)}." if panel.tells else ""
    return panel.text + told


def _stat() -> stat.Panel:
    newest = common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    return (
        stat.Panel()
        .reduce_options(newest)
        .graph_mode(common_models.BigValueGraphMode.NONE)
        .color_mode(common_models.BigValueColorMode.VALUE)
    )


def _lines(panel: Panel) -> timeseries.Panel:
    shown = (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(30 if panel.stacked else 5)
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.LIST)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI))
    )
    if panel.stacked:
        shown.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
    if panel.limit is not None:
        style = common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.LINE)
        shown.thresholds_style(style)
    return shown


def _thresholds(limit: Limit) -> dashboard.ThresholdsConfig:
    """A step's value is where its colour begins; the first has none."""
    base, beyond = ("red", "green") if limit.below else ("green", "red")
    value = cast(Any, limit.value)  # the role fills it in
    steps = [models.Threshold(value=None, color=base), models.Threshold(value=value, color=beyond)]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _states(panel: Panel) -> models.ValueMap:
    options = {
        f"{value:g}": models.ValueMappingResult(text=text, color="red" if value in panel.bad else "green", index=index)
        for index, (value, text) in enumerate(panel.states)
    }
    return models.ValueMap(options=options)
