-- Engine: all. Runs in a transaction.

-- A delete carries no date and may come before its message.
CREATE TABLE telegram.tombstones (
  channel_id bigint NOT NULL,
  message_id bigint NOT NULL,
  deleted_at timestamptz NOT NULL,
  received_at timestamptz NOT NULL,
  PRIMARY KEY (channel_id, message_id)
);

-- What each consumer did with each message. Updated often: room for HOT updates, and no index on a column that changes.
CREATE TABLE telegram.processing (
  consumer text NOT NULL,
  channel_id bigint NOT NULL,
  message_id bigint NOT NULL,
  version bigint NOT NULL,
  status text NOT NULL,
  attempts integer NOT NULL DEFAULT 0,
  error text,
  metadata jsonb NOT NULL DEFAULT '{}',
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (consumer, channel_id, message_id)
) WITH (fillfactor = 80);

-- The worker's effect: one signal a message.
CREATE TABLE telegram.signals (
  channel_id bigint NOT NULL,
  message_id bigint NOT NULL,
  version bigint NOT NULL,
  asset text NOT NULL,
  signal_type text NOT NULL DEFAULT 'Swing Trade',
  buy_min numeric,
  buy_max numeric,
  target_1 numeric,
  target_2 numeric,
  target_final numeric,
  stop numeric,
  raw_message text NOT NULL,
  source text NOT NULL,
  message_date timestamptz NOT NULL,
  ingested_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (channel_id, message_id)
);

-- Written before a message is given up, because a bounded dead-letter queue may drop it.
CREATE TABLE telegram.failures (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  consumer text NOT NULL,
  channel_id bigint NOT NULL,
  message_id bigint NOT NULL,
  version bigint NOT NULL,
  reason text NOT NULL,
  payload jsonb NOT NULL,
  attempts integer NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  replayed_at timestamptz
);

-- Serves: newest messages of a channel (API, `WHERE channel_id = … ORDER BY message_date DESC, message_id DESC LIMIT …`).
CREATE INDEX messages_latest ON telegram.messages (channel_id, message_date DESC, message_id DESC);

-- Serves: newest messages of all channels (API, `ORDER BY message_date DESC, message_id DESC LIMIT …`).
CREATE INDEX messages_newest ON telegram.messages (message_date DESC, message_id DESC);

-- Serves: failures that wait for a replay, by consumer (`WHERE consumer = … AND replayed_at IS NULL ORDER BY id`).
CREATE INDEX failures_waiting ON telegram.failures (consumer, id) WHERE replayed_at IS NULL;
