"""The tool for target hosts, as far as it can be tried without booting one."""

import ipaddress
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tools.targets import cgroups, cli, host, inventory, network, storage
from tools.targets.errors import TargetError
from tools.targets.lab import Lab, Machine, Snapshot
from tools.targets.machine import with_targets
from tools.targets.network import Network
from tools.targets.process import Process, run


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    made = Lab(tmp_path / "lab")
    made.make()
    return made


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "registry"
    monkeypatch.setattr(network, "REGISTRY", folder)
    monkeypatch.setattr(network, "_routed", list)
    return folder


def machine(name: str, number: int = 11, layers: tuple[str, ...] = ("trixie-1",)) -> Machine:
    return Machine(name, number, "trixie", "trixie", layers)


def test_records_come_back_as_written(lab: Lab) -> None:
    lab.write_machine(machine("db1", 12, ("saved-2", "trixie-1")))
    lab.write_machine(machine("app1", 11))
    lab.write_snapshot(Snapshot("stack", 12, "trixie", ("saved-2", "trixie-1")))

    assert lab.machines() == [machine("app1", 11), machine("db1", 12, ("saved-2", "trixie-1"))]
    assert lab.machine("db1").layers == ("saved-2", "trixie-1")
    assert lab.snapshot("stack").layers == ("saved-2", "trixie-1")


def test_a_target_nobody_made_is_refused_with_the_command_that_makes_it(lab: Lab) -> None:
    with pytest.raises(TargetError, match=r"There is no target 'db1'.* up db1"):
        lab.machine("db1")
    with pytest.raises(TargetError, match=r"no saved target 'stack' \(saved: none\)"):
        lab.snapshot("stack")


@pytest.mark.parametrize("name", ["", "DB1", "-db", "db_1", "../db", "a" * 32, "1db"])
def test_names_that_cannot_be_host_names_are_refused(lab: Lab, name: str) -> None:
    with pytest.raises(TargetError, match="cannot name a target"):
        lab.folder(name)


def test_addresses_are_given_out_once_and_the_preferred_one_first(lab: Lab) -> None:
    lab.write_machine(machine("a", 11))
    lab.write_machine(machine("b", 12))
    assert lab.free_host(11) == 13
    assert lab.free_host(40) == 40
    for number in range(11, 251):
        lab.write_machine(machine(f"m{number}", number))
    with pytest.raises(TargetError, match="full"):
        lab.free_host(11)


def test_only_layers_that_nothing_stands_on_are_dropped(lab: Lab) -> None:
    for layer in ("trixie-1", "saved-1", "saved-2", "saved-3"):
        (lab.layers / layer).mkdir()
    lab.write_machine(machine("db1", 11, ("saved-1", "trixie-1")))
    lab.write_snapshot(Snapshot("stack", 12, "trixie", ("saved-2", "trixie-1")))
    lab.drop_unused_layers()
    assert sorted(layer.name for layer in lab.layers.iterdir()) == ["saved-1", "saved-2", "trixie-1"]


def test_a_network_is_a_bridge_and_a_subnet_of_its_own() -> None:
    net = Network(ipaddress.IPv4Network("10.77.0.0/16"), 132)
    assert (net.bridge, str(net.subnet), net.address(11)) == ("tgstack132", "10.77.132.0/24", "10.77.132.11")
    assert net.proxy == "http://10.77.132.1:3142"
    assert len(Network(net.block, 254).bridge) <= 15  # the kernel's limit


def test_two_labs_get_two_networks_and_keep_them(tmp_path: Path, registry: Path) -> None:
    labs = [Lab(tmp_path / "one"), Lab(tmp_path / "two")]
    for each in labs:
        each.make()
        (each.root / "network").write_text("7")  # both want the same
    first, second = (network._allocate(each) for each in labs)
    assert first.number == 7
    assert second.number != 7
    assert network.find(labs[0]) == first
    assert network.known(labs[1]) == second

    (registry / "7.lab").unlink()  # as after a reboot
    assert network.find(labs[0]) is None
    assert network.known(labs[0]) == first
    assert network._allocate(labs[0]) == first


