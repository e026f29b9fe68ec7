# Copyright: Telegram hybrid stack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From a component's answer to a finding. Pure functions; an answer that is not understood raises NoAnswer."""

from __future__ import annotations

import fnmatch
import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .health import DEGRADED, FAILED, OFF, OK, Finding, NoAnswer

RECENT_SECONDS = 600
"""A unit that has been up for so long has got over its restarts."""


def unit(text: str, uptime_clock: float, name: str, required: bool, restarts: int) -> Finding:
    """Judge `systemctl show` output. `uptime_clock` is CLOCK_MONOTONIC in seconds."""
    shown = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    load, active = shown.get("LoadState"), shown.get("ActiveState")
    if not load or not active:
        raise NoAnswer("systemd did not say what state the unit is in")
    if load == "not-found":
        hint = "run playbooks/deploy.yml for this host"
        return Finding(FAILED if required else OFF, "not installed", hint=hint if required else "")
    if load != "loaded":
        return Finding(FAILED, f"unit is {load}", hint=f"systemctl status {name}")
    if active not in ("active", "reloading"):
        return _not_running(active, shown, name)
    try:
        done = int(shown["NRestarts"])
        up = uptime_clock - int(shown["ActiveEnterTimestampMonotonic"]) / 1e6
    except (KeyError, ValueError) as error:
        raise NoAnswer(f"systemd did not say how often the unit restarted ({error})") from error
    threshold = f"at most {restarts} restarts within {RECENT_SECONDS} s"
    if done > restarts and up < RECENT_SECONDS:
        value = f"restarted by itself {done} times, last {up:.0f} s ago"
        return Finding(DEGRADED, value, threshold, f"journalctl -u {name} -n 200")
    return Finding(OK, f"active ({shown.get('SubState', '?')})", threshold)


def _not_running(active: str, shown: Mapping[str, str], name: str) -> Finding:
    journal, result = f"journalctl -u {name} -n 50", shown.get("Result") or "unknown"
    if shown.get("SubState") == "auto-restart":
        return Finding(FAILED, f"keeps ending ({result})", hint=journal)
    if active == "activating":
        return Finding(DEGRADED, "starting", hint=f"wait a minute, then {journal}")
    if active == "failed":
        return Finding(FAILED, f"failed ({result})", hint=f"{journal}; systemctl restart {name}")
    return Finding(FAILED, f"stopped ({active})", hint=f"systemctl start {name}")


def http_text(status: int, body: str, accepted: Sequence[int]) -> Finding:
    """Judge a plain HTTP answer by its status code."""
    threshold = "HTTP " + " or ".join(map(str, accepted))
    if status in accepted:
        return Finding(OK, f"HTTP {status}", threshold)
    return Finding(FAILED, f"HTTP {status} {body[:80]}".strip(), threshold)


def http_json(status: int, body: str, field: str, states: Mapping[str, str]) -> Finding:
    """Judge the state in `field` of a JSON body, whatever the HTTP status; a state not in `states` has failed."""
    try:
        document = json.loads(body)
    except ValueError as error:
        raise NoAnswer(f"HTTP {status} without JSON") from error
    if not isinstance(document, dict) or not isinstance(document.get(field), str):
        raise NoAnswer(f"HTTP {status}, JSON without {field!r}")
    state = document[field]
    causes = _causes(document)
    value = f"{state}: {'; '.join(causes)}" if causes else state
    good = " or ".join(sorted(name for name, status in states.items() if status == OK))
    verdict = states.get(state, FAILED)
    if verdict == OK and status >= 400:
        raise NoAnswer(f"HTTP {status}, yet it calls itself {state}")
    version = document.get("version")
    return Finding(verdict, value, f"{field} {good}", version=version if isinstance(version, str) else "")


def _causes(document: Mapping[str, Any]) -> list[str]:
    """Why a service is not well, in its own words: its `causes`, or its `components` that are not healthy."""
    causes = document.get("causes")
    if isinstance(causes, list):
        return [str(cause) for cause in causes]
    components = document.get("components")
    if not isinstance(components, dict):
        return []
    return [
        f"{name} {part.get('status')} ({part.get('reason') or 'no reason given'})"
        for name, part in components.items()
        if isinstance(part, dict) and part.get("status") != "healthy"
    ]


_SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})?\s+(?P<value>\S+)(?:\s+-?\d+)?\s*$")
_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')


