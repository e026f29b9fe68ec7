"""RabbitMQ: queues, flow, resources."""

from __future__ import annotations

from tools.dashboards.page import RATE, Limit, Page, Query, Row, Variable, lines, stat

_H = 'instance=~"$host"'
_CONSUMERS = 'queue=~"telegram[.]consumer[.][^.]+"'


def _rate(metric: str) -> str:
    return f"sum(rate({metric}{{{_H}}}{RATE}))"


def _queues(metric: str, which: str) -> str:
    return f"sum by (queue) (rabbitmq_detailed_queue_{metric}{{{_H}, {which}}})"


_QUEUES = Row(
    "Queues",
    [
        lines(
            "Messages in the consumers' queues",
            "Ready and not yet acknowledged.",
            "short",
            Query(_queues("messages", _CONSUMERS), "{{queue}}"),
            limit=Limit("MessageQueueBuilding", "[[ monitoring_queue_building_limit ]]"),
        ),
        lines(
            "Ready in the consumers' queues",
            "Nobody has them yet.",
            "short",
            Query(_queues("messages_ready", _CONSUMERS), "{{queue}}"),
            limit=Limit("RabbitMQBacklog", "[[ telegram_queue_ready_limit ]]"),
        ),
        stat(
            "Consumers",
            "Of each consumer's queue.",
            "short",
            Query(_queues("consumers", _CONSUMERS), "{{queue}}"),
            alerts=("QueueWithoutConsumer",),
            width=8,
        ),
        lines(
            "Dead letters",
            "Consumers have given them up. They can be replayed.",
            "short",
            Query(_queues("messages", 'queue="telegram.messages.dlq"'), "{{queue}}"),
            limit=Limit("DeadLetterQueueBuilding", "[[ telegram_dead_letters_limit ]]"),
        ),
        lines(
            "Unroutable",
            "No binding wanted them. The queue is bounded: the oldest go first.",
            "short",
            Query(_queues("messages", 'queue="telegram.unroutable"'), "{{queue}}"),
            limit=Limit("UnroutableMessages", "[[ telegram_unroutable_limit ]]"),
        ),
        lines(
            "Messages by queue",
            "As chosen above, queues for retries included.",
            "short",
            Query(_queues("messages", 'queue=~"$queue"'), "{{queue}}"),
            stacked=True,
        ),
    ],
)

_FLOW = Row(
    "Flow",
    [
        lines(
            "Published",
            "Taken from publishers, and confirmed to them.",
            "cps",
            Query(_rate("rabbitmq_global_messages_received_total"), "received"),
            Query(_rate("rabbitmq_global_messages_confirmed_total"), "confirmed"),
        ),
        lines(
            "Consumed",
            "Given to consumers, acknowledged by them, given again.",
            "cps",
            Query(_rate("rabbitmq_global_messages_delivered_total"), "delivered"),
            Query(_rate("rabbitmq_global_messages_acknowledged_total"), "acknowledged"),
            Query(_rate("rabbitmq_global_messages_redelivered_total"), "given again"),
        ),
        lines(
            "Dropped as unroutable",
            "With the alternate exchange it should be none.",
            "cps",
            Query(_rate("rabbitmq_global_messages_unroutable_dropped_total"), "dropped"),
        ),
    ],
)

_BROKER = Row(
    "Broker",
    [
        lines(
            "Memory",
            "Above its limit the broker stops taking messages.",
            "bytes",
            Query(f"rabbitmq_process_resident_memory_bytes{{{_H}}}", "used {{instance}}"),
            Query(f"rabbitmq_resident_memory_limit_bytes{{{_H}}}", "limit {{instance}}"),
        ),
        lines(
            "Free disk",
            "Below its limit the broker stops taking messages.",
            "bytes",
            Query(f"rabbitmq_disk_space_available_bytes{{{_H}}}", "free {{instance}}"),
            Query(f"rabbitmq_disk_space_available_limit_bytes{{{_H}}}", "limit {{instance}}"),
        ),
        stat(
            "Alarms",
            "While one is raised nothing is published.",
            "short",
            Query(f"max(rabbitmq_alarms_memory_used_watermark{{{_H}}})", "memory"),
            Query(f"max(rabbitmq_alarms_free_disk_space_watermark{{{_H}}})", "disk"),
            states=((0, "none"), (1, "raised")),
            bad=(1,),
            width=8,
        ),
        lines(
            "Connections and channels",
            "Of all clients.",
            "short",
            Query(f"sum(rabbitmq_connections{{{_H}}})", "connections"),
            Query(f"sum(rabbitmq_channels{{{_H}}})", "channels"),
        ),
        lines(
            "Connections opened and closed",
            "Many are a client that cannot stay.",
            "cps",
            Query(_rate("rabbitmq_connections_opened_total"), "opened"),
            Query(_rate("rabbitmq_connections_closed_total"), "closed"),
        ),
    ],
)

PAGE = Page(
    name="rabbitmq",
    title="Telegram: RabbitMQ",
    text="The queue: what waits, what flows, what the broker has left.",
    variables=[
        Variable("host", "instance", "rabbitmq_identity_info", "Broker"),
        Variable("queue", "queue", 'rabbitmq_detailed_queue_messages{instance=~"$host"}', "Queue"),
    ],
    rows=[_QUEUES, _FLOW, _BROKER],
)
