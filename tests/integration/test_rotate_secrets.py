"""What `rotate_secrets` says and refuses before it changes anything; molecule's scenario has the rotation itself."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from tests.integration.plays import playbook
from tests.integration.servers import ROOT

NAMES = yaml.safe_load((ROOT / "roles/common/vars/main.yml").read_text())["_common_secret_names"]


class Inventory:
    """An inventory of this machine alone, with a secrets file beside it, where Ansible reads it by itself."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "group_vars" / "all" / "telegram_secrets.yml"
        self.file.parent.mkdir(parents=True)
        self.keep({name: f"canary-old-{name}" for name in NAMES})
        self.hosts = folder / "hosts.yml"
        host = {"ansible_connection": "local", "ansible_become": False}
        self.hosts.write_text(json.dumps({"telegram_stack": {"hosts": {"localhost": host}}}))

    def keep(self, secrets: dict[str, str], ending: str = "") -> None:
        """Write a secrets file."""
        Path(f"{self.file}{ending}").write_text(json.dumps({"telegram_secrets": secrets}))

    def rotate(self, *options: str) -> subprocess.CompletedProcess[str]:
        """A dry run; it changes no file, whatever it says."""
        before = {path: path.read_text() for path in self.file.parent.iterdir()}
        done = playbook("--check", "--diff", "-i", str(self.hosts), "playbooks/rotate_secrets.yml", *options)
        assert {path: path.read_text() for path in self.file.parent.iterdir()} == before
        assert "canary-" not in done.stdout + done.stderr
        return done

    def refusal(self, *options: str) -> str:
        """The words with which it refuses."""
        done = self.rotate(*options)
        assert done.returncode != 0
        return " ".join(done.stdout.split())


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    return Inventory(tmp_path)


@pytest.mark.requirement("OP-02", "OP-03")
def test_a_dry_run_says_what_is_new_and_what_stays(inventory: Inventory) -> None:
    done = inventory.rotate("-e", "rotate_only=redis_api,postgres_api")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "New: redis_api, postgres_api\n" in done.stdout
    assert "As they are: api_token_admin, " in done.stdout


@pytest.mark.requirement("OP-03")
def test_a_rotation_that_has_begun_goes_on_with_its_own_secrets_and_lets_no_other_begin(inventory: Inventory) -> None:
    secrets = {name: f"canary-old-{name}" for name in NAMES}
    inventory.keep(secrets | {"redis_api": "canary-new", "api_token_read": "canary-new"}, ".new")
    done = inventory.rotate()
    assert done.returncode == 0, done.stdout[-3000:]
    assert "New: api_token_read, redis_api\n" in done.stdout
    assert "A rotation of api_token_read, redis_api has begun" in inventory.refusal("-e", "rotate_only=redis_worker")


@pytest.mark.requirement("OP-03")
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["rotate_only=redis_appi"], "no secret named redis_appi (rotate_only). Those that can be rotated: api_token_"),
        (["rotate_only=backup_passphrase"], "backup_passphrase is not rotated: the repositories are encrypted with it"),
        (["rotate_olny=redis_api"], "one setting, rotate_only; it does not know rotate_olny"),
        (["telegram_staged=true"], "A migration is under way on localhost"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_refused(inventory: Inventory, options: list[str], says: str) -> None:
    assert says in inventory.refusal(*(part for option in options for part in ("-e", option)))


@pytest.mark.requirement("OP-03")
def test_an_encrypted_secrets_file_is_refused_with_what_to_do(inventory: Inventory, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("of the vault")
    vault = ["--vault-password-file", str(password)]
    subprocess.run(["ansible-vault", "encrypt", *vault, str(inventory.file)], check=True, capture_output=True)
    assert f"ansible-vault decrypt {inventory.file}" in inventory.refusal(*vault).replace(" \\ ", "")
