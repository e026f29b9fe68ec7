-- Engines: timescale_apache and timescale (one file under two names). Runs in a transaction.

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
);

SELECT create_hypertable(
  'telegram.messages', by_range('message_date', INTERVAL '1 day'), create_default_indexes => false
);

-- The licence of a running server cannot change: asked for once, and again by telegram.adopt_engine.
INSERT INTO telegram.settings (name, value)
SELECT 'engine', CASE current_setting('timescaledb.license') WHEN 'timescale' THEN 'timescale' ELSE 'timescale_apache' END;

-- Whole chunks of a day, and `cutoff` is the start of a day.
CREATE FUNCTION telegram.drop_messages_before(cutoff timestamptz) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $$
DECLARE
  removed bigint;
BEGIN
  SELECT count(*) INTO removed FROM telegram.messages WHERE message_date < cutoff;
  PERFORM public.drop_chunks('telegram.messages', older_than => cutoff);
  RETURN removed;
END
$$;

-- What this engine has to do by our own procedures, in this order. The community edition counts by itself.
CREATE FUNCTION telegram.maintenance_jobs() RETURNS text[]
LANGUAGE sql
STABLE
SET search_path = pg_catalog
AS $$
  SELECT CASE telegram.setting('engine')
    WHEN 'timescale' THEN '{policies,retention,arrivals,search,delivery}'::text[]
    ELSE '{retention,arrivals,search,rollups,delivery}'::text[]
  END
$$;

-- Chunks that compression should have taken, and chunks that retention should have dropped.
CREATE FUNCTION telegram.chunks_waiting(policy text) RETURNS bigint
LANGUAGE sql
STABLE
SET search_path = pg_catalog
AS $$
  SELECT count(*) FROM timescaledb_information.chunks
  WHERE hypertable_schema = 'telegram' AND hypertable_name = 'messages' AND CASE policy
    WHEN 'compression' THEN
      NOT is_compressed AND range_end < now() - make_interval(days => telegram.setting('compress_after_days')::integer)
    ELSE range_end < now() - make_interval(days => telegram.setting('retention_days')::integer)
  END
$$;

-- The policies of the community edition, with the state that the server keeps of them. The Apache edition has none.
-- The server counts failures since ever only: 1 stands for "at least one since the last success".
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
  SELECT
    p.name, s.last_run_started_at, s.last_run_started_at + s.last_run_duration, s.last_run_status = 'Success',
    format('TimescaleDB job %s (%s): %s', j.job_id, j.proc_name, coalesce(s.last_run_status, 'never run')),
    CASE WHEN p.name LIKE 'policy:%' THEN telegram.chunks_waiting(split_part(p.name, ':', 2)) END,
    CASE s.last_run_status WHEN 'Success' THEN 0 WHEN 'Failed' THEN 1 END
  FROM timescaledb_information.jobs AS j
  LEFT JOIN timescaledb_information.job_stats AS s ON s.job_id = j.job_id
  LEFT JOIN timescaledb_information.continuous_aggregates AS a
    ON a.view_schema = 'telegram' AND a.view_name = j.hypertable_name
    OR a.materialization_hypertable_schema = j.hypertable_schema AND a.materialization_hypertable_name = j.hypertable_name
  CROSS JOIN LATERAL (
    SELECT CASE
      WHEN j.proc_name IN ('policy_compression', 'policy_retention') AND j.hypertable_name = 'messages'
        THEN replace(j.proc_name, '_', ':')
      WHEN j.proc_name = 'policy_refresh_continuous_aggregate' THEN 'refresh:' || a.view_name
    END
  ) AS p (name)
  WHERE p.name IS NOT NULL AND (j.hypertable_schema = 'telegram' OR a.view_schema = 'telegram')
$$;

