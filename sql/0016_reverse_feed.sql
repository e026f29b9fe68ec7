-- Engine: all. Runs in a transaction. What has to go back to the legacy system until there is no way back to it: see
-- docs/database.md. Triggers fill the outbox while the feed is on; nobody pays for them before and after.

-- Keys of what has changed, a row a change: the feed reads what they are now, and removes the rows that it has read.
-- Emptied all the time: what removed rows leave behind is cleared away early.
CREATE TABLE telegram.legacy_changes (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  channel_id bigint NOT NULL,
  message_id bigint NOT NULL,
  changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);

-- One row while the feed is on.
CREATE TABLE telegram.legacy_feed (
  is_on boolean PRIMARY KEY DEFAULT true CHECK (is_on),
  since timestamptz NOT NULL,
  since_arrival xid8 NOT NULL,
  last_row_id bigint NOT NULL
);

COMMENT ON COLUMN telegram.legacy_feed.last_row_id IS
  'of a legacy table with numbers, when the feed was switched on: rows that the feed adds there come after it';

-- What came or changed since the feed is on, by the tables themselves: the outbox is not asked.
CREATE FUNCTION telegram.legacy_changed_keys() RETURNS TABLE (channel_id bigint, message_id bigint)
LANGUAGE sql
STABLE
SET search_path = pg_catalog
AS $$
  SELECT k.channel_id, k.message_id FROM telegram.message_keys AS k
  WHERE k.arrival >= (SELECT since_arrival FROM telegram.legacy_feed)
  UNION
  SELECT p.channel_id, p.message_id FROM telegram.processing AS p
  WHERE p.consumer = telegram.setting('status_consumer') AND p.updated_at >= (SELECT since FROM telegram.legacy_feed)
  UNION
  SELECT s.channel_id, s.message_id FROM telegram.signals AS s
  WHERE s.ingested_at >= (SELECT since FROM telegram.legacy_feed)
$$;

-- Rows are only added: writers never wait for each other here, whatever the order of their keys.
CREATE FUNCTION telegram.note_legacy_change() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog
AS $$
BEGIN
  IF TG_TABLE_NAME = 'processing' THEN
    INSERT INTO telegram.legacy_changes (channel_id, message_id)
    SELECT channel_id, message_id FROM changed WHERE consumer = telegram.setting('status_consumer');
  ELSE
    INSERT INTO telegram.legacy_changes (channel_id, message_id) SELECT channel_id, message_id FROM changed;
  END IF;
  RETURN NULL;
END
$$;

-- Puts the triggers in place, or removes them with all that waits. Returns whether there was anything to do.
CREATE FUNCTION telegram.switch_legacy_feed(wanted boolean) RETURNS boolean
LANGUAGE plpgsql
VOLATILE
SET search_path = pg_catalog
SET lock_timeout = '10s'
AS $$
DECLARE
  source text;
  event text;
BEGIN
  PERFORM pg_advisory_xact_lock(1952803941);
  IF wanted = EXISTS (SELECT FROM telegram.legacy_feed) THEN
    RETURN false;
  END IF;
  IF wanted THEN -- nobody writes until the triggers are there
    LOCK TABLE telegram.message_keys, telegram.processing, telegram.signals IN SHARE ROW EXCLUSIVE MODE;
  END IF;

  FOREACH source IN ARRAY '{message_keys,processing,signals}'::text[] LOOP
    FOREACH event IN ARRAY '{insert,update}'::text[] LOOP
      IF wanted THEN
        EXECUTE format(
          'CREATE TRIGGER legacy_feed_%s AFTER %s ON telegram.%I REFERENCING NEW TABLE AS changed'
          ' FOR EACH STATEMENT EXECUTE FUNCTION telegram.note_legacy_change()',
          event, event, source
        );
      ELSE
        EXECUTE format('DROP TRIGGER legacy_feed_%s ON telegram.%I', event, source);
      END IF;
    END LOOP;
  END LOOP;

  IF wanted THEN
    -- Writers that waited for the locks began before: what they stamp their rows with is a little older.
    INSERT INTO telegram.legacy_feed (since, since_arrival, last_row_id)
    SELECT clock_timestamp() - interval '1 minute', pg_snapshot_xmin(pg_current_snapshot()), coalesce(max(legacy_id::bigint), 0)
    FROM telegram.legacy_ids WHERE legacy_id ~ '^[0-9]{1,18}$';
    INSERT INTO telegram.legacy_changes (channel_id, message_id) SELECT * FROM telegram.legacy_changed_keys();
  ELSE
    DELETE FROM telegram.legacy_feed;
    TRUNCATE telegram.legacy_changes;
  END IF;
  RETURN true;
END
$$;

COMMENT ON FUNCTION telegram.switch_legacy_feed IS 'true: on; false: off for good, what was not fed yet is forgotten';

-- A signal may be there before its message, from the queue: then there is nothing to tell yet, and the message that comes
-- tells both.
-- What the keys are now, as the columns of a legacy row and a little more; read by telegram_stack.legacy. `state` is null
-- where the consumer of setting `status_consumer` has none; `is_new`: the message itself came or changed since the feed is on.
CREATE FUNCTION telegram.legacy_documents(channel_ids bigint[], message_ids bigint[]) RETURNS SETOF jsonb
LANGUAGE sql
STABLE
SET search_path = pg_catalog
SET timezone = 'UTC'
SET plan_cache_mode = force_custom_plan
AS $$
  SELECT to_jsonb(v) || jsonb_build_object(
    'channel_id', k.channel_id,
    'state', p.status,
    'is_new', k.arrival >= (SELECT since_arrival FROM telegram.legacy_feed),
    'legacy_rows', (
      SELECT coalesce(jsonb_agg(jsonb_build_object('id', l.legacy_id, 'created_at', l.created_at)), '[]')
      FROM telegram.legacy_ids AS l WHERE l.message_id = k.message_id AND l.channel_id = k.channel_id
    ),
    -- A legacy signal knows no message: of those of one channel, asset and second only the text tells which is whose.
    'signal', to_jsonb(s) || jsonb_build_object('is_twin', EXISTS (
      SELECT FROM telegram.signals AS t
      WHERE t.channel_id = s.channel_id AND t.message_id BETWEEN s.message_id - 100 AND s.message_id + 100
        AND t.message_id <> s.message_id AND t.asset = s.asset AND t.message_date = s.message_date
    ))
  )
  FROM unnest(channel_ids, message_ids) AS e (channel_id, message_id)
  JOIN telegram.message_keys AS k ON k.message_id = e.message_id AND k.channel_id = e.channel_id
  JOIN telegram_gateway.messages AS v ON v.id = telegram.row_id(k.channel_id, k.message_id)
  LEFT JOIN telegram.processing AS p
    ON p.consumer = telegram.setting('status_consumer') AND p.channel_id = k.channel_id AND p.message_id = k.message_id
  LEFT JOIN telegram.signals AS s ON s.channel_id = k.channel_id AND s.message_id = k.message_id
$$;

-- The feed reads, and removes from the outbox what it has read.
DO $$
BEGIN
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO telegram_feed', current_database());
END
$$;

GRANT USAGE ON SCHEMA telegram, telegram_gateway TO telegram_feed;
GRANT SELECT ON telegram.settings, telegram.message_keys, telegram.processing, telegram.signals, telegram.legacy_ids,
  telegram.legacy_feed, telegram_gateway.messages
  TO telegram_feed;
GRANT SELECT, DELETE ON telegram.legacy_changes TO telegram_feed;
