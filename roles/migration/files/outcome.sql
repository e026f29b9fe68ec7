SELECT
  (SELECT count(*)::int FROM telegram.copied_windows) AS windows,
  (SELECT coalesce(sum(rows), 0)::int FROM telegram.copied_windows WHERE source NOT LIKE 'failure queue %') AS rows,
  (SELECT coalesce(sum(rows), 0)::int FROM telegram.copied_windows WHERE source LIKE 'failure queue %') AS queue_lines,
  (SELECT md5(coalesce(string_agg(checksum, ' ' ORDER BY source, window_start), '')) FROM telegram.copied_windows) AS checksum,
  (SELECT count(*)::int FROM telegram.messages) AS messages,
  (SELECT (count(*) - count(DISTINCT (channel_id, message_id)))::int FROM telegram.legacy_ids) AS duplicates,
  (SELECT count(*)::int FROM telegram.quarantine) AS quarantined,
  (
    SELECT coalesce(jsonb_agg(q ORDER BY q.rows DESC), '[]') FROM (
      SELECT reason, count(*) AS rows, (array_agg(DISTINCT payload ->> 'legacy_id'))[1:5] AS examples
      FROM telegram.quarantine GROUP BY reason
    ) AS q
  ) AS quarantine,
  (
    SELECT count(*)::int FROM (
      SELECT FROM telegram.legacy_ids GROUP BY channel_id, message_id HAVING count(*) > 1
    ) AS merged
  ) AS merged,
  (
    SELECT coalesce(jsonb_agg(m ORDER BY m.channel, m.message), '[]') FROM (
      SELECT channel_id::text AS channel, message_id AS message, array_agg(legacy_id ORDER BY created_at) AS rows
      FROM telegram.legacy_ids GROUP BY channel_id, message_id HAVING count(*) > 1
      ORDER BY channel_id, message_id LIMIT 500
    ) AS m
  ) AS merges
