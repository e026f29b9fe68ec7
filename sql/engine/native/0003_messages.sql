-- Engine: native. Runs in a transaction.

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
) PARTITION BY RANGE (message_date);

-- Takes what no month was made for yet, so that no message is ever refused for its date.
CREATE TABLE telegram.messages_default PARTITION OF telegram.messages DEFAULT;

CREATE PROCEDURE telegram.create_message_partitions(first_day date, last_day date)
LANGUAGE plpgsql
SET search_path = pg_catalog
SET timezone = 'UTC'
AS $$
DECLARE
  month_start timestamptz;
  month_end timestamptz;
  partition_name text;
BEGIN
  FOR month_start IN
    SELECT generate_series(date_trunc('month', first_day::timestamptz), last_day::timestamptz, interval '1 month')
  LOOP
    month_end := month_start + interval '1 month';
    partition_name := 'messages_' || to_char(month_start, 'YYYYMM');
    CONTINUE WHEN to_regclass('telegram.' || partition_name) IS NOT NULL;
    EXECUTE format('CREATE TABLE telegram.%I (LIKE telegram.messages INCLUDING DEFAULTS)', partition_name);
    EXECUTE format(
      'WITH moved AS (DELETE FROM telegram.messages_default WHERE message_date >= %L AND message_date < %L RETURNING *)'
      ' INSERT INTO telegram.%I SELECT * FROM moved',
      month_start, month_end, partition_name
    );
    EXECUTE format(
      'ALTER TABLE telegram.messages ATTACH PARTITION telegram.%I FOR VALUES FROM (%L) TO (%L)',
      partition_name, month_start, month_end
    );
  END LOOP;
END
$$;

COMMENT ON PROCEDURE telegram.create_message_partitions(date, date) IS
  'makes the monthly partitions of both days and all between, and moves rows out of the default partition; what exists stays';

-- Migrated history reaches back 120 days, and a timer of the host goes on making partitions ahead.
CALL telegram.create_message_partitions(current_date - 120, current_date + 120);

INSERT INTO telegram.settings (name, value) VALUES ('engine', 'native');
