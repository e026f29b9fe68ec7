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
  PRIMARY KEY (channel_id, message_date, message_id) -- in this order it also serves the newest messages of a channel
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

-- Migrated history reaches back 120 days, and maintenance goes on making partitions ahead.
CALL telegram.create_message_partitions(current_date - 120, current_date + 120);

-- The start of the month behind the last one that has a partition without a hole from this month on.
CREATE FUNCTION telegram.partitions_until() RETURNS timestamptz
LANGUAGE sql
STABLE
SET search_path = pg_catalog
AS $$
  SELECT min(month) FROM generate_series(date_trunc('month', now(), 'UTC'), now() + interval '100 years', interval '1 month') AS month
  WHERE to_regclass('telegram.messages_' || to_char(month AT TIME ZONE 'UTC', 'YYYYMM')) IS NULL
$$;

CREATE FUNCTION telegram.maintain_partitions(OUT detail text, OUT backlog bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $$
DECLARE
  last_day date := current_date + telegram.setting('partitions_ahead_days')::integer;
BEGIN
  CALL telegram.create_message_partitions(current_date, last_day);
  detail := 'partitions up to ' || to_char((telegram.partitions_until() - interval '1 day') AT TIME ZONE 'UTC', 'YYYY-MM-DD');
  SELECT count(*) INTO backlog FROM telegram.messages_default WHERE message_date >= current_date AND message_date < last_day;
END
$$;

-- Drops the months that end before `cutoff`, and the rows before it in the month it falls into.
CREATE FUNCTION telegram.drop_messages_before(cutoff timestamptz) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $$
DECLARE
  removed bigint;
  month text;
BEGIN
  SELECT count(*) INTO removed FROM telegram.messages WHERE message_date < cutoff;
  FOR month IN
    SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'telegram.messages'::regclass AND c.relname ~ '^messages_[0-9]{6}$'
      AND c.relname < 'messages_' || to_char(cutoff AT TIME ZONE 'UTC', 'YYYYMM')
  LOOP
    EXECUTE format('DROP TABLE telegram.%I', month);
  END LOOP;
  DELETE FROM telegram.messages WHERE message_date < cutoff;
  RETURN removed;
END
$$;

-- What this engine has to do by our own procedures, in this order.
CREATE FUNCTION telegram.maintenance_jobs() RETURNS text[]
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog
AS $$
  SELECT '{partitions,retention,arrivals,search,rollups,delivery}'::text[]
$$;

-- Jobs that the engine runs by itself: none here.
CREATE FUNCTION telegram.engine_jobs()
RETURNS TABLE (
  job text,
  last_started timestamptz,
  last_finished timestamptz,
  last_ok boolean,
  last_detail text,
  backlog bigint,
  runs_failed_since_success bigint
)
LANGUAGE sql
STABLE
SET search_path = pg_catalog
AS $$
  SELECT NULL::text, NULL::timestamptz, NULL::timestamptz, NULL::boolean, NULL::text, NULL::bigint, NULL::bigint WHERE false
$$;

-- Where the engine can do more than the common files ask of it, this puts that in place: nothing here.
CREATE PROCEDURE telegram.adopt_engine()
LANGUAGE sql
AS $$
  SELECT
$$;

INSERT INTO telegram.settings (name, value) VALUES ('engine', 'native');
