"""The worker's config as the role renders it is one that the worker reads."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import Environment

from telegram_stack.config import load
from telegram_stack.worker.config import WorkerConfig

ROLES = Path("roles")


def rendered(**given: Any) -> str:
    """worker.toml with the defaults of both roles and `given`."""
    environment = Environment(autoescape=False)  # noqa: S701  # TOML, not a page
    environment.filters["bool"] = bool
    environment.filters["to_json"] = json.dumps
    environment.filters["regex_replace"] = lambda value, pattern, new: re.sub(pattern, new, value, count=1)
    variables: dict[str, Any] = {}
    for role in ("common", "signal_worker"):
        variables |= yaml.safe_load((ROLES / role / "defaults/main.yml").read_text())
    variables |= given
    for _ in range(3):  # defaults that name others
        for name, value in variables.items():
            if isinstance(value, str) and "{{" in value:
                variables[name] = environment.from_string(value).render(variables)
    variables["telegram_sentinel_hosts"] = ["10.0.0.1", "10.0.0.2"]
    return environment.from_string((ROLES / "signal_worker/templates/worker.toml.j2").read_text()).render(variables)


@pytest.mark.requirement("WK-01", "MQ-04")
@pytest.mark.parametrize(("enabled", "mode"), [(True, "hybrid"), (False, "polling")])
def test_the_role_renders_what_the_worker_reads(tmp_path: Path, enabled: bool, mode: str) -> None:
    path = tmp_path / "worker.toml"
    path.write_text(rendered(telegram_queue_enabled=enabled))
    config = load(path, WorkerConfig)
    assert (config.mode, config.poll_seconds, config.net_seconds, config.batch_size) == (mode, 5.0, 30.0, 100)
    assert config.cache is not None
    assert config.cache.sentinels == ("10.0.0.1:26379", "10.0.0.2:26379")
    assert 0.02 <= config.cache.timeout <= 0.05
