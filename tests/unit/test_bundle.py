"""The bundle: what it holds, and that one which is not as it was made is refused with a word that helps."""

from __future__ import annotations

import io
import json
import os
import random
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import bundle
import pytest
import wheelhouse
import yaml

ROOT = Path(__file__).resolve().parents[2]
MACHINE = "x86_64"
DEB = "debian/redis-server_8.0.2-3_amd64.deb"
WHEEL = "wheels/telegram_stack-0.1.0-py3-none-any.whl"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def wheel(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("empty", path.name)
    return path


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path | str]:
    """What a bundle of one package and one library holds, for a lock with that library alone."""
    services = tmp_path / "services"
    services.mkdir()
    library = wheel(tmp_path / "redis-8.1.0-py3-none-any.whl")
    lock = f"redis==8.1.0 --hash=sha256:{wheelhouse.digest(library)}\n"
    (services / "requirements.lock").write_text(lock)
    monkeypatch.setattr(wheelhouse, "SERVICES", services)
    ours = wheel(tmp_path / Path(WHEEL).name)
    return {
        bundle.MANIFEST: json.dumps(manifest()),
        bundle.INDEX: f"Package: redis-server\nFilename: ./{Path(DEB).name}\n",
        DEB: "the package " * 200,
        WHEEL: ours,
        "wheels/redis-8.1.0-py3-none-any.whl": library,
        "wheels/requirements.txt": wheelhouse.requirements_of({"telegram-stack": ours, "redis": library}),
    }


def manifest(**changed: object) -> dict[str, Any]:
    packages = bundle.RELEASES["13"].packages
    return {
        "version": bundle.version(),
        "debian": "13",
        "machine": MACHINE,
        "packages": packages,
        "content": [],
    } | changed


def packed(tmp_path: Path, files: dict[str, Path | str]) -> Path:
    archive = tmp_path / "bundle.tar"
    bundle.pack(files, archive)
    return archive


@pytest.mark.requirement("OP-06")
def test_a_good_bundle_gives_its_wheels_and_what_a_host_checks_its_copy_with(
    tmp_path: Path, files: dict[str, Path | str]
) -> None:
    archive = packed(tmp_path, files)
    opened = bundle.open_bundle(archive, "13", MACHINE)
    assert opened["packages"] == list(bundle.RELEASES["13"].packages)
    assert {path.name for path in Path(str(opened["wheels"])).iterdir()} == {
        Path(name).name for name in files if name.startswith("wheels/")
    }
    copy = tmp_path / "copy"
    with tarfile.open(archive) as tar:
        tar.extractall(copy, filter="data")
    check = ["sha256sum", "--check", "--strict", "--quiet"]
    subprocess.run(check, cwd=copy, input=str(opened["sums"]), text=True, check=True)
    (copy / DEB).write_text("another")
    done = subprocess.run(check, cwd=copy, input=str(opened["sums"]), text=True, check=False, capture_output=True)
    assert done.returncode == 1
    assert DEB in done.stdout


@pytest.mark.requirement("OP-06")
def test_the_same_files_make_the_same_bytes(tmp_path: Path, files: dict[str, Path | str]) -> None:
    first = packed(tmp_path, files).read_bytes()
    os.utime(tmp_path / Path(WHEEL).name, (1, 1))
    assert packed(tmp_path, dict(reversed(files.items()))).read_bytes() == first


@pytest.mark.requirement("OP-06")
def test_a_flipped_byte_anywhere_is_refused(tmp_path: Path, files: dict[str, Path | str]) -> None:
    archive = packed(tmp_path, files)
    good = archive.read_bytes()
    numbers = random.Random(8)  # noqa: S311
    for place in [0, len(good) - 1, *(numbers.randrange(len(good)) for _ in range(300))]:
        archive.write_bytes(good[:place] + bytes([good[place] ^ 1 << numbers.randrange(8)]) + good[place + 1 :])
        with pytest.raises(bundle.BundleError, match="make bundle"):
            bundle.verify(archive)


@pytest.mark.requirement("OP-06")
def test_a_damaged_package_is_named_with_the_next_command(tmp_path: Path, files: dict[str, Path | str]) -> None:
    archive = packed(tmp_path, files)
    content = archive.read_bytes()
    archive.write_bytes(content.replace(b"the package", b"the pAckage", 1))
    with pytest.raises(bundle.BundleError) as refused:
        bundle.open_bundle(archive, "13", MACHINE)
    assert str(refused.value) == (
        f"{archive} is damaged, and nothing of it is used: {DEB} is not the file that SHA256SUMS names."
        " Copy it here again, or make it anew: make bundle"
    )


