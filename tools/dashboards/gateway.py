"""The MTProto gateway: connection, receipt, gap recovery, spool, sinks."""

from __future__ import annotations

from tools.dashboards.page import Limit, Page, Query, Row, Variable, lines, percentiles, rate, stat

_H = 'instance=~"$host"'
_HC = f'{_H}, channel_id=~"$channel"'


def _g(metric: str, more: str = "") -> str:
    return f"{metric}{{{_H}{more}}}"


_CONNECTION = Row(
    "Connection",
    [
        stat(
            "Connected",
            "Whether the gateway is connected to Telegram.",
            "short",
            Query(_g("telegram_connection_status"), "{{instance}}"),
            alerts=("TelegramDisconnected",),
            states=((0, "away"), (1, "connected")),
        ),
        stat(
            "Session",
            "The state that the session is in. Without a session the gateway waits for a log-in.",
            "short",
            Query(f"{_g('telegram_session_state')} == 1", "{{state}}"),
            alerts=("TelegramSessionInvalid",),
            states=((1, "now"),),
            bad=(),
        ),
        stat(
            "Lease",
            "How long the lease of the session lasts if it is not renewed. There only where several hosts stand by.",
            "s",
            Query(_g("telegram_lease_remaining_seconds"), "{{instance}}"),
        ),
        lines(
            "Connections that ended",
            "Each is followed by a recovery of what was missed.",
            "cps",
            Query(rate("telegram_reconnects_total", "instance", _H), "{{instance}}"),
            Query(rate("telegram_back_pressure_disconnects_total", "", _H), "given up: more came than could be kept"),
            width=6,
        ),
        lines(
            "Clock against Telegram's",
            "Telegram's clock is told in whole seconds.",
            "s",
            Query(f"abs({_g('telegram_clock_offset_seconds')})", "{{instance}}"),
            limit=Limit("ClockSkew", "[[ monitoring_clock_skew_limit_seconds ]]"),
            width=6,
        ),
    ],
)

_RECEIPT = Row(
    "Receipt",
    [
        lines(
            "Live updates",
            "By kind.",
            "cps",
            Query(rate("telegram_events_received_total", "kind", _H), "{{kind}}"),
            stacked=True,
        ),
        lines(
            "New messages by channel",
            "As chosen above.",
            "cps",
            Query(rate("telegram_messages_received_total", "channel_id", _HC), "{{channel_id}}"),
        ),
        lines(
            "Telegram's own delay",
            "From Telegram's date of a message, in whole seconds, to its receipt.",
            "s",
            *percentiles("telegram_delay_seconds", _H),
        ),
        lines(
            "Updates not looked at yet",
            "What the client holds. It grows when more comes in than the spool takes.",
            "short",
            Query(_g("telegram_update_queue_size"), "{{instance}}"),
        ),
        lines(
            "Not understood",
            "Updates and messages that could not be converted: a fault of ours.",
            "cps",
            Query(rate("telegram_updates_not_understood_total", "instance", _H), "{{instance}}"),
        ),
        lines(
            "Last message of each channel",
            "The id up to which the channel is complete.",
            "short",
            Query(_g("telegram_channel_last_message_id", ', channel_id=~"$channel"'), "{{channel_id}}"),
        ),
    ],
)

_GAPS = Row(
    "Gaps and their recovery",
    [
        lines(
            "Gaps detected, messages recovered",
            "A gap is a channel whose records at Telegram go on behind ours. Recovered is what they brought.",
            "cps",
            Query(rate("telegram_gaps_detected_total", "", _H), "gaps"),
            Query(rate("telegram_recovered_messages_total", "kind", _H), "recovered: {{kind}}"),
        ),
        lines(
            "Channels not complete",
            "Open: the recovery works on them. Unreadable: the account cannot read them.",
            "short",
            Query(_g("telegram_recovery_channels"), "open {{instance}}"),
            Query(_g("telegram_recovery_unreadable_channels"), "unreadable {{instance}}"),
        ),
        lines(
            "How long the recovery takes",
            "0 when none runs.",
            "s",
            Query(_g("telegram_recovery_seconds"), "{{instance}}"),
            limit=Limit("UnresolvedGaps", "[[ monitoring_recovery_limit_seconds ]]"),
        ),
        lines(
            "Pauses that Telegram asked for",
            "How long each method must not be used. Without a flood wait there is none.",
            "s",
            Query(_g("telegram_flood_wait_remaining_seconds"), "{{method}}"),
            limit=Limit("LongFloodWait", "[[ monitoring_flood_wait_limit_seconds ]]"),
        ),
        lines(
            "Pauses, share of time",
            "By method. Without a flood wait there is none.",
            "percentunit",
            Query(rate("telegram_flood_wait_seconds_total", "method", _H), "{{method}}"),
        ),
        lines(
            "Backfill on request",
            "Channels not yet read to their end, and messages that came.",
            "short",
            Query(_g("telegram_sync_channels"), "channels {{instance}}"),
            Query(rate("telegram_synced_messages_total", "", _H), "messages a second"),
        ),
    ],
)

