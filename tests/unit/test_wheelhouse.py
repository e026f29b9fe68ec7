"""The wheel-house: what a host installs, gathered on the controller."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "roles" / "common" / "files" / "wheelhouse.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("wheelhouse", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["wheelhouse"] = module
    spec.loader.exec_module(module)
    return module


wheelhouse = load()

TRIXIE = wheelhouse.Target("3.13.5", "x86_64", "2.41")
BOOKWORM = wheelhouse.Target("3.11.2", "x86_64", "2.36")
ARM = wheelhouse.Target("3.13.5", "aarch64", "2.41")


def lock() -> str:
    return (ROOT / "services" / "requirements.lock").read_text(encoding="utf-8")


def wheel(folder: Path, name: str) -> Path:
    """A file that only looks like a wheel."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("empty", name)
    return path


def test_each_line_of_the_lock_becomes_a_hashed_requirement() -> None:
    needed = wheelhouse.locked(lock(), TRIXIE)
    assert needed["telethon"].startswith("telethon==1.45.0 --hash=sha256:")
    assert {"cryptg", "msgspec", "pyaes", "psycopg-binary"} <= set(needed)
    assert all("--hash=sha256:" in line and ";" not in line for line in needed.values())


def test_markers_are_those_of_the_host_not_of_the_controller() -> None:
    assert "async-timeout" in wheelhouse.locked(lock(), BOOKWORM)  # redis wants it below Python 3.11.3
    assert "async-timeout" not in wheelhouse.locked(lock(), TRIXIE)
    assert "tzdata" not in wheelhouse.locked(lock(), TRIXIE)  # Windows only


def test_a_line_without_a_hash_is_refused() -> None:
    with pytest.raises(wheelhouse.WheelhouseError, match="no hash for redis"):
        wheelhouse.locked("redis==8.1.0\n", TRIXIE)


