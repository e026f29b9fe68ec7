"""The hosts: processor, memory, disk, units, jobs."""

from __future__ import annotations

from tools.dashboards.page import RATE, Limit, Page, Query, Row, Variable, lines, stat

_H = 'instance=~"$host"'
_STATED = ((0, "failed"), (1, "good"))

_HOST = Row(
    "Host",
    [
        lines(
            "Processor",
            "By what it does; idle left out. 1 is one core.",
            "short",
            Query(f'sum by (mode) (rate(node_cpu_seconds_total{{{_H}, mode!="idle"}}{RATE}))', "{{mode}}"),
            stacked=True,
        ),
        lines(
            "Load",
            "Processes that run or wait, and cores.",
            "short",
            Query(f"node_load1{{{_H}}}", "1 minute {{instance}}"),
            Query(f"node_load5{{{_H}}}", "5 minutes {{instance}}"),
            Query(f'count by (instance) (node_cpu_seconds_total{{{_H}, mode="idle"}})', "cores {{instance}}"),
        ),
        lines(
            "Memory in use",
            "Without what the system could give back at once.",
            "percent",
            Query(f"instance:node_memory_used:ratio{{{_H}}} * 100", "{{instance}}"),
            limit=Limit("HighMemoryUsage", "[[ monitoring_memory_limit_percent ]]"),
        ),
        lines(
            "Room on disks",
            "The alert also fires when a disk that is less than 40 % free will be full within a day.",
            "percent",
            Query(f"instance:node_filesystem_avail:ratio{{{_H}}} * 100", "{{mountpoint}} {{instance}}"),
            limit=Limit("DiskSpaceLow", "[[ monitoring_disk_free_limit_percent ]]", below=True),
        ),
        lines(
            "Disks",
            "Read and written.",
            "Bps",
            Query(f"sum by (instance) (rate(node_disk_read_bytes_total{{{_H}}}{RATE}))", "read {{instance}}"),
            Query(f"sum by (instance) (rate(node_disk_written_bytes_total{{{_H}}}{RATE}))", "written {{instance}}"),
        ),
        lines(
            "Network",
            "Without loopback.",
            "Bps",
            Query(
                f'sum by (instance) (rate(node_network_receive_bytes_total{{{_H}, device!="lo"}}{RATE}))',
                "in {{instance}}",
            ),
            Query(
                f'sum by (instance) (rate(node_network_transmit_bytes_total{{{_H}, device!="lo"}}{RATE}))',
                "out {{instance}}",
            ),
        ),
        lines(
            "Clock",
            "Against its time server.",
            "s",
            Query(f"abs(node_timex_offset_seconds{{{_H}}})", "{{instance}}"),
            limit=Limit("ClockSkew", "[[ monitoring_clock_skew_limit_seconds ]]"),
        ),
        stat(
            "Running for",
            "Since the last boot.",
            "s",
            Query(f"time() - node_boot_time_seconds{{{_H}}}", "{{instance}}"),
        ),
        stat(
            "Host metrics",
            "Age of what telegram-host-metrics wrote last.",
            "s",
            Query(f'time() - node_textfile_mtime_seconds{{{_H}, file=~".*telegram_host[.]prom"}}', "{{instance}}"),
            limit=Limit("HostMetricsStale", 120),
        ),
    ],
)

_UNITS = Row(
    "Units",
    [
        lines(
            "Memory of units, share of their limit",
            "Of units that have one. What the system could give back is not counted.",
            "percent",
            Query(f"unit:telegram_unit_memory:ratio{{{_H}}} * 100", "{{unit}}"),
            limit=Limit("HighMemoryUsage", "[[ monitoring_memory_limit_percent ]]"),
        ),
        lines(
            "Memory of units",
            "What the system could give back is not counted.",
            "bytes",
            Query(f"telegram_unit_memory_bytes{{{_H}}}", "{{unit}}"),
        ),
        lines(
            "Processor time of units",
            "1 is one core.",
            "short",
            Query(f"topk(10, rate(telegram_unit_cpu_seconds_total{{{_H}}}{RATE}))", "{{unit}}"),
        ),
        lines(
            "Held back by their limit",
            "Share of the time.",
            "percentunit",
            Query(f"topk(10, rate(telegram_unit_cpu_throttled_seconds_total{{{_H}}}{RATE}))", "{{unit}}"),
        ),
        stat(
            "Failed units",
            "How many have ended badly.",
            "short",
            Query(f'sum by (instance) (node_systemd_unit_state{{{_H}, state="failed"}})', "{{instance}}"),
            alerts=("UnitFailed",),
            width=4,
        ),
        stat(
            "Last run of each job",
            "Backup, restore test and the like.",
            "short",
            Query(f"telegram_backup_last_run_ok{{{_H}}}", "{{job_name}}"),
            alerts=("JobFailed",),
            states=_STATED,
            width=6,
        ),
        lines(
            "Hours since a job was last good",
            "The line is the backup's limit; the restore test has [[ telegram_restore_test_age_limit_hours ]] h.",
            "h",
            Query(f"(time() - telegram_backup_last_success_timestamp_seconds{{{_H}}}) / 3600", "{{job_name}}"),
            limit=Limit("JobOverdue", "[[ telegram_backup_age_limit_hours ]]"),
            width=6,
        ),
    ],
)

PAGE = Page(
    name="hosts",
    title="Telegram: hosts",
    text="Processor, memory, disks, units and jobs of every host that is watched.",
    variables=[Variable("host", "instance", "node_uname_info", "Host")],
    rows=[_HOST, _UNITS],
)
