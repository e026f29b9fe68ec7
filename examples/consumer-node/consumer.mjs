// Takes messages of the Telegram stack from RabbitMQ and prints each state of each message once, as a line of JSON.
// The contract is in docs/queue.md; what a consumer of your own changes is `effect`.
//
//   npm ci && AMQP_URL=amqp://telegram_worker:PASSWORD@127.0.0.1:5672/telegram CONSUMER=example node consumer.mjs

import amqp from 'amqplib';

const url = process.env.AMQP_URL;
const consumer = process.env.CONSUMER ?? 'example'; // lower-case letters, digits, - and _
const channelIds = (process.env.CHANNELS ?? '*').split(','); // -100…,-100… or * for all

const QUEUE = `telegram.consumer.${consumer}`;
const DELAYS = { '1s': 1_000, '10s': 10_000, '60s': 60_000 };
const SCHEMA_VERSION = 1;

if (!url) {
  console.error('AMQP_URL is not set, for example amqp://telegram_worker:PASSWORD@127.0.0.1:5672/telegram');
  process.exit(2);
}

// What was done, by message. A real consumer keeps this where its effect is, and commits the two in one transaction:
// then a message that comes again after a crash changes nothing.
const versions = new Map();

// What this consumer is for. Throws when it fails: the message comes again after 1 s, 10 s and 60 s.
async function effect(event) {
  if (event.content?.message_type === 'poll') {
    throw new Error('polls are not handled yet');
  }
  const { kind, channel_id, message_id, version } = event;
  console.log(JSON.stringify({ kind, channel_id, message_id, version, text: event.content?.text ?? null }));
}

let working = Promise.resolve(); // one after the other, in their order
let stopping = false;

const connection = await amqp.connect(url, { clientProperties: { connection_name: consumer } });
const channel = await connection.createConfirmChannel();
connection.on('close', () => process.exit(stopping ? 0 : 1)); // whoever started it starts it again
connection.on('error', (error) => console.error(`the broker: ${error.message}`));

await declare();
await channel.prefetch(50);
const { consumerTag } = await channel.consume(QUEUE, (delivery) => {
  if (delivery) working = working.then(() => take(delivery));
});
console.error(`${QUEUE} is consumed`);
process.once('SIGTERM', stop);
process.once('SIGINT', stop);

async function declare() {
  // Other arguments than the existing queue's are refused by the broker.
  const reliable = {
    'x-queue-type': 'quorum',
    'x-dead-letter-strategy': 'at-least-once',
    'x-overflow': 'reject-publish',
  };
  await channel.assertQueue(QUEUE, {
    arguments: { ...reliable, 'x-delivery-limit': 10, 'x-dead-letter-exchange': 'telegram.dlx' },
  });
  for (const [suffix, milliseconds] of Object.entries(DELAYS)) {
    await channel.assertQueue(`${QUEUE}.retry.${suffix}`, {
      arguments: {
        ...reliable,
        'x-message-ttl': milliseconds,
        'x-dead-letter-exchange': '', // back to this queue only
        'x-dead-letter-routing-key': QUEUE,
      },
    });
  }
  for (const id of channelIds) {
    await channel.bindQueue(QUEUE, 'telegram.messages', `telegram.channel.${id}`);
  }
}

async function take(delivery) {
  let event;
  try {
    // Numbers of `media` may be larger than 2^53: who needs them parses with BigInt.
    event = JSON.parse(delivery.content.toString());
    if (event.schema_version > SCHEMA_VERSION) throw new Error(`schema ${event.schema_version} is newer than I am`);
  } catch (error) {
    console.error(`no event: ${error.message}`);
    channel.reject(delivery, false); // to the dead letters
    return;
  }
  const key = `${event.channel_id}:${event.message_id}`;
  if (event.version <= (versions.get(key) ?? -1)) {
    channel.ack(delivery); // known, or older than what is known
    return;
  }
  try {
    await effect(event);
    versions.set(key, event.version);
    channel.ack(delivery); // only now
  } catch (error) {
    await again(delivery, error);
  }
}

async function again(delivery, error) {
  const { headers } = delivery.properties;
  const attempt = headers['x-attempt'] ?? 1;
  const suffix = Object.keys(DELAYS)[attempt - 1];
  if (!suffix) {
    console.error(`given up after ${attempt} attempts: ${error.message}`); // record it durably before this line
    channel.reject(delivery, false);
    return;
  }
  const kept = { 'x-source': headers['x-source'], 'x-channel-id': headers['x-channel-id'], 'x-attempt': attempt + 1 };
  channel.sendToQueue(`${QUEUE}.retry.${suffix}`, delivery.content, {
    persistent: true,
    contentType: 'application/json',
    headers: kept,
  });
  await channel.waitForConfirms(); // the copy is safe before the original goes
  channel.ack(delivery);
}

async function stop() {
  stopping = true;
  await channel.cancel(consumerTag);
  await working;
  await channel.close(); // sends the acknowledgements
  await connection.close();
}
