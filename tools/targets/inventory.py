"""How to reach targets: for Ansible, and for ssh."""

from tools.targets.lab import Lab, Machine
from tools.targets.network import Network
from tools.targets.rootfs import USER

# Host keys are new with every base and mean nothing on a bridge that leads nowhere.
_SSH_OPTIONS = {"StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null", "LogLevel": "ERROR"}


def variables(lab: Lab, net: Network, machine: Machine) -> dict[str, object]:
    """What Ansible must know of a target, as its host variables."""
    return {
        "ansible_host": net.address(machine.host),
        "ansible_user": USER,
        "ansible_ssh_private_key_file": str(lab.key),
        "ansible_ssh_common_args": " ".join(f"-o {key}={value}" for key, value in _SSH_OPTIONS.items()),
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_become": True,
    }


def ssh_config(lab: Lab, net: Network, machine: Machine) -> str:
    """A `Host` block for `ssh -F`."""
    lines = {"HostName": net.address(machine.host), "User": USER, "IdentityFile": lab.key, **_SSH_OPTIONS}
    return f"Host {machine.name}\n" + "".join(f"  {key} {value}\n" for key, value in lines.items())
