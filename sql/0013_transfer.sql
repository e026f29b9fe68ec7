-- Engine: all. Runs in a transaction. Moving the data to a database of another engine: see docs/database.md.

-- What to copy, and how to read and write it, whatever lies below. What belongs to one server is left out: its settings,
-- transaction numbers and what is kept by them, positions, leases, record of maintenance and feed to a legacy system.
CREATE VIEW telegram.transfer_tables AS
SELECT
  c.relname::text AS table_name,
  format('COPY (SELECT %s FROM telegram.%I) TO STDOUT', a.names, c.relname) AS copy_out,
  format('COPY telegram.%I (%s) FROM STDIN', c.relname, a.names) AS copy_in
FROM pg_class AS c CROSS JOIN LATERAL (
  SELECT string_agg(quote_ident(attname), ', ' ORDER BY attname) AS names FROM pg_attribute
  WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attname <> 'arrival'
) AS a
WHERE c.relnamespace = 'telegram'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND c.relname NOT IN (
    'schema_migrations', 'settings', 'positions', 'rollup_state', 'maintenance_runs', 'leases', 'copied_windows',
    'legacy_changes', 'legacy_feed', 'marked_channels'
  );

-- To be called once in the new database when everything is there.
CREATE FUNCTION telegram.finish_transfer() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $$
BEGIN
  PERFORM setval(pg_get_serial_sequence('telegram.failures', 'id'), (SELECT coalesce(max(id), 0) + 1 FROM telegram.failures), false);
  PERFORM setval(pg_get_serial_sequence('telegram.quarantine', 'id'), (SELECT coalesce(max(id), 0) + 1 FROM telegram.quarantine), false);
  PERFORM setval(
    pg_get_serial_sequence('telegram.forwarding_rules', 'id'), (SELECT coalesce(max(id), 0) + 1 FROM telegram.forwarding_rules), false
  );
  -- Counts from before the oldest message cannot be made again; all others are.
  UPDATE telegram.rollup_state SET (hours_until, days_until) = (
    SELECT d.day, d.day FROM (
      SELECT coalesce(date_trunc('day', min(message_date), 'UTC'), 'infinity') AS day FROM telegram.message_keys
    ) AS d
  );
END
$$;
