"""What no consumer wants is kept within a bound and counted where Prometheus looks."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from urllib.parse import urlencode

import httpx
import pytest
import yaml
from jinja2 import Environment
from tests.integration import brokers
from tests.integration.servers import ROOT, wait_until
from tests.integration.workers import event

from telegram_stack import events
from telegram_stack.sinks.queue import QueueConfig, QueueSink
from telegram_stack.spool import Entry
from telegram_stack.topology import UNROUTABLE, UNROUTABLE_MAX_LENGTH

pytestmark = pytest.mark.skipif(not brokers.rabbitmq_installed(), reason="RabbitMQ is not installed")


def scraped(broker: brokers.Broker) -> dict[str, float]:
    """Messages by queue, asked for as the role tells Prometheus to ask."""
    environment = Environment(autoescape=False)  # noqa: S701  # YAML, not a page
    environment.filters |= {"bool": bool, "to_json": lambda value: yaml.safe_dump(value, default_flow_style=True)}
    text = environment.from_string((ROOT / "roles/monitoring/templates/prometheus.yml.j2").read_text()).render(
        telegram_queue_enabled=True,
        telegram_rabbitmq_vhost=brokers.VHOST,
        monitoring_rabbitmq_targets=[f"127.0.0.1:{broker.metrics_port}"],
        monitoring_scrape_interval="15s",
        monitoring_components=[],
        _monitoring_jobs={},
        _monitoring_targets_dir="targets",
    )
    (job,) = [job for job in yaml.safe_load(text)["scrape_configs"] if job["job_name"] == "rabbitmq_queues"]
    assert job["file_sd_configs"] == [{"files": ["targets/rabbitmq.yml"]}]  # those of the job `rabbitmq`
    target = f"127.0.0.1:{broker.metrics_port}"
    answer = httpx.get(f"http://{target}{job['metrics_path']}?{urlencode(job['params'], doseq=True)}")
    answer.raise_for_status()
    found = re.findall(r'^rabbitmq_detailed_queue_messages\{.*queue="([^"]+)".*\} (\S+)$', answer.text, re.MULTILINE)
    return {queue: float(count) for queue, count in found}


@pytest.fixture
def nobody_listens(consumer_broker: brokers.Broker) -> Iterator[brokers.Broker]:
    """A broker without a consumer's queue; its unroutable messages are thrown away in the end."""
    channel = consumer_broker.channel()
    yield consumer_broker
    channel.queue_purge(UNROUTABLE)
    channel.connection.close()


@pytest.mark.requirement("MQ-02")
async def test_the_newest_unroutable_messages_are_kept_and_counted(nobody_listens: brokers.Broker) -> None:
    broker, extra = nobody_listens, 50
    everything = [event(-1007, number, text="x") for number in range(1, UNROUTABLE_MAX_LENGTH + extra + 1)]
    sink = QueueSink(QueueConfig(port=broker.port), broker.password)
    for first in range(0, len(everything), 1000):
        page = everything[first : first + 1000]
        await sink.write([Entry(one.message_id, one, events.encode(one), time.time()) for one in page])
    await sink.close()
    await asyncio.sleep(0.05)  # pika closes in the background
    channel = broker.channel()
    wait_until(lambda: channel.queue_declare(UNROUTABLE, passive=True).method.message_count == UNROUTABLE_MAX_LENGTH)
    _, _, oldest = channel.basic_get(UNROUTABLE)
    channel.connection.close()  # gives it back
    assert events.decode(oldest).message_id > extra
    wait_until(lambda: scraped(broker).get(UNROUTABLE) == UNROUTABLE_MAX_LENGTH)
