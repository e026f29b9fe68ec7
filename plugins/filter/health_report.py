"""Filters of the health playbook: the results of all hosts as one report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..module_utils.health_report import host_results, report, table


class FilterModule:
    """Filters of the collection for the health playbook."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {
            "health_results": host_results,
            "health_report": report,
            "health_table": lambda found: table(found["components"]),
        }