def samples(exposition: str, name: str) -> list[tuple[dict[str, str], float]]:
    """The samples of metric `name` in Prometheus' text format: labels and value."""
    found = []
    for line in exposition.splitlines():
        match = _SAMPLE.match(line)
        if match and match["name"] == name:
            try:
                found.append((dict(_LABEL.findall(match["labels"] or "")), float(match["value"])))
            except ValueError as error:
                raise NoAnswer(f"metric {name} has the value {match['value']!r}") from error
    return found


def metrics(exposition: str, metric: str, minimum: float) -> Finding:
    """Every sample of `metric` must be `minimum` or more, and there must be one."""
    found = samples(exposition, metric)
    if not found:
        raise NoAnswer(f"no metric {metric} in the answer")
    low = [labels for labels, value in found if not value >= minimum]
    lowest = min(value for _labels, value in found)
    version = next(
        (
            labels.get("version", "")
            for line in exposition.splitlines()
            if "_build_info{" in line
            for labels, _value in samples(line, line.split("{", 1)[0])
            if not line.startswith("go_")
        ),
        "",
    )
    whose = ", ".join(sorted({"/".join(labels.values()) for labels in low if labels}))
    value = f"{metric} {lowest:g}" + (f" ({whose})" if whose else "")
    return Finding(FAILED if low else OK, value, f"{metric} at least {minimum:g}", version=version)


def number(value: object, what: str, warn: float | None, fail: float | None, version: str) -> Finding:
    """Judge a number that should stay small."""
    try:
        measured = float(str(value))
    except ValueError as error:
        raise NoAnswer(f"{what} is {value!r}, not a number") from error
    if math.isnan(measured):
        raise NoAnswer(f"{what} is not a number")
    limits = [f"{word} above {limit:g}" for word, limit in (("degraded", warn), ("failed", fail)) if limit is not None]
    status = OK
    if fail is not None and measured > fail:
        status = FAILED
    elif warn is not None and measured > warn:
        status = DEGRADED
    return Finding(status, f"{what} {measured:g}", ", ".join(limits), version=version)


def failures(waiting: object) -> Finding:
    """Say how many failed messages wait for a replay. That is a matter of the messages: all components are well."""
    if not isinstance(waiting, int):
        raise NoAnswer(f"the database counts {waiting!r} failed messages")
    value = f"{waiting} failed message{'' if waiting == 1 else 's'} to replay"
    return Finding(OK, value, note=f"{value}: the console's page Failures says why" if waiting else "")


def info(text: str) -> dict[str, str]:
    """Redis' INFO as a dictionary."""
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith("#"))


def redis(fields: Mapping[str, str]) -> Finding:
    """Judge the INFO of one instance: a primary, or a replica whose link is up."""
    role, version = fields.get("role", ""), fields.get("redis_version", "")
    if role == "master":
        return Finding(OK, f"is primary, {fields.get('connected_slaves', '?')} replicas", version=version)
    if role != "slave":
        raise NoAnswer(f"Redis names the role {role!r}")
    link = fields.get("master_link_status", "unknown")
    primary = f"{fields.get('master_host', '?')}:{fields.get('master_port', '?')}"
    if link == "up":
        return Finding(OK, f"is replica of {primary}, link up", "link up", version=version)
    hint = "is the primary up? wait 30 s for Sentinel, then journalctl of the primary's unit"
    return Finding(FAILED, f"is replica of {primary}, link {link}", "link up", hint, version)


Address = tuple[str, int]


def sentinel(answers: Mapping[Address, Address], roles: Mapping[Address, str], replicas: int, version: str) -> Finding:
    """Judge what each sentinel names as the primary, against the role that each instance itself names.

    `replicas` is how many the sentinel knows that are not down.
    """
    threshold = "all sentinels name the one instance that is primary, at least 1 replica"
    named = set(answers.values())
    if not named:
        raise NoAnswer("no sentinel was asked")
    if len(named) > 1:
        views = ", ".join(f"{host}:{port} says {was[0]}:{was[1]}" for (host, port), was in sorted(answers.items()))
        hint = "sentinels disagree: compare SENTINEL MASTERS on each, restart the one that is wrong"
        return Finding(FAILED, f"no agreement: {views}", threshold, hint, version)
    primary = named.pop()
    masters = sorted(f"{host}:{port}" for (host, port), role in roles.items() if role == "master")
    text = f"primary {primary[0]}:{primary[1]}"
    if masters != [f"{primary[0]}:{primary[1]}"]:
        value = f"{text}, but primaries by their own word: {', '.join(masters) or 'none'}"
        return Finding(FAILED, value, threshold, "wait 30 s for a fail-over to end, then check again", version)
    if replicas < 1:
        hint = "start the other Redis instance: without it no fail-over is possible"
        return Finding(DEGRADED, f"{text}, no replica", threshold, hint, version)
    return Finding(OK, f"{text}, {replicas} replicas, {len(answers)} sentinels agree", threshold, version=version)


