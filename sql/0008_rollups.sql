-- Engine: all. Runs in a transaction. Counts by hour and day, and what the consumers delivered by hour.
-- Engine timescale puts continuous aggregates in place of the counting procedure: see telegram.adopt_engine.

CREATE TABLE telegram.rollup_hourly (
  bucket timestamptz NOT NULL,
  channel_id bigint NOT NULL,
  messages bigint NOT NULL,
  with_media bigint NOT NULL,
  edited bigint NOT NULL,
  deleted bigint NOT NULL,
  PRIMARY KEY (bucket, channel_id)
);

CREATE TABLE telegram.rollup_daily (LIKE telegram.rollup_hourly INCLUDING ALL);

-- Hours from `hours_until` and days from `days_until` on are counted when they are asked for.
CREATE TABLE telegram.rollup_state (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  hours_until timestamptz NOT NULL DEFAULT '-infinity',
  days_until timestamptz NOT NULL DEFAULT '-infinity'
);

INSERT INTO telegram.rollup_state DEFAULT VALUES;

CREATE VIEW telegram.messages_hourly AS
SELECT bucket, channel_id, messages, with_media, edited, deleted
FROM telegram.rollup_hourly WHERE bucket < (SELECT hours_until FROM telegram.rollup_state)
UNION ALL
SELECT
  date_trunc('hour', message_date, 'UTC'), channel_id, count(*), count(media), count(edit_date), count(deleted_at)
FROM telegram.messages
-- The upper bound takes nothing away; with it the planner expects few rows, and takes the index of dates.
WHERE message_date >= (SELECT hours_until FROM telegram.rollup_state) AND message_date <= 'infinity'
GROUP BY 1, 2;

CREATE VIEW telegram.messages_daily AS
SELECT bucket, channel_id, messages, with_media, edited, deleted
FROM telegram.rollup_daily WHERE bucket < (SELECT days_until FROM telegram.rollup_state)
UNION ALL
SELECT
  date_trunc('day', bucket, 'UTC'), channel_id, sum(messages)::bigint, sum(with_media)::bigint, sum(edited)::bigint,
  sum(deleted)::bigint
FROM telegram.messages_hourly WHERE bucket >= (SELECT days_until FROM telegram.rollup_state)
GROUP BY 1, 2;

COMMENT ON VIEW telegram.messages_hourly IS 'by hour (UTC) of the message''s date; newest hours live, changes to older ones with the next refresh';

