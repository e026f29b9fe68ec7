"""Workload ``latency``: open-loop load at a set rate; how long from the gateway's receipt to each stage.

    python -m benchmarks.pipeline.latency --rate 50 --rate 1000 --seconds 60

Spool, stored, published and cached come from the gateway's trace of each message, effect (the worker's commit) from the
worker's histogram, interpolated within its buckets. The first fifth of each run is left out.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.pipeline.chain import Chain, chain, wait

STAGES = {"spooled": "spool", "stored": "database", "published": "queue", "cached": "cache"}
PERCENTILES = (50, 95, 99)
_BUCKET = re.compile(r'^telegram_worker_latency_seconds_bucket\{le="([^"]+)"\} (\S+)$', re.MULTILINE)


def main() -> None:
    """Run the workload and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, action="append", help="messages a second; may be repeated")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each rate runs")
    parser.add_argument("--channels", type=int, default=20)
    parser.add_argument("--gateway", default="", metavar="TOML", help="further lines at the top of gateway.toml")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="latency-") as folder:
        Path(folder).chmod(0o755)  # the database's user passes through
        with chain(Path(folder), options.channels, options.gateway) as running:
            for rate in options.rate or [50.0, 1000.0]:
                result = run(running, rate, options.seconds)
                print(json.dumps(result) if options.json else table(result), flush=True)


def run(running: Chain, rate: float, seconds: float) -> dict[str, Any]:
    """One rate: percentiles of each stage in milliseconds, CPU seconds a second, and what was behind at the end."""
    httpx.post(f"{running.control}/load", json={"rate": rate, "seconds": seconds}).raise_for_status()
    time.sleep(seconds / 5)
    paths: dict[tuple[int, int, int], dict[str, Any]] = {}
    begun, cpu, effects = time.time(), running.cpu_seconds(), _effects(running)
    ended = begun + seconds * 4 / 5
    while time.time() < ended:
        time.sleep(min(1.0, max(0.0, ended - time.time())))
        _collect(running, paths, begun)
    elapsed = time.time() - begun
    used = {name: round((value - cpu[name]) / elapsed, 3) for name, value in running.cpu_seconds().items()}
    behind = httpx.get(f"{running.gateway}/health").json()["sinks"]
    wait(lambda: not httpx.get(f"{running.control}/load").json()["running"], "the load ends")
    wait(lambda: _behind(running) == 0, "the sinks have everything", 300)
    _collect(running, paths, begun)
    latencies = {name: _sorted(paths, key) for key, name in STAGES.items()}
    result: dict[str, Any] = {
        "rate": rate,
        "seconds": seconds,
        "messages": len(paths),
        "milliseconds": {name: _percentiles(values) for name, values in latencies.items()},
        "cpu": used,
        "gateway_megabytes": round(running.memory("gateway"), 1),
        "behind": {name: sink["lag"] for name, sink in behind.items()},
    }
    result["milliseconds"]["effect"] = _interpolated(effects, _effects(running))
    return result


def table(result: dict[str, Any]) -> str:
    """The result as lines for people."""
    lines = [f"{result['rate']:g} msg/s, {result['messages']} messages measured; CPU {result['cpu']}"]
    lines += [f"{'ms from receipt':>16} " + " ".join(f"{f'p{p}':>8}" for p in PERCENTILES)]
    for stage, values in result["milliseconds"].items():
        lines.append(f"{stage:>16} " + " ".join(f"{value:8.1f}" for value in values.values()))
    return "\n".join([*lines, f"{'behind at the end':>16} {result['behind']}", ""])


def _collect(running: Chain, paths: dict[tuple[int, int, int], dict[str, Any]], begun: float) -> None:
    for path in httpx.get(f"{running.gateway}/trace", timeout=30).json():
        if path["received"] >= begun:
            paths[path["channel_id"], path["message_id"], path["version"]] = path


def _behind(running: Chain) -> int:
    return sum(sink["lag"] for sink in httpx.get(f"{running.gateway}/health").json()["sinks"].values())


def _sorted(paths: dict[tuple[int, int, int], dict[str, Any]], key: str) -> list[float]:
    return sorted((path[key] - path["received"]) * 1000 for path in paths.values() if path[key] is not None)


def _percentiles(values: list[float]) -> dict[str, float]:
    return {f"p{p}": round(values[min(len(values) - 1, len(values) * p // 100)], 2) for p in PERCENTILES}


def _effects(running: Chain) -> list[tuple[float, float]]:
    """The worker's histogram: upper bound in milliseconds, cumulated count."""
    text = httpx.get(f"{running.worker}/metrics").text
    return [(float(bound) * 1000, float(count)) for bound, count in _BUCKET.findall(text)]


def _interpolated(before: list[tuple[float, float]], after: list[tuple[float, float]]) -> dict[str, float]:
    earlier = dict(before)
    counts = [(bound, count - earlier.get(bound, 0.0)) for bound, count in after]
    found = {}
    for percentile in PERCENTILES:
        wanted = counts[-1][1] * percentile / 100
        low, below = 0.0, 0.0
        for bound, count in counts:
            if count >= wanted:
                found[f"p{percentile}"] = round(low + (bound - low) * (wanted - below) / max(1.0, count - below), 2)
                break
            low, below = bound, count
    return found


if __name__ == "__main__":
    main()