def rabbitmq_nodes(overview: object, nodes: object) -> Finding:
    """Judge the management API's overview and nodes: all running, no alarm."""
    if not isinstance(overview, dict) or not isinstance(nodes, list) or not nodes:
        raise NoAnswer("the management API named no node")
    version = str(overview.get("rabbitmq_version", ""))
    troubles = []
    for node in nodes:
        name = node.get("name", "?")
        if node.get("running") is not True:
            troubles.append(f"{name} is not running")
        for alarm, words in (("mem_alarm", "memory alarm"), ("disk_free_alarm", "disk alarm")):
            # A node without statistics has not answered: that is no all-clear.
            if node.get("running") is True and node.get(alarm) is not False:
                troubles.append(f"{name}: {words if node.get(alarm) is True else 'unknown ' + words}")
    if troubles:
        hint = "publishers are blocked while an alarm lasts: rabbitmq-diagnostics alarms; free memory or disk"
        return Finding(FAILED, "; ".join(troubles), "no alarm", hint, version)
    return Finding(OK, f"{len(nodes)} node{'s'[: len(nodes) > 1]} running, no alarm", "no alarm", version=version)


def rabbitmq_queues(queues: object, limits: Sequence[Mapping[str, Any]]) -> Finding:
    """Judge queue depths. Each limit has `queue` (a shell pattern), `messages` (most allowed) and `consumers` (fewest).

    A pattern that no queue matches has failed: what it watches is not there.
    """
    if not isinstance(queues, list):
        raise NoAnswer("the management API listed no queues")
    troubles, missing, depths = [], [], []
    for limit in limits:
        matching = [queue for queue in queues if fnmatch.fnmatchcase(queue.get("name", ""), limit["queue"])]
        if not matching:
            missing.append(limit["queue"])
        for queue in matching:
            name, depth = queue["name"], queue.get("messages")
            if not isinstance(depth, int):
                raise NoAnswer(f"no depth known of queue {name}", "right after a start: check again in 10 s")
            depths.append(f"{name} {depth}")
            if depth > limit["messages"]:
                troubles.append(f"{name} holds {depth} messages (at most {limit['messages']})")
            if queue.get("consumers", 0) < (limit.get("consumers") or 0):
                troubles.append(f"{name} has no consumer")
    threshold = ", ".join(f"{limit['queue']} at most {limit['messages']}" for limit in limits)
    if missing:
        hint = "the gateway and the worker declare them: are both running?"
        return Finding(FAILED, f"no queue {', '.join(missing)}", threshold, hint)
    if troubles:
        hint = "is the worker running and keeping up? dead letters: see telegram.failures for the reason"
        return Finding(DEGRADED, "; ".join(troubles), threshold, hint)
    return Finding(OK, ", ".join(depths), threshold)


def prometheus_targets(document: object, off_jobs: Collection[str] = ()) -> Finding:
    """Judge Prometheus' own list of targets: all up but those of `off_jobs`, which are off as they should be."""
    threshold = "every target up"
    try:
        active = document["data"]["activeTargets"]  # type: ignore[index]
        states = [
            (target["labels"]["job"], target["labels"].get("instance", "?"), target["health"]) for target in active
        ]
    except (KeyError, TypeError) as error:
        raise NoAnswer("Prometheus did not list its targets") from error
    if not states:
        return Finding(FAILED, "scrapes nothing", threshold, "run playbooks/deploy.yml for the monitoring host")
    states = [state for state in states if state[0] not in off_jobs]
    down = sorted(f"{job} ({instance}) {health}" for job, instance, health in states if health != "up")
    if down:
        return Finding(
            DEGRADED, f"{len(down)} of {len(states)} targets: {', '.join(down)}", threshold, "see their own rows"
        )
    return Finding(OK, f"{len(states)} targets up", threshold)