_SPOOL = Row(
    "Spool",
    [
        lines(
            "Oldest event that waits, by store",
            "A store that is away makes it grow. Nothing is lost as long as the disk has room.",
            "s",
            Query(_g("telegram_sink_oldest_waiting_seconds"), "{{sink}}"),
            limit=Limit("SinkBehind", "[[ telegram_lag_limit_seconds ]]"),
        ),
        lines(
            "Events behind, by store",
            "The spool is trimmed behind the slowest.",
            "short",
            Query(_g("telegram_sink_lag_events"), "{{sink}}"),
        ),
        lines(
            "Time of a commit",
            "Of a group of events, the disk's fsync included.",
            "s",
            *percentiles("telegram_spool_commit_seconds", _H),
        ),
        lines(
            "Size on disk",
            "The spool, and the reserve that is kept for a full disk. A reserve of 0 is one that was given back.",
            "bytes",
            Query(_g("telegram_spool_bytes"), "spool {{instance}}"),
            Query(_g("telegram_spool_reserve_bytes"), "reserve {{instance}}"),
            alerts=("SpoolReserveGiven",),
        ),
        lines(
            "Events that wait for their commit",
            "In memory; bounded.",
            "short",
            Query(_g("telegram_spool_pending_events"), "{{instance}}"),
        ),
        lines(
            "Events in a commit",
            "The mean: the busier, the larger a group.",
            "short",
            Query(
                f"{rate('telegram_spool_group_events_sum', 'instance', _H)}"
                f" / ({rate('telegram_spool_group_events_count', 'instance', _H)} > 0)",
                "{{instance}}",
            ),
        ),
    ],
)

_SINKS = Row(
    "Stores",
    [
        lines(
            "Events a second, by store",
            "What each has made durable.",
            "cps",
            Query(rate("telegram_sink_events_total", "sink", _H), "{{sink}}"),
        ),
        lines(
            "Receipt to each stage, p95",
            "From the receipt of an event until the stage has it.",
            "s",
            Query(
                "histogram_quantile(0.95, sum by (stage, le) "
                f"(rate({_g('telegram_stage_seconds_bucket')}[$__rate_interval])))",
                "{{stage}}",
            ),
        ),
        stat(
            "Available",
            "Whether the last write to each store succeeded.",
            "short",
            Query(f"min by (sink) ({_g('telegram_sink_available')})", "{{sink}}"),
            states=((0, "away"), (1, "takes")),
            width=8,
        ),
        lines(
            "Writes to be repeated",
            "By store.",
            "cps",
            Query(rate("telegram_retry_attempts_total", "sink", _H), "{{sink}}"),
        ),
        lines(
            "In quarantine",
            "Events that a store has refused for good.",
            "short",
            Query(_g("telegram_sink_quarantined_events"), "{{sink}}"),
            alerts=("EventsQuarantined",),
        ),
        lines(
            "Queue: confirmed and refused",
            "What the broker confirmed, and what it refused by a nack.",
            "cps",
            Query(rate("telegram_messages_published_total", "", _H), "confirmed"),
            Query(rate("telegram_queue_nacks_total", "", _H), "nacks"),
        ),
    ],
)

PAGE = Page(
    name="gateway",
    title="Telegram: gateway",
    text="The MTProto gateway: connection, receipt, gap recovery, spool, stores.",
    variables=[
        Variable("host", "instance", "telegram_connection_status", "Gateway"),
        Variable("channel", "channel_id", 'telegram_channel_last_message_id{instance=~"$host"}', "Channel"),
    ],
    rows=[_CONNECTION, _RECEIPT, _GAPS, _SPOOL, _SINKS],
)
