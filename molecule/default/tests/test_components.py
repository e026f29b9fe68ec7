"""Every component of the table runs where it should, within its limits, in its sandbox."""

from __future__ import annotations

import re

import pytest
from probe import unit_of
from testinfra.host import Host
from tests.exposure import measured, told

# unit, ports, share of a core, bytes
MEGA = 1024**2
COMPONENTS = {
    "telegram-gateway": ([4006], 0.5, 300 * MEGA),
    "postgresql": ([5434], 2.0, 2048 * MEGA),
    "pgbouncer": ([6434], 0.5, 256 * MEGA),
    "telegram-redis-primary": ([6379], 1.0, 1024 * MEGA),
    "telegram-redis-replica": ([6380], 1.0, 512 * MEGA),
    "telegram-redis-sentinel": ([26379], 0.5, 256 * MEGA),
    "rabbitmq-server": ([5672, 15672, 15692], 1.0, 1024 * MEGA),
    "telegram-gateway-api": ([4010], 0.5, 256 * MEGA),
    "prometheus": ([9090], 1.0, 1024 * MEGA),
    "prometheus-alertmanager": ([9093], 0.25, 128 * MEGA),
    "telegram-host-metrics": ([], 0.1, 64 * MEGA),
    "prometheus-postgres-exporter": ([9187], 0.25, 128 * MEGA),
    "prometheus-redis-exporter": ([9121], 0.25, 128 * MEGA),
    "telegram-signal-worker": ([4011], 0.5, 256 * MEGA),
}
OURS = ["telegram-gateway", "telegram-gateway-api", "telegram-signal-worker"]


@pytest.mark.requirement("GW-01", "DB-01", "RD-01", "MQ-01", "MO-01")
@pytest.mark.parametrize("component", COMPONENTS)
def test_runs_and_starts_on_boot(host: Host, component: str) -> None:
    unit = unit_of(host, component)
    assert host.check_output(f"systemctl is-active {unit}") == "active"
    assert host.run(f"systemctl is-enabled {unit}").stdout.strip() in ("enabled", "enabled-runtime")


@pytest.mark.parametrize("component", COMPONENTS)
def test_listens_on_its_ports(host: Host, component: str) -> None:
    listening = {line.rsplit(":", 1)[1] for line in host.socket.get_listening_sockets() if line.startswith("tcp")}
    assert {str(port) for port in COMPONENTS[component][0]} <= listening


@pytest.mark.parametrize("component", COMPONENTS)
def test_is_held_to_its_limits(host: Host, component: str) -> None:
    _, cores, memory = COMPONENTS[component]
    shown = host.check_output(f"systemctl show {unit_of(host, component)} -p CPUQuotaPerSecUSec -p MemoryMax")
    values = dict(line.split("=", 1) for line in shown.splitlines())
    assert seconds(values["CPUQuotaPerSecUSec"]) == pytest.approx(cores)
    assert int(values["MemoryMax"]) == memory


def seconds(duration: str) -> float:
    """systemd's `500ms` or `2s` in seconds."""
    number, unit = re.fullmatch(r"([\d.]+)(ms|s)", duration).groups()  # type: ignore[union-attr]
    return float(number) / (1000 if unit == "ms" else 1)


@pytest.mark.parametrize("component", OURS)
def test_our_services_are_not_root(host: Host, component: str) -> None:
    pid = host.check_output(f"systemctl show {component} -p MainPID --value")
    assert host.check_output(f"ps -o user= -p {pid}").strip() not in ("root", "0")


# These come with a migration, or where hosts are linked: tests/integration/test_sandboxes.py measures all.
ELSEWHERE = {"telegram-legacy-feed", "telegram-links", "telegram-firewall"}


@pytest.mark.parametrize("unit", sorted(told().keys() - ELSEWHERE))
def test_a_unit_is_no_more_exposed_than_the_security_page_says(host: Host, unit: str) -> None:
    name = unit_of(host, "postgresql" if "@" in unit else unit)
    assert measured(host.check_output(f"systemd-analyze security --no-pager {name}")) <= told()[unit]


@pytest.mark.requirement("DB-06")
def test_a_set_is_made_and_read_back_within_the_sandboxes_of_their_units(host: Host) -> None:
    begun = host.check_output("date +%s")
    host.check_output("systemctl start telegram-backup telegram-backup-test")  # one after the other
    said = host.check_output(f"journalctl -u telegram-backup-test --since @{begun} -o cat --no-pager")
    assert re.search(r"set \S+: files read back, \d+ tables equal in count and checksum", said), said


def test_no_unit_restarted_by_itself_or_failed(host: Host) -> None:
    assert host.check_output("systemctl list-units --state=failed --no-legend --plain") == ""


def test_nothing_of_the_stack_listens_beyond_loopback(host: Host) -> None:
    ports = {str(port) for ports, _, _ in COMPONENTS.values() for port in ports}
    open_to_all = {
        line
        for line in host.socket.get_listening_sockets()
        if line.startswith("tcp") and line.rsplit(":", 1)[1] in ports and "127.0.0.1" not in line and "::1" not in line
    }
    assert open_to_all == set()


@pytest.mark.requirement("MO-03")
def test_grafana_runs_where_its_package_is_given_and_is_off_elsewhere(host: Host) -> None:
    """On Debian 13 a stand-in owns the package's paths and its unit: what is proven is the role, not Grafana."""
    given = host.system_info.release.startswith("13")
    assert host.service("grafana-server").is_running == given
    assert host.socket("tcp://127.0.0.1:3100").is_listening == given
    assert host.file("/etc/grafana/provisioning/datasources/telegram-stack.yml").exists == given


@pytest.mark.requirement("API-07")
def test_a_browser_gets_the_console_with_what_it_loads(host: Host) -> None:
    asking = (
        "import re, urllib.request as u\n"
        "def get(path):\n"
        "    asked = u.Request('http://127.0.0.1:4010' + path, headers={'Accept': 'text/html'})\n"
        "    return u.urlopen(asked, timeout=10).read().decode()\n"
        "page = get('/')\n"
        'loaded = re.findall(r\'(?:src|href)="(/console/static/[^"]+)"\', page)\n'
        "print('Sign in' in page, len(loaded) > 1, all(get(path) for path in loaded))\n"
    )
    assert host.check_output("python3 -c %s", asking) == "True True True"
