"""Grafana's dashboards: what they show is written here once, the files that the role deploys are generated."""
