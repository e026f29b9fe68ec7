"""Real Debian hosts on this machine, for molecule, the demo and the tests.

A target is a systemd-nspawn machine: its own systemd as PID 1, its own network, its own enforced resource limits.
Run `python3 -m tools.targets --help` from the repository root; `docs/development-targets.md` explains the rest.
"""