@pytest.mark.requirement("OP-06")
def test_one_that_was_cut_short_is_refused(tmp_path: Path, files: dict[str, Path | str]) -> None:
    archive = packed(tmp_path, files)
    content = archive.read_bytes()
    for length in (0, 100, 512, len(content) // 2, len(content) - 512):
        archive.write_bytes(content[:length])
        with pytest.raises(bundle.BundleError, match="make bundle"):
            bundle.verify(archive)


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(bundle.BundleError, match=r"nowhere.tar cannot be read: No such file .*telegram_bundle"):
        bundle.verify(tmp_path / "nowhere.tar")
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        member = tarfile.TarInfo("../etc/passwd")
        tar.addfile(member, io.BytesIO())
    with pytest.raises(bundle.BundleError, match=r"it holds '\.\./etc/passwd'"):
        bundle.verify(tmp_path / "other.tar")


@pytest.mark.requirement("OP-06")
@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"version": "0.0.9"}, "the collection's version 0.0.9, not"),
        ({"debian": "12"}, "for Debian 12, not 13"),
        ({"machine": "aarch64"}, "for the architecture aarch64, not x86_64"),
        ({"packages": ["redis-server"]}, "lacks curl, haproxy, "),
    ],
)
def test_a_bundle_for_something_else_is_refused(
    tmp_path: Path, files: dict[str, Path | str], changed: dict[str, object], says: str
) -> None:
    archive = packed(tmp_path, files | {bundle.MANIFEST: json.dumps(manifest(**changed))})
    with pytest.raises(bundle.BundleError, match=re.escape(says)):
        bundle.open_bundle(archive, "13", MACHINE)


@pytest.mark.requirement("OP-06")
def test_a_bundle_without_a_wheel_of_the_lock_is_refused(tmp_path: Path, files: dict[str, Path | str]) -> None:
    del files["wheels/redis-8.1.0-py3-none-any.whl"]
    with pytest.raises(wheelhouse.WheelhouseError, match="redis is missing"):
        bundle.open_bundle(packed(tmp_path, files), "13", MACHINE)


@pytest.mark.requirement("OP-06")
def test_a_wheel_that_the_lock_does_not_name_is_refused(tmp_path: Path, files: dict[str, Path | str]) -> None:
    other = wheel(tmp_path / "other.whl")
    files["wheels/redis-8.1.0-py3-none-any.whl"] = other  # its checksum is right: the bundle was made with it
    with pytest.raises(wheelhouse.WheelhouseError, match=r"redis-8.1.0-py3-none-any.whl is not the file"):
        bundle.open_bundle(packed(tmp_path, files), "13", MACHINE)


def test_the_index_names_each_package_where_it_is(tmp_path: Path) -> None:
    control = tmp_path / "made" / "DEBIAN" / "control"
    control.parent.mkdir(parents=True)
    control.write_text(
        "Package: erlang-base\nVersion: 1:27.3+dfsg-1\nArchitecture: all\nMaintainer: Nobody <n@example.org>\n"
        "Description: a stand-in\n"
    )
    deb = tmp_path / "erlang-base_1%3a27.3+dfsg-1_all.deb"
    subprocess.run(["dpkg-deb", "--build", "-Znone", control.parents[1], deb], check=True, capture_output=True)
    index, content = bundle.index_of([deb])
    assert content == ["erlang-base 1:27.3+dfsg-1"]
    assert "Filename: ./erlang-base_27.3+dfsg-1_all.deb\n" in index
    assert f"SHA256: {wheelhouse.digest(deb)}\n" in index
    assert bundle.member_of(deb) == "debian/erlang-base_27.3+dfsg-1_all.deb"


@pytest.mark.requirement("OP-06")
@pytest.mark.parametrize(("debian", "release"), bundle.RELEASES.items())
def test_the_bundle_holds_what_the_roles_install(debian: str, release: bundle.Release) -> None:
    wanted: set[str] = {"python3-apt"}  # of Ansible's own module
    for path in sorted((ROOT / "roles").glob("*/tasks/*.yml")):
        for task in tasks(yaml.safe_load(path.read_text()) or []):
            assert "ansible.builtin.apt" not in task or path.name in APT_ITSELF, f"{path}: include packages.yml instead"
            asked = (task.get("vars") or {}).get("common_packages")
            if asked is not None:
                wanted |= set(asked) if isinstance(asked, list) else worked_out(path.parents[1], debian)
    assert wanted - GRAFANA == set(release.packages)


APT_ITSELF = {"packages.yml", "bundle.yml", "grafana_vendor.yml", "grafana_file.yml"}
GRAFANA = {"grafana"}
PARTS = ("block", "rescue", "always")


def tasks(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tasks, those of blocks too."""
    return [one for task in found for one in (task, *tasks([step for part in PARTS for step in task.get(part, [])]))]


def worked_out(role: Path, debian: str) -> set[str]:
    """The packages that a role's variables name."""
    if role.name == "timescaledb":
        return set(yaml.safe_load((role / "vars/main.yml").read_text())["_timescaledb_packages"][debian])
    if role.name == "backup":
        expression = yaml.safe_load((role / "vars/main.yml").read_text())["_backup_packages"]
        return set(re.findall(r"'([a-z0-9-]+)'", expression))
    assert role.name == "monitoring", f"{role.name}: say here how its packages are worked out"
    catalogue = yaml.safe_load((role / "vars/main/main.yml").read_text())["_monitoring_catalogue"]
    return {part["package"] for part in catalogue.values()} | {"openssl"}
