-- Engine: all. Runs in a transaction. What has to be done again and again, and how it went.

-- How many messages `cleanup_old_messages` would remove.
CREATE FUNCTION telegram.count_old_messages(keep interval DEFAULT NULL) RETURNS bigint
LANGUAGE sql
STABLE
SET search_path = pg_catalog
AS $$
  SELECT count(*) FROM telegram.messages WHERE message_date < telegram.retention_cutoff(keep)
$$;

-- Removes messages older than `keep` (default: setting `retention_days`) by Telegram's date, and their states. Roll-ups,
-- signals and failures stay. Returns how many messages went; whether retention is on is for the caller to ask.
CREATE FUNCTION telegram.cleanup_old_messages(keep interval DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql
VOLATILE
SET search_path = pg_catalog
AS $$
DECLARE
  cutoff CONSTANT timestamptz := telegram.retention_cutoff(keep);
  removed CONSTANT bigint := telegram.drop_messages_before(cutoff);
BEGIN
  WITH gone AS (
    DELETE FROM telegram.message_keys WHERE message_date < cutoff RETURNING channel_id, message_id
  ), states AS (
    DELETE FROM telegram.processing AS p USING gone AS g WHERE p.channel_id = g.channel_id AND p.message_id = g.message_id
  ), searched AS (
    DELETE FROM telegram.message_search AS s USING gone AS g WHERE s.channel_id = g.channel_id AND s.message_id = g.message_id
  ), replaced AS (
    DELETE FROM telegram.message_history AS h USING gone AS g WHERE h.channel_id = g.channel_id AND h.message_id = g.message_id
  )
  DELETE FROM telegram.legacy_ids AS l USING gone AS g WHERE l.channel_id = g.channel_id AND l.message_id = g.message_id;

  -- A message can still come after its deletion, but not from so far back.
  DELETE FROM telegram.tombstones AS t WHERE t.received_at < cutoff
    AND NOT EXISTS (SELECT FROM telegram.message_keys AS k WHERE k.channel_id = t.channel_id AND k.message_id = t.message_id);
  DELETE FROM telegram.link_previews WHERE expires_at < cutoff;
  RETURN removed;
END
$$;

-- Retention where it is on; and what was erased within the last week goes again, should a queue have brought something of it.
CREATE FUNCTION telegram.maintain_retention(OUT detail text, OUT backlog bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $$
BEGIN
  IF telegram.setting('retention') = 'on' THEN
    detail := format('%s messages removed', telegram.cleanup_old_messages());
  ELSE
    detail := 'off by setting "retention"';
  END IF;
  PERFORM telegram.continue_erasure(id) FROM telegram.erasures
  WHERE requested_at > now() - interval '7 days' OR finished_at IS NULL ORDER BY id;
  DELETE FROM telegram.maintenance_runs WHERE started_at < now() - interval '90 days';
  backlog := telegram.count_old_messages();
END
$$;

-- A database that was restored on another server holds transaction numbers that are still to come here.
CREATE FUNCTION telegram.maintain_arrivals(OUT detail text, OUT backlog bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $$
DECLARE
  next_one CONSTANT xid8 := pg_snapshot_xmax(pg_current_snapshot());
  renewed bigint;
BEGIN
  DELETE FROM telegram.positions WHERE position > next_one;
  UPDATE telegram.message_keys SET arrival = pg_current_xact_id() WHERE arrival > next_one;
  GET DIAGNOSTICS renewed = ROW_COUNT;
  detail := format('%s arrivals renewed', renewed);
  backlog := 0;
END
$$;

-- Does every job of this engine, one transaction each; one that fails is undone, recorded, and stops no other.
-- Ends with an error that names those that failed, so that whoever called it knows. Call it outside of a transaction.
CREATE PROCEDURE telegram.run_maintenance()
LANGUAGE plpgsql
AS $$
DECLARE
  job_name text;
  run bigint;
  outcome record;
  words text;
  failed text[] := '{}';
BEGIN
  FOREACH job_name IN ARRAY telegram.maintenance_jobs() LOOP
    INSERT INTO telegram.maintenance_runs (job, started_at) VALUES (job_name, pg_catalog.clock_timestamp())
    RETURNING id INTO run;
    COMMIT;
    BEGIN
      -- Two at once take turns; and nothing that a service waits behind lasts long.
      PERFORM pg_catalog.pg_advisory_xact_lock(1952803940);
      PERFORM pg_catalog.set_config('lock_timeout', '5s', true);
      EXECUTE pg_catalog.format('SELECT * FROM telegram.%I()', 'maintain_' || job_name) INTO outcome;
      UPDATE telegram.maintenance_runs
      SET finished_at = pg_catalog.clock_timestamp(), ok = true, detail = outcome.detail, backlog = outcome.backlog
      WHERE id = run;
    EXCEPTION WHEN OTHERS THEN
      GET STACKED DIAGNOSTICS words = MESSAGE_TEXT;
      failed := failed || job_name;
      UPDATE telegram.maintenance_runs SET finished_at = pg_catalog.clock_timestamp(), ok = false, detail = words
      WHERE id = run;
    END;
    COMMIT;
  END LOOP;
  IF failed <> '{}' THEN
    RAISE EXCEPTION 'maintenance failed: %', pg_catalog.array_to_string(failed, ', ')
      USING HINT = 'SELECT * FROM telegram.maintenance_status says why.';
  END IF;
END
$$;

-- One row a job, never an empty one: a job that has never run shows NULLs.
CREATE VIEW telegram.maintenance_status AS
SELECT
  j.job, r.started_at AS last_started, r.finished_at AS last_finished, r.ok AS last_ok, r.detail AS last_detail, r.backlog,
  (
    SELECT count(*) FROM telegram.maintenance_runs AS f
    WHERE f.job = j.job AND f.ok IS NOT true AND (f.ok IS NOT NULL OR f.id < r.id) AND f.id > coalesce((
      SELECT max(s.id) FROM telegram.maintenance_runs AS s WHERE s.job = j.job AND s.ok
    ), 0)
  ) AS runs_failed_since_success
FROM unnest(telegram.maintenance_jobs()) AS j (job)
LEFT JOIN LATERAL (
  SELECT * FROM telegram.maintenance_runs AS l WHERE l.job = j.job ORDER BY l.id DESC LIMIT 1
) AS r ON true
UNION ALL
SELECT job, last_started, last_finished, last_ok, last_detail, backlog, runs_failed_since_success
FROM telegram.engine_jobs();

COMMENT ON VIEW telegram.maintenance_status IS
  'backlog: what was left to do. On engine timescale a policy may be reported as failed although its work is done: backlog 0 tells';