-- Counts again every hour in which a message came, was edited or deleted since the last time, but for the one that runs.
CREATE FUNCTION telegram.maintain_rollups(OUT detail text, OUT backlog bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $$
DECLARE
  horizon CONSTANT xid8 := pg_snapshot_xmin(pg_current_snapshot());
  this_hour CONSTANT timestamptz := date_trunc('hour', now(), 'UTC');
  kept_from CONSTANT timestamptz := (SELECT date_trunc('hour', min(message_date), 'UTC') FROM telegram.message_keys);
  begin_at CONSTANT xid8 := telegram.position_of('rollups');
  counted_until timestamptz;
  hours timestamptz[];
BEGIN
  SELECT hours_until INTO counted_until FROM telegram.rollup_state;

  SELECT array_agg(hour) INTO hours FROM (
    SELECT date_trunc('hour', message_date, 'UTC') AS hour FROM telegram.message_keys
    WHERE arrival >= begin_at AND message_date < this_hour
    UNION
    SELECT date_trunc('hour', message_date, 'UTC') FROM telegram.message_keys
    WHERE message_date >= counted_until AND message_date < this_hour
  ) AS touched
  WHERE hour >= kept_from;

  DELETE FROM telegram.rollup_hourly WHERE bucket = ANY (hours);
  INSERT INTO telegram.rollup_hourly
  SELECT h.bucket, c.* FROM unnest(hours) AS h (bucket) CROSS JOIN LATERAL (
    SELECT m.channel_id, count(*), count(m.media), count(m.edit_date), count(m.deleted_at) FROM telegram.messages AS m
    WHERE m.message_date >= h.bucket AND m.message_date < h.bucket + interval '1 hour'
    GROUP BY m.channel_id
  ) AS c;

  DELETE FROM telegram.rollup_daily WHERE bucket IN (SELECT date_trunc('day', hour, 'UTC') FROM unnest(hours) AS hour);
  INSERT INTO telegram.rollup_daily
  SELECT d.bucket, c.* FROM (SELECT DISTINCT date_trunc('day', hour, 'UTC') FROM unnest(hours) AS hour) AS d (bucket)
  CROSS JOIN LATERAL (
    SELECT channel_id, sum(messages), sum(with_media), sum(edited), sum(deleted) FROM telegram.rollup_hourly AS r
    WHERE r.bucket >= d.bucket AND r.bucket < d.bucket + interval '1 day'
    GROUP BY channel_id
  ) AS c;

  UPDATE telegram.rollup_state SET hours_until = this_hour, days_until = date_trunc('day', this_hour, 'UTC');
  INSERT INTO telegram.positions (reader, channel_id, position) VALUES ('rollups', 0, horizon)
  ON CONFLICT (reader, channel_id) DO UPDATE SET position = excluded.position;

  detail := format('%s hours counted', coalesce(cardinality(hours), 0));
  SELECT count(*) INTO backlog FROM telegram.message_keys WHERE arrival >= horizon AND message_date < this_hour;
END
$$;

-- By hour of the first attempt. Latency is counted from the socket read to the consumer's last word, in milliseconds.
CREATE TABLE telegram.delivery_hourly (
  bucket timestamptz NOT NULL,
  consumer text NOT NULL,
  messages bigint NOT NULL,
  published bigint NOT NULL,
  ignored bigint NOT NULL,
  failed bigint NOT NULL,
  latency_p50_ms double precision,
  latency_p95_ms double precision,
  latency_p99_ms double precision,
  PRIMARY KEY (bucket, consumer)
);

-- Takes the last hours again, in which states still change, and all since the last run. The first run of a day goes two
-- days back, for what was edited or asked for again later.
CREATE FUNCTION telegram.maintain_delivery(OUT detail text, OUT backlog bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
  last_run CONSTANT timestamptz := (
    SELECT max(started_at) FROM telegram.maintenance_runs WHERE job = 'delivery' AND ok
  );
  back CONSTANT interval := CASE WHEN last_run < date_trunc('day', now(), 'UTC') THEN '2 days' ELSE '2 hours' END;
  since CONSTANT timestamptz := date_trunc('hour', coalesce(least(now() - back, last_run), '-infinity'), 'UTC');
  taken bigint;
BEGIN
  INSERT INTO telegram.delivery_hourly AS d
  -- One join after the other, from the states on: the planner knows too little of the keys to choose the order itself.
  WITH states AS MATERIALIZED (
    SELECT channel_id, message_id, consumer, status, created_at, updated_at FROM telegram.processing WHERE created_at >= since
  ), dated AS MATERIALIZED (
    SELECT s.*, k.message_date FROM states AS s
    JOIN telegram.message_keys AS k ON k.channel_id = s.channel_id AND k.message_id = s.message_id
  )
  SELECT
    date_trunc('hour', s.created_at, 'UTC'), s.consumer, count(*),
    count(*) FILTER (WHERE s.status IN ('published', 'reprocessed')),
    count(*) FILTER (WHERE s.status = 'ignored'),
    count(*) FILTER (WHERE s.status = 'failed'),
    (percentile_cont('{0.5,0.95,0.99}'::double precision[]) WITHIN GROUP (ORDER BY l.ms))[1],
    (percentile_cont('{0.5,0.95,0.99}'::double precision[]) WITHIN GROUP (ORDER BY l.ms))[2],
    (percentile_cont('{0.5,0.95,0.99}'::double precision[]) WITHIN GROUP (ORDER BY l.ms))[3]
  FROM dated AS s
  JOIN telegram.messages AS m
    ON m.channel_id = s.channel_id AND m.message_id = s.message_id AND m.message_date = s.message_date
  CROSS JOIN LATERAL (
    SELECT CASE WHEN s.status = 'published' THEN 1000 * extract(epoch FROM s.updated_at - m.received_at)::double precision END
  ) AS l (ms)
  GROUP BY 1, 2
  ON CONFLICT (bucket, consumer) DO UPDATE SET
    messages = excluded.messages, published = excluded.published, ignored = excluded.ignored, failed = excluded.failed,
    latency_p50_ms = excluded.latency_p50_ms, latency_p95_ms = excluded.latency_p95_ms,
    latency_p99_ms = excluded.latency_p99_ms;
  GET DIAGNOSTICS taken = ROW_COUNT;
  detail := format('%s hours of consumers', taken);
  backlog := 0;
END
$$;
