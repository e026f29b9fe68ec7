-- Engine: timescale. Runs in a transaction.

CREATE TABLE telegram.messages (
  id uuid NOT NULL,
  channel_id bigint NOT NULL,
  message_id bigint NOT NULL,
  message_date timestamptz NOT NULL,
  version bigint NOT NULL,
  source text NOT NULL,
  message_type text NOT NULL,
  text text NOT NULL DEFAULT '',
  entities jsonb,
  sender_id bigint,
  reply_to jsonb,
  forward jsonb,
  grouped_id bigint,
  topic_id bigint,
  media jsonb,
  link_preview jsonb,
  edit_date timestamptz,
  received_at timestamptz NOT NULL,
  stored_at timestamptz NOT NULL DEFAULT now(),
  deleted_at timestamptz,
  metadata jsonb NOT NULL DEFAULT '{}',
  PRIMARY KEY (channel_id, message_id, message_date)
);

SELECT create_hypertable(
  'telegram.messages', by_range('message_date', INTERVAL '1 day'), create_default_indexes => false
);

INSERT INTO telegram.settings (name, value) VALUES ('engine', 'timescale');
