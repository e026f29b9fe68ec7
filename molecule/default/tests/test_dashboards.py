"""Each panel that Grafana would show has data on a stack that runs."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from probe import STATE, run_python, telegram
from testinfra.host import Host
from tools.dashboards.data import ASKED, WITHOUT_DATA, empty, parsed

FOLDER = "/etc/grafana/telegram-dashboards"
TEMPLATES = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]) / "roles/monitoring/templates/dashboards"


def deployed(host: Host) -> list[str]:
    """The contents of the dashboards on the host."""
    names = host.check_output(f"ls {FOLDER}").split()
    return [host.check_output(f"cat {FOLDER}/{name}") for name in names]


def given(host: Host) -> bool:
    """Whether the host has a Grafana: a stand-in for its package, on Debian 13."""
    return bool(host.system_info.release.startswith("13"))


@pytest.mark.requirement("MO-03")
def test_dashboards_are_where_grafana_looks_for_them(host: Host) -> None:
    assert host.file(FOLDER).exists == given(host)
    if given(host):
        assert len(deployed(host)) == len(list(TEMPLATES.iterdir())) == 7
        assert FOLDER in host.file("/etc/grafana/provisioning/dashboards/telegram-stack.yml").content_string


@pytest.mark.requirement("MO-03")
def test_no_panel_is_empty(host: Host) -> None:
    if not given(host):
        pytest.skip("dashboards are deployed with Grafana, which this host has not")
    boards = parsed(deployed(host))
    token = yaml.safe_load((STATE / "telegram_secrets.yml").read_text())["telegram_secrets"]["api_token_read"]
    without = {name: reason for name, reason in WITHOUT_DATA.items() if reason is not ASKED}
    telegram().ask("POST", "/faults", {"floods": {"getDialogs": 3}})
    telegram().ask("POST", "/disconnect", {})  # the new connection asks for the list of chats, and gets the pause
    telegram().ask("POST", "/load", {"rate": 20, "count": 6000})
    missing: dict[str, list[str]] = {}
    for _ in range(18):  # rates need two scrapes, and the API to be asked by somebody
        ask_api(host, token)
        missing = empty(lambda expressions: series(host, expressions), boards, without)
        if not missing:
            break
        time.sleep(5)
    telegram().ask("DELETE", "/load")
    assert missing == {}


def series(host: Host, expressions: Sequence[str]) -> list[int]:
    """How many series Prometheus has for each expression, all asked by one program on the host."""
    program = (
        "import json, urllib.parse as p, urllib.request as u\n"
        "url = 'http://127.0.0.1:9090/api/v1/query?'\n"
        "def ask(text):\n"
        "    answer = u.urlopen(url + p.urlencode({'query': text}), timeout=10)\n"
        "    return len(json.load(answer)['data']['result'])\n"
        f"print(json.dumps([ask(text) for text in {list(expressions)!r}]))"
    )
    counts: list[int] = run_python(host, program)
    return counts


def ask_api(host: Host, token: str) -> None:
    """Ask the API for the newest messages."""
    program = (
        "import json, urllib.request as u\n"
        f"asked = u.Request('http://127.0.0.1:4010/api/messages', headers={{'X-API-Key': {token!r}}})\n"
        "print(json.dumps(u.urlopen(asked, timeout=10).status))"
    )
    assert run_python(host, program) == 200
