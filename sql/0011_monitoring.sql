-- Engine: all. Runs in a transaction. What an operator, the exporter and the dashboards look at.

-- States of what each consumer first handled within the last day.
CREATE VIEW telegram.message_processing_stats AS
SELECT
  consumer, status, count(*) AS messages, avg(attempts)::double precision AS attempts_avg,
  min(updated_at) AS oldest, max(updated_at) AS newest
FROM telegram.processing
WHERE created_at >= now() - interval '1 day'
GROUP BY consumer, status;

-- One row a channel of the registry, whether anything came or not.
CREATE VIEW telegram.channel_health_summary AS
SELECT
  c.channel_id, coalesce(c.label, c.title, c.username) AS name, c.is_active, c.last_message_id,
  l.message_date AS last_message_date,
  extract(epoch FROM now() - l.message_date)::double precision AS silent_seconds,
  coalesce(h.last_day, 0) AS messages_last_day,
  coalesce(h.last_week, 0) AS messages_last_week,
  coalesce(f.waiting, 0) AS failures_waiting
FROM telegram.channels AS c
LEFT JOIN LATERAL (
  SELECT m.message_date FROM telegram.messages AS m
  WHERE m.channel_id = c.channel_id ORDER BY m.message_date DESC, m.message_id DESC LIMIT 1
) AS l ON true
LEFT JOIN (
  SELECT channel_id, sum(messages) FILTER (WHERE bucket >= now() - interval '1 day')::bigint AS last_day,
    sum(messages)::bigint AS last_week
  FROM telegram.messages_hourly WHERE bucket >= now() - interval '7 days' GROUP BY channel_id
) AS h ON h.channel_id = c.channel_id
LEFT JOIN (
  SELECT channel_id, count(*) AS waiting FROM telegram.failures WHERE replayed_at IS NULL GROUP BY channel_id
) AS f ON f.channel_id = c.channel_id;

-- One row a figure, with its unit. Figures without data have no row: nothing is made up.
CREATE VIEW telegram.performance_metrics_realtime AS
WITH lately AS (
  SELECT count(*) AS messages,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM stored_at - received_at)::double precision) AS p95
  FROM telegram.messages
  WHERE message_date >= now() - interval '5 minutes' AND message_date <= now() + interval '5 minutes'
), database AS (
  SELECT * FROM pg_stat_database WHERE datname = current_database()
)
SELECT metric, value, unit FROM (
  SELECT 'messages_per_second', messages / 300.0::double precision, 'messages/s' FROM lately
  UNION ALL
  SELECT 'store_latency_p95', p95, 'seconds' FROM lately
  UNION ALL
  SELECT 'states_per_second', count(*) / 300.0::double precision, 'messages/s' FROM telegram.processing
  WHERE created_at >= now() - interval '5 minutes'
  UNION ALL
  SELECT 'states_waiting', count(*), 'messages' FROM telegram.processing
  WHERE status IN ('received', 'retrying', 'queued', 'failed', 'reprocess_pending')
  UNION ALL
  SELECT 'failures_waiting', count(*), 'messages' FROM telegram.failures WHERE replayed_at IS NULL
  UNION ALL
  SELECT 'quarantined', count(*), 'rows' FROM telegram.quarantine WHERE resolved_at IS NULL
  UNION ALL
  SELECT 'connections', numbackends, 'connections' FROM database
  UNION ALL
  SELECT 'block_cache_hit_ratio', blks_hit::double precision / nullif(blks_hit + blks_read, 0), 'ratio' FROM database
  UNION ALL
  SELECT 'deadlocks', deadlocks, 'since the statistics were reset' FROM database
  UNION ALL
  SELECT 'database_size', pg_database_size(current_database()), 'bytes'
) AS figures (metric, value, unit)
WHERE value IS NOT NULL;