def test_networks_this_machine_reaches_already_are_left_alone(
    lab: Lab, registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 9
    block = ipaddress.IPv4Network("10.77.0.0/16")
    routed = [net for net in block.subnets(new_prefix=24) if net.network_address.packed[2] != free]
    monkeypatch.setattr(network, "_routed", lambda: routed)
    assert network._allocate(lab).number == free
    monkeypatch.setattr(network, "_routed", lambda: [block])
    (registry / f"{free}.lab").unlink()
    with pytest.raises(TargetError, match=r"No /24 of 10\.77\.0\.0/16 is free.*TARGETS_NETWORK"):
        network._allocate(lab)


def test_a_network_of_a_lab_that_is_gone_is_given_to_another(lab: Lab, tmp_path: Path, registry: Path) -> None:
    registry.mkdir()
    (registry / "5.lab").write_text(str(tmp_path / "deleted"))
    (lab.root / "network").write_text("5")
    assert network._allocate(lab).number == 5


@pytest.mark.parametrize("text", ["nonsense", "10.77.0.0/24", "8.8.0.0/16", "10.77.1.0/16"])
def test_a_block_that_is_no_private_16_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TARGETS_NETWORK", text)
    with pytest.raises(TargetError, match="TARGETS_NETWORK"):
        network.block()


def test_hosts_get_their_block_once_and_keep_their_other_lines() -> None:
    first = with_targets("127.0.0.1 localhost\n", "10.77.1.11 a\n")
    changed = with_targets(first + "192.0.2.9 printer\n", "10.77.1.11 a\n10.77.1.12 b\n")
    assert changed.count("# targets of this lab") == 1
    assert changed.startswith("127.0.0.1 localhost\n")
    assert "10.77.1.12 b\n" in changed
    assert changed.endswith("192.0.2.9 printer\n")
    assert with_targets(changed, "10.77.1.11 a\n10.77.1.12 b\n") == changed
    assert "127.0.0.1 localhost" in with_targets("", "")


def test_the_inventory_says_how_ansible_and_ssh_get_in(lab: Lab) -> None:
    net = Network(ipaddress.IPv4Network("10.77.0.0/16"), 3)
    variables = inventory.variables(lab, net, machine("db1"))
    assert variables["ansible_host"] == "10.77.3.11"
    assert variables["ansible_ssh_private_key_file"] == str(lab.key)
    config = inventory.ssh_config(lab, net, machine("db1"))
    assert config.startswith("Host db1\n")
    assert "  HostName 10.77.3.11\n" in config


def supervise(tmp_path: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run the supervising shell over a stand-in for systemd-nspawn."""
    command = ["/bin/sh", "-c", cgroups.SUPERVISOR, "supervisor", "--", "/bin/sh", "-c", script]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=20)


def test_the_supervisor_boots_again_when_the_target_reboots_and_only_then(tmp_path: Path) -> None:
    done = supervise(tmp_path, "echo boot >>boots; [ $(wc -l <boots) -ge 3 ] || exit 133; exit 7")
    assert done.returncode == 7
    assert (tmp_path / "boots").read_text().split() == ["boot"] * 3


def test_a_process_is_known_by_more_than_its_number(tmp_path: Path) -> None:
    remembered = tmp_path / "pid"
    with subprocess.Popen(["sleep", "60"]) as started:
        process = Process.of(started.pid)
        assert process is not None
        process.remember(remembered)
        assert Process.read(remembered) == process
        remembered.write_text(f"{process.pid} 1\n")  # the number, but another start
        assert Process.read(remembered) is None
        process.end()
        assert not process.alive


def test_a_program_that_fails_is_quoted() -> None:
    with pytest.raises(TargetError, match=r"`ls /nowhere-at-all` failed with code 2; it said: .*No such file"):
        run("ls", "/nowhere-at-all")


def test_a_machine_without_root_gets_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert host.lacks() == ["Targets need root, and this is user 1000; run it again with: sudo -E"]


def test_missing_packages_are_named_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    present = {"ip", "nsenter", "tar", "mount", "ssh-keygen", "zstd", "mkfs.ext4", "apt-config"}
    monkeypatch.setattr(shutil, "which", lambda name: name if name in present else None)
    first = host.lacks()[0]
    assert first.startswith("Missing here: ")
    assert "mmdebstrap" in first
    assert "systemd-container" in first
    assert "python3 -m tools.targets install" in first


def test_a_machine_that_cannot_is_told_so_by_exit_code_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("TARGETS_LAB", str(tmp_path / "lab"))
    monkeypatch.setattr(host, "lacks", lambda: ["No namespaces here.", "No overlay here."])
    assert cli.main(["up", "db1"]) == 3
    assert capsys.readouterr().err == "No namespaces here.\nNo overlay here.\n"
    assert not (tmp_path / "lab").exists()


def test_the_verbs_are_listed_with_what_they_do() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "tools.targets", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for verb in ("up", "reset", "save", "kill", "cut", "heal", "down-all", "inventory", "ssh-config", "check"):
        assert re.search(rf"^ +{verb}\s", shown, re.MULTILINE)


def test_an_empty_lab_has_an_empty_inventory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lab = Lab(tmp_path / "lab")
    lab.make()
    monkeypatch.setenv("TARGETS_LAB", str(lab.root))
    monkeypatch.setattr(host, "lacks", list)
    monkeypatch.setattr(storage, "prepare", lambda lab: None)
    assert cli.main(["inventory"]) == 0
    assert json.loads(capsys.readouterr().out) == {}
