"""What a dashboard is made of, as plain values.

Numbers that an operator may change (`[[ telegram_lag_limit_seconds ]]`) stay expressions of the role's templates: a
deployed dashboard has the limits that its alerts have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["lines", "stat"]
RATE = "[$__rate_interval]"


@dataclass(frozen=True)
class Query:
    """An expression of Prometheus and how its series are called, as in ``{{sink}}``."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Limit:
    """Where `alert` fires: a number, or an expression of the role. Red above it, or `below` it."""

    alert: str
    value: float | str
    below: bool = False


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture. `unit` is Grafana's name of it; `alerts` are told by what it shows, beside that of its `limit`.

    `states` names the values of a state, as in ``{0: "down", 1: "up"}``: 0 is bad and everything else good, unless
    `bad` says otherwise.
    """

    title: str
    text: str
    unit: str
    queries: Sequence[Query]
    kind: Kind = "lines"
    limit: Limit | None = None
    alerts: tuple[str, ...] = ()
    states: tuple[tuple[float, str], ...] = ()
    bad: tuple[float, ...] = (0,)
    stacked: bool = False
    width: int = 8

    @property
    def tells(self) -> tuple[str, ...]:
        """The alerts that this panel explains."""
        return ((self.limit.alert,) if self.limit else ()) + self.alerts


@dataclass(frozen=True)
class Variable:
    """A choice above the panels: the values of `label` that `metric` has."""

    name: str
    label: str
    metric: str
    title: str


@dataclass(frozen=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, kw_only=True)
class Page:
    """A dashboard. `only_with` is a condition of the role without which there is nothing to show."""

    name: str
    title: str
    text: str
    rows: Sequence[Row]
    variables: Sequence[Variable] = ()
    since: str = "now-6h"

    @property
    def uid(self) -> str:
        """What links name it by."""
        return f"telegram-{self.name}"

    def numbered(self) -> Iterator[tuple[int, Panel]]:
        """The panels, each with its id. Rows have ids too, from 100 on."""
        yield from enumerate((panel for row in self.rows for panel in row.panels), start=1)


def rate(metric: str, by: str = "", where: str = "") -> str:
    """The sum of a counter's rates, by labels."""
    grouped = f"sum by ({by}) " if by else "sum"
    return f"{grouped}(rate({metric}{{{where}}}{RATE}))" if where else f"{grouped}(rate({metric}{RATE}))"


def percentiles(metric: str, where: str = "", by: str = "", scale: int = 1) -> list[Query]:
    """The median and the tails of a histogram."""
    labels = f"{by}, le" if by else "le"
    chosen = f"{{{where}}}" if where else ""
    times = "" if scale == 1 else f"{scale} * "
    return [
        Query(
            f"{times}histogram_quantile({quantile}, sum by ({labels}) (rate({metric}_bucket{chosen}{RATE})))",
            f"p{quantile * 100:g}" + (f" {{{{{by}}}}}" if by else ""),
        )
        for quantile in (0.5, 0.95, 0.99)
    ]


def stat(title: str, text: str, unit: str, *queries: Query, **more: object) -> Panel:
    """A panel that shows the newest value alone."""
    return Panel(title=title, text=text, unit=unit, queries=queries, kind="stat", **{"width": 4, **more})  # type: ignore[arg-type]


def lines(title: str, text: str, unit: str, *queries: Query, **more: object) -> Panel:
    """A panel that shows values over time."""
    return Panel(title=title, text=text, unit=unit, queries=queries, **more)  # type: ignore[arg-type]