def test_the_locks_name_no_host() -> None:
    for name in ("services/requirements.lock", "services/build.lock", "requirements/dev.lock"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "://" not in text
        assert "index-url" not in text


def test_the_lock_holds_everything_the_project_depends_on() -> None:
    project = tomllib.loads((ROOT / "services" / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    assert wanted <= set(wheelhouse.locked(lock(), TRIXIE))


@pytest.mark.parametrize(
    ("name", "target", "fits"),
    [
        ("cryptg-0.6.0-cp313-cp313-manylinux_2_28_x86_64.whl", TRIXIE, True),
        ("cryptg-0.6.0-cp313-cp313-manylinux_2_28_x86_64.whl", BOOKWORM, False),
        ("cryptg-0.6.0-cp311-cp311-manylinux_2_39_x86_64.whl", BOOKWORM, False),
        ("cryptography-50.0.2-cp311-abi3-manylinux_2_34_x86_64.whl", BOOKWORM, True),
        ("cryptg-0.6.0-cp313-cp313-manylinux_2_28_x86_64.whl", ARM, False),
        ("rsa-4.9.1-py3-none-any.whl", ARM, True),
        ("rsa-4.9.1-py2.py3-none-any.whl", TRIXIE, True),
        ("uvloop-0.23.0-cp313-cp313-macosx_11_0_arm64.whl", ARM, False),
    ],
)
def test_a_wheel_fits_by_python_machine_and_c_library(tmp_path: Path, name: str, target: object, fits: bool) -> None:
    wheel(tmp_path, name)
    wheel(tmp_path, "telegram_stack-0.1.0-py3-none-any.whl")
    if fits:
        assert name in {path.name for path in wheelhouse.check(tmp_path, target, {}).values()}
    else:
        with pytest.raises(wheelhouse.WheelhouseError, match="is not for Python"):
            wheelhouse.check(tmp_path, target, {})


def test_everything_that_is_missing_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(wheelhouse.WheelhouseError, match=r"redis is missing; telegram-stack is missing"):
        wheelhouse.check(tmp_path, TRIXIE, {"redis": ""})


def test_two_versions_of_one_library_are_refused(tmp_path: Path) -> None:
    wheel(tmp_path, "rsa-4.9.1-py3-none-any.whl")
    wheel(tmp_path, "rsa-4.9-py3-none-any.whl")
    with pytest.raises(wheelhouse.WheelhouseError, match="holds both"):
        wheelhouse.wheels_in(tmp_path)


def test_a_given_folder_with_an_altered_wheel_is_refused(tmp_path: Path) -> None:
    path = wheel(tmp_path, "telegram_stack-0.1.0-py3-none-any.whl")
    listing = tmp_path / "requirements.txt"
    listing.write_text(wheelhouse.requirements_of(wheelhouse.wheels_in(tmp_path)), encoding="utf-8")
    wheelhouse.check_ready(tmp_path, TRIXIE, {})
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(wheelhouse.WheelhouseError, match="does not match the wheels"):
        wheelhouse.check_ready(tmp_path, TRIXIE, {})


def test_requirements_allow_exactly_the_files_there(tmp_path: Path) -> None:
    path = wheel(tmp_path, "telegram_stack-0.1.0-py3-none-any.whl")
    text = wheelhouse.requirements_of(wheelhouse.wheels_in(tmp_path))
    assert text == f"telegram-stack==0.1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def test_the_same_files_give_the_same_archive(tmp_path: Path) -> None:
    wheel(tmp_path / "house", "telegram_stack-0.1.0-py3-none-any.whl")
    wheelhouse.pack(tmp_path / "house", tmp_path / "one.tar")
    (tmp_path / "house" / "telegram_stack-0.1.0-py3-none-any.whl").touch()
    wheelhouse.pack(tmp_path / "house", tmp_path / "two.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_a_package_installs_the_wheel_it_carries_and_a_clone_its_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ROOT", "SERVICES", "CARRIED"):
        monkeypatch.setattr(wheelhouse, name, tmp_path / name)
    (tmp_path / "ROOT").mkdir()
    with pytest.raises(wheelhouse.WheelhouseError, match="install the collection again"):
        wheelhouse.origin()
    code = tmp_path / "SERVICES" / "src" / "telegram_stack" / "events.py"
    code.parent.mkdir(parents=True)
    code.touch()
    project = tmp_path / "SERVICES" / "pyproject.toml"
    project.touch()
    carried = wheel(tmp_path / "CARRIED", "telegram_stack-0.1.0-py3-none-any.whl")
    assert wheelhouse.origin() == [project, code]
    (tmp_path / "ROOT" / "MANIFEST.json").touch()  # which only the built package has
    assert wheelhouse.origin() == [carried]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), wheelhouse.appearing(tmp_path / "house") as scratch:
        (scratch / "half").touch()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A gathered folder of two wheels, the lock that it was gathered by, and a cache of its own."""
    folder = tmp_path / "ready"
    redis = wheel(folder, "redis-8.1.0-py3-none-any.whl")
    wheel(folder, "telegram_stack-0.1.0-py3-none-any.whl")
    (folder / "requirements.txt").write_text(wheelhouse.requirements_of(wheelhouse.wheels_in(folder)), encoding="utf-8")
    services = tmp_path / "services"
    services.mkdir()
    (services / "requirements.lock").write_text(f"redis==8.1.0 \\\n    --hash=sha256:{wheelhouse.digest(redis)}\n")
    monkeypatch.setattr(wheelhouse, "SERVICES", services)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "/nonexistent")  # no pip, no index
    return folder


def test_a_ready_folder_serves_without_an_index(ready: Path) -> None:
    answer = wheelhouse.house(TRIXIE, ready)
    assert answer["folder"] == str(ready)
    assert answer["release"].startswith("0.1.0-")
    with tarfile.open(answer["archive"]) as tar:
        assert set(tar.getnames()) == {path.name for path in ready.iterdir()}


def test_another_content_is_another_release(ready: Path) -> None:
    before = wheelhouse.house(TRIXIE, ready)["release"]
    path = wheel(ready, "telegram_stack-0.1.0-py3-none-any.whl")
    path.write_bytes(path.read_bytes() + b"\0")
    (ready / "requirements.txt").write_text(wheelhouse.requirements_of(wheelhouse.wheels_in(ready)), encoding="utf-8")
    assert wheelhouse.house(TRIXIE, ready)["release"] != before


def test_a_ready_folder_of_other_libraries_than_the_locked_is_refused(ready: Path) -> None:
    path = wheel(ready, "redis-8.1.0-py3-none-any.whl")
    path.write_bytes(path.read_bytes() + b"\0")
    (ready / "requirements.txt").write_text(wheelhouse.requirements_of(wheelhouse.wheels_in(ready)), encoding="utf-8")
    with pytest.raises(wheelhouse.WheelhouseError, match=r"redis-8\.1\.0-py3-none-any\.whl is not the file"):
        wheelhouse.house(TRIXIE, ready)


def test_the_program_says_in_one_sentence_what_is_wrong(tmp_path: Path) -> None:
    command = [sys.executable, str(PROGRAM), "house", "--python", "3.13.5", "--machine", "x86_64", "--glibc", "2.41"]
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [*command, "--ready", str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path} is no wheel-house: it has no requirements.txt (common_wheelhouse_dir).\n"