-- Makes the policies those that the settings ask for: compression, refresh of the counts, retention where it is on.
CREATE FUNCTION telegram.maintain_policies(OUT detail text, OUT backlog bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $$
DECLARE
  compress_after CONSTANT interval := make_interval(days => telegram.setting('compress_after_days')::integer);
  keep CONSTANT interval := make_interval(days => telegram.setting('retention_days')::integer);
  -- A day behind our own retention, which takes keys and states along: what has a key has its message as long as that runs.
  drop_after CONSTANT interval := CASE WHEN telegram.setting('retention') = 'on' THEN keep + interval '1 day' END;
  changed text[] := '{}';
BEGIN
  IF telegram.policy_interval('policy_compression', 'compress_after') IS DISTINCT FROM compress_after THEN
    PERFORM public.remove_compression_policy('telegram.messages', if_exists => true);
    PERFORM public.add_compression_policy('telegram.messages', compress_after);
    changed := changed || format('compression after %s', compress_after);
  END IF;
  IF telegram.policy_interval('policy_retention', 'drop_after') IS DISTINCT FROM drop_after THEN
    PERFORM public.remove_retention_policy('telegram.messages', if_exists => true);
    IF drop_after IS NOT NULL THEN
      PERFORM public.add_retention_policy('telegram.messages', drop_after);
    END IF;
    changed := changed || coalesce('retention of ' || drop_after, 'no retention');
  END IF;
  -- Counts of what is dropped must stay: the refresh does not look at the oldest days.
  IF telegram.policy_interval('policy_refresh_continuous_aggregate', 'start_offset') IS DISTINCT FROM keep - interval '2 days'
  THEN
    PERFORM public.remove_continuous_aggregate_policy('telegram.counts_hourly', if_exists => true);
    PERFORM public.remove_continuous_aggregate_policy('telegram.counts_daily', if_exists => true);
    PERFORM public.add_continuous_aggregate_policy(
      'telegram.counts_hourly', keep - interval '2 days', interval '1 hour', interval '30 minutes'
    );
    PERFORM public.add_continuous_aggregate_policy(
      'telegram.counts_daily', keep - interval '2 days', interval '1 day', interval '6 hours'
    );
    changed := changed || format('counts of %s', keep - interval '2 days');
  END IF;
  detail := CASE WHEN changed = '{}' THEN 'as the settings say' ELSE 'set: ' || array_to_string(changed, ', ') END;
  backlog := 0;
END
$$;

-- The interval that a policy of ours has now; NULL: there is no such policy.
CREATE FUNCTION telegram.policy_interval(procedure_name text, option_name text) RETURNS interval
LANGUAGE sql
STABLE
SET search_path = pg_catalog
AS $$
  SELECT min((j.config ->> option_name)::interval) FROM timescaledb_information.jobs AS j
  LEFT JOIN timescaledb_information.continuous_aggregates AS a
    ON a.materialization_hypertable_schema = j.hypertable_schema AND a.materialization_hypertable_name = j.hypertable_name
  WHERE j.proc_name = procedure_name AND (
    j.hypertable_schema = 'telegram' AND j.hypertable_name IN ('messages', 'counts_hourly', 'counts_daily')
    OR a.view_schema = 'telegram'
  )
$$;

-- Puts compression and continuous aggregates in place where the licence allows them: when the database is made, and
-- by hand after a server of the Apache edition got the community edition. The counts made until then stay readable.
CREATE PROCEDURE telegram.adopt_engine()
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $body$
DECLARE
  old_counts CONSTANT timestamptz := (SELECT max(bucket) FROM telegram.rollup_hourly);
BEGIN
  IF current_setting('timescaledb.license') <> 'timescale' OR to_regclass('telegram.counts_hourly') IS NOT NULL THEN
    RETURN;
  END IF;

  ALTER TABLE telegram.messages SET (
    timescaledb.compress, timescaledb.compress_segmentby = 'channel_id',
    timescaledb.compress_orderby = 'message_date DESC, message_id DESC'
  );
  CREATE MATERIALIZED VIEW telegram.counts_hourly WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
  SELECT
    public.time_bucket(INTERVAL '1 hour', message_date) AS bucket, channel_id, count(*) AS messages,
    count(media) AS with_media, count(edit_date) AS edited, count(deleted_at) AS deleted
  FROM telegram.messages GROUP BY 1, 2 WITH NO DATA;
  CREATE MATERIALIZED VIEW telegram.counts_daily WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
  SELECT
    public.time_bucket(INTERVAL '1 day', message_date) AS bucket, channel_id, count(*) AS messages,
    count(media) AS with_media, count(edit_date) AS edited, count(deleted_at) AS deleted
  FROM telegram.messages GROUP BY 1, 2 WITH NO DATA;

  -- What was counted before the messages that are left is not in the aggregates.
  UPDATE telegram.rollup_state SET (hours_until, days_until) = (
    SELECT
      CASE WHEN old_counts IS NULL THEN '-infinity' ELSE coalesce(date_trunc('day', min(message_date), 'UTC'), 'infinity') END,
      CASE WHEN old_counts IS NULL THEN '-infinity' ELSE coalesce(date_trunc('day', min(message_date), 'UTC'), 'infinity') END
    FROM telegram.messages
  );
  CREATE OR REPLACE VIEW telegram.messages_hourly AS
  SELECT bucket, channel_id, messages, with_media, edited, deleted
  FROM telegram.rollup_hourly WHERE bucket < (SELECT hours_until FROM telegram.rollup_state)
  UNION ALL
  SELECT bucket, channel_id, messages, with_media, edited, deleted FROM telegram.counts_hourly;
  CREATE OR REPLACE VIEW telegram.messages_daily AS
  SELECT bucket, channel_id, messages, with_media, edited, deleted
  FROM telegram.rollup_daily WHERE bucket < (SELECT days_until FROM telegram.rollup_state)
  UNION ALL
  SELECT bucket, channel_id, messages, with_media, edited, deleted FROM telegram.counts_daily;

  UPDATE telegram.settings SET value = 'timescale' WHERE name = 'engine';
  UPDATE telegram.schema_migrations SET name = replace(name, 'engine/timescale_apache/', 'engine/timescale/');
  PERFORM telegram.maintain_policies();
END
$body$;
