"""The old system's processes in real containers, with Podman; they need no image and no network."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration import modules
from tests.integration.modules import failure, success

_SHELL = Path("/bin/busybox")
# Its own store, and a runtime that starts inside containers as well.
_ENGINE = "exec podman --root {0}/store --runroot {0}/run --runtime runc --cgroup-manager cgroupfs --storage-driver vfs"
_LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
_SLEEP = ("/bin/sh", "-c", "trap exit TERM; while :; do sleep 0.1; done")

pytestmark = [
    pytest.mark.requirement("OP-04"),
    pytest.mark.skipif(
        not shutil.which("podman") or not _SHELL.exists(), reason="Podman is not installed: make servers-ready"
    ),
]


class Engine:
    """Podman, and what a container of it is asked and told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "engine"
        self.program.write_text(f'#!/bin/sh\n{_ENGINE.format(folder)} "$@"\n')
        self.program.chmod(0o755)
        (folder / "files/bin").mkdir(parents=True)
        for part in ("proc", "sys", "dev", "etc", "tmp"):
            (folder / "files" / part).mkdir()
        shutil.copy(_SHELL, folder / "files/bin")
        for name in ("sh", "sleep"):
            (folder / "files/bin" / name).symlink_to("busybox")

    def run(self, *words: str) -> str:
        done = subprocess.run([self.program, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words[0]}: {done.stderr}"
        return done.stdout

    def module(self, state: str | None = None, **options: Any) -> dict[str, Any]:
        process = {"name": "gateway", "container": "old", "engine": str(self.program), **options}
        return modules.run("legacy_processes", {"processes": [process]} | ({"state": state} if state else {}))

    def running(self) -> bool:
        return self.run("inspect", "--format", "{{.State.Running}}", "old").strip() == "true"


@pytest.fixture
def engine() -> Iterator[Engine]:
    # Podman takes short paths only, and tidies up behind a container that is gone.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        made = Engine(Path(folder))
        files = str(made.folder / "files")
        trial: list[str | Path] = [
            made.program,
            "run",
            "--rm",
            "--network",
            "host",
            *_LIMITS,
            "--rootfs",
            files,
            "/bin/sh",
            "-c",
            "true",
        ]
        done = subprocess.run(trial, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"Podman cannot run a container here: {done.stderr.strip().splitlines()[-1:]}")
        yield made
        made.run("rm", "--force", "--all")


def create(engine: Engine, *options: str) -> None:
    """A container that runs until it is stopped."""
    files = str(engine.folder / "files")
    engine.run("run", "--detach", "--name", "old", "--network", "host", *_LIMITS, *options, "--rootfs", files, *_SLEEP)


def test_a_container_is_stopped_proven_to_be_and_started_again(engine: Engine) -> None:
    create(engine)
    said = success(engine.module())
    assert (said["running"], said["changed"]) == (["gateway"], False)
    assert engine.running()
    assert success(engine.module("stopped"))["changed"]
    assert not engine.running()
    assert not success(engine.module("stopped"))["changed"]
    assert success(engine.module("started", boot=said["processes"][0]["boot"]))["changed"]
    assert engine.running()


def test_a_container_that_comes_back_by_itself_is_none_that_was_stopped(engine: Engine) -> None:
    create(engine, "--restart", "always")
    said = engine.module("stopped")
    policy = ("inspect", "--format", "{{.HostConfig.RestartPolicy.Name}}", "old")
    if said.get("failed"):  # Podman before 5
        assert "Make it anew with --restart=no" in failure(said)
        assert engine.run(*policy).strip() == "always"
        assert engine.running()
    else:
        assert engine.run(*policy).strip() == "no"
        assert not engine.running()


def test_a_container_that_is_not_there_is_named(engine: Engine) -> None:
    assert "old" in failure(engine.module())
