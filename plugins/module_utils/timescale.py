# Copyright: the tradingsystem.telegram_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Background policies of TimescaleDB: what one is, how two differ, and which statement closes the difference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

ENGINES = ("timescale", "timescale_apache", "native")

PROCEDURES = {
    "compression": "policy_compression",
    "retention": "policy_retention",
    "refresh": "policy_refresh_continuous_aggregate",
    "reorder": "policy_reorder",
}
"""What the server calls the job of each policy."""

CONFIG_KEYS = {
    "compression": {"after": "compress_after"},
    "retention": {"after": "drop_after"},
    "refresh": {"start_offset": "start_offset", "end_offset": "end_offset"},
    "reorder": {"index": "index_name"},
}
"""Options of each policy, and what they are in its job's configuration."""

JOB_SETTINGS = {
    "every": "schedule_interval",
    "max_runtime": "max_runtime",
    "max_retries": "max_retries",
    "retry_period": "retry_period",
    "enabled": "scheduled",
}
"""Options of every policy, and what they are as columns of the job and arguments of alter_job."""

INTERVALS = ("after", "start_offset", "end_offset", "every", "max_runtime", "retry_period")
SETTINGS = ("after", "start_offset", "end_offset", "index", *JOB_SETTINGS)
"""Every option that is a setting of some policy, and those of them that are intervals."""

STORAGE = {"segment_by": "compress_segmentby", "order_by": "compress_orderby"}
"""Options that say how a relation is compressed, and what the server calls them."""

NEEDED = {"compression": ("after",), "retention": ("after",), "refresh": ("every",), "reorder": ("index",)}
"""What a policy cannot be made without."""

_ADD = {
    "compression": "add_compression_policy(%(relation)s::regclass, %(after)s::interval)",
    "retention": "add_retention_policy(%(relation)s::regclass, %(after)s::interval)",
    "refresh": (
        "add_continuous_aggregate_policy(%(relation)s::regclass, start_offset => %(start_offset)s::interval,"
        " end_offset => %(end_offset)s::interval, schedule_interval => %(every)s::interval)"
    ),
    "reorder": "add_reorder_policy(%(relation)s::regclass, %(index)s::name)",
}
_REMOVE = {
    "compression": "remove_compression_policy",
    "retention": "remove_retention_policy",
    "refresh": "remove_continuous_aggregate_policy",
    "reorder": "remove_reorder_policy",
}


class PolicyError(Exception):
    """A policy cannot be what was asked for; the text says what to do."""


@dataclass(frozen=True)
class Interval:
    """A span of time; two are equal when they are as long, whatever their words ("14 days", "2 weeks")."""

    span: timedelta
    text: str = field(compare=False)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Order:
    """One column by which rows are ordered within a compressed batch."""

    column: str
    ascending: bool = True
    nulls_first: bool = False

    def __str__(self) -> str:
        nulls = "" if self.nulls_first != self.ascending else f" NULLS {'FIRST' if self.nulls_first else 'LAST'}"
        return f"{self.column}{'' if self.ascending else ' DESC'}{nulls}"


def parse_order(text: str) -> Order:
    """Read `column [ASC|DESC] [NULLS FIRST|LAST]`. Raises PolicyError for anything else."""
    words = text.split()
    rest = [word.upper() for word in words[1:]]
    ascending = rest[:1] != ["DESC"]
    if rest[:1] in (["ASC"], ["DESC"]):
        rest = rest[1:]
    nulls = {(): not ascending, ("NULLS", "FIRST"): True, ("NULLS", "LAST"): False}.get(tuple(rest))
    if not words or nulls is None:
        raise PolicyError(f"order_by: {text!r} is not understood; write COLUMN [ASC|DESC] [NULLS FIRST|LAST].")
    return Order(words[0], ascending, nulls)


def engine(extension: str | None, license_name: str | None) -> str:
    """Which of the ENGINES it is, by the installed extension's version (None: not installed) and its license."""
    if extension is None:
        return "native"
    return "timescale" if license_name == "timescale" else "timescale_apache"


def skip_message(found: str, policy: str, relation: str) -> str:
    """Why nothing was done on an engine without policies."""
    return (
        f"Engine {found} has no {policy} policies, so {relation} got none. "
        "CALL telegram.run_maintenance() does their work there."
    )


def wanted(policy: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that `given` (options, None where absent) asks for. Raises PolicyError for one without meaning."""
    allowed = {*CONFIG_KEYS[policy], *JOB_SETTINGS}
    foreign = [name for name, value in given.items() if value is not None and name not in allowed]
    if foreign:
        raise PolicyError(f"{', '.join(sorted(foreign))}: without meaning for policy {policy}. Leave it out.")
    return {name: value for name, value in given.items() if value is not None}


def current(policy: str, job: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a job, by the names of the options. Intervals of its configuration stay text."""
    config = job["config"] or {}
    settings = {name: config.get(key) for name, key in CONFIG_KEYS[policy].items()}
    return settings | {name: job[column] for name, column in JOB_SETTINGS.items()}


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `after` that are other in `before`."""
    return {name: value for name, value in after.items() if before.get(name) != value}


def missing(policy: str, settings: Mapping[str, Any]) -> list[str]:
    """Options that a new policy lacks."""
    return [name for name in NEEDED[policy] if name not in settings]


def add_statement(policy: str) -> str:
    """The statement that makes the policy and gives its job's number; parameters by the options' names."""
    return f"SELECT {_ADD[policy]}"


def remove_statement(policy: str) -> str:
    """The statement that removes the policy of %(relation)s."""
    return f"SELECT {_REMOVE[policy]}(%(relation)s::regclass)"


def alter_statement(policy: str, names: Iterable[str]) -> str:
    """The statement that sets the options `names` of job %(job)s."""
    arguments, config = [], []
    for name in names:
        if name in JOB_SETTINGS:
            arguments.append(f"{JOB_SETTINGS[name]} => %({name})s")
        else:
            config.append(f"'{CONFIG_KEYS[policy][name]}', %({name})s::text")
    if config:
        build = f"jsonb_build_object({', '.join(config)})"
        old = "(SELECT config FROM timescaledb_information.jobs WHERE job_id = %(job)s)"
        arguments.append(f"config => {old} || {build}")
    return f"SELECT alter_job(%(job)s, {', '.join(arguments)})"


def texts(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` with intervals as text, as statements take them."""
    return {name: str(value) if isinstance(value, Interval) else value for name, value in settings.items()}


def shown(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` for people and JSON."""
    return {
        name: [str(each) for each in value] if name in STORAGE else value for name, value in texts(settings).items()
    }
