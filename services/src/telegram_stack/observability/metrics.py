"""What the services' metrics share: buckets that resolve this stack's latencies."""

from __future__ import annotations

LATENCY_BUCKETS = (
    0.001, 0.002, 0.004, 0.006, 0.008, 0.012, 0.02, 0.03, 0.05, 0.065, 0.08, 0.11, 0.15, 0.3, 0.6, 1.2, 2.5, 5.0,
    10.0, 30.0, 120.0
)  # fmt: skip
"""Seconds; dense around the targets of 8 ms (p50) and 50 ms (p99), coarse up to two minutes of catching up."""

BATCH_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Events a batch."""
