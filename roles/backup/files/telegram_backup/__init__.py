"""Backup sets of one host: made, listed, tested and restored. Run as `telegram-backup` by systemd and by playbooks."""
