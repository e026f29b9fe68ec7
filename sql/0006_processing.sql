-- Engine: all. Runs in a transaction. How consumers get messages and say what they did with them.

-- The transaction from which on a reader of all channels goes on; '0': from the first one.
-- A position that is still to come is from another server, of which this is a restored copy.
CREATE FUNCTION telegram.position_of(reader_name text) RETURNS xid8
LANGUAGE sql
STABLE
SET search_path = pg_catalog
AS $$
  SELECT coalesce((
    SELECT position FROM telegram.positions
    WHERE reader = reader_name AND channel_id = 0 AND position <= pg_snapshot_xmin(pg_current_snapshot())
  ), '0')
$$;

-- The messages that `consumer_name` has still to do, the longest here first. What waits by its state (asked for again)
-- comes before what it has not seen or saw in an older version only.
--
-- Messages whose writers have all ended and that are all done are not looked at again: `positions` says up to where.
CREATE FUNCTION telegram.get_unprocessed_messages(
  consumer_name text,
  max_rows integer DEFAULT 100,
  only_channel bigint DEFAULT NULL,
  statuses text[] DEFAULT '{received,reprocess_pending}'
) RETURNS SETOF telegram.messages
LANGUAGE plpgsql
VOLATILE
SET search_path = pg_catalog
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
  horizon CONSTANT xid8 := pg_snapshot_xmin(pg_current_snapshot());
  reader_name CONSTANT text := 'consumer ' || consumer_name;
  begin_at telegram.positions := ROW(reader_name, coalesce(only_channel, 0), '0', -1::bigint << 63, 0);
  end_at telegram.positions := begin_at;
  numbers bigint[];
  channels bigint[];
  dates timestamptz[];
  earliest timestamptz;
  latest timestamptz;
BEGIN
  SELECT * INTO begin_at FROM (
    SELECT * FROM telegram.positions
    -- A position that is still to come is from another server, of which this is a restored copy.
    WHERE reader = begin_at.reader AND channel_id = begin_at.channel_id AND position <= horizon
    UNION ALL SELECT begin_at.*
  ) AS known LIMIT 1;

  WITH waiting AS (
    SELECT k.channel_id, k.message_id, k.message_date, NULL::xid8 AS arrival
    FROM telegram.processing AS p
    JOIN telegram.message_keys AS k ON k.channel_id = p.channel_id AND k.message_id = p.message_id
    WHERE p.consumer = consumer_name AND p.status IN ('received', 'retrying', 'queued', 'failed', 'reprocess_pending')
      AND p.status = ANY (statuses) AND (only_channel IS NULL OR p.channel_id = only_channel) AND p.version >= k.version
      AND NOT EXISTS (SELECT FROM telegram.tombstones AS t WHERE t.channel_id = k.channel_id AND t.message_id = k.message_id)
    ORDER BY k.message_date, k.channel_id, k.message_id
    LIMIT max_rows
  ), fresh AS (
    SELECT k.channel_id, k.message_id, k.message_date, k.arrival
    FROM telegram.message_keys AS k
    LEFT JOIN telegram.processing AS p
      ON p.consumer = consumer_name AND p.channel_id = k.channel_id AND p.message_id = k.message_id
    WHERE (k.arrival, k.channel_id, k.message_id) >= (begin_at.position, begin_at.next_channel_id, begin_at.next_message_id)
      AND (only_channel IS NULL OR k.channel_id = only_channel)
      AND (p.version IS NULL OR p.version < k.version) AND 'received' = ANY (statuses)
      AND NOT EXISTS (SELECT FROM telegram.tombstones AS t WHERE t.channel_id = k.channel_id AND t.message_id = k.message_id)
    ORDER BY k.arrival, k.channel_id, k.message_id
    LIMIT max_rows
  ), page AS (
    SELECT * FROM waiting UNION ALL SELECT * FROM fresh LIMIT max_rows
  ), next AS (
    SELECT * FROM fresh ORDER BY arrival, channel_id, message_id LIMIT 1
  )
  SELECT
    array_agg(p.channel_id), array_agg(p.message_id), array_agg(p.message_date), min(p.message_date), max(p.message_date),
    min(n.arrival), min(n.channel_id), min(n.message_id)
  INTO
    channels, numbers, dates, earliest, latest, end_at.position, end_at.next_channel_id, end_at.next_message_id
  FROM page AS p LEFT JOIN next AS n ON true;

  IF 'received' = ANY (statuses) THEN
    IF end_at.position < horizon THEN
      PERFORM telegram.move_position(begin_at, end_at);
    ELSE -- nothing is left, or what is left began after something that has not ended
      PERFORM telegram.move_position(begin_at, ROW(reader_name, begin_at.channel_id, horizon, -1::bigint << 63, 0));
    END IF;
  END IF;

  -- A second statement, so that the dates are known when it is planned: then most of the storage is not even looked at.
  RETURN QUERY
  SELECT m.* FROM unnest(channels, numbers, dates) WITH ORDINALITY AS f (channel_id, message_id, message_date, place)
  JOIN telegram.messages AS m
    ON m.channel_id = f.channel_id AND m.message_id = f.message_id AND m.message_date = f.message_date
  WHERE m.message_date BETWEEN earliest AND latest
  ORDER BY f.place;
END
$$;

-- Remembers that a reader has done everything before `target`, once that saves 100 rows: a poll that finds little should not write.
CREATE FUNCTION telegram.move_position(old telegram.positions, target telegram.positions) RETURNS void
LANGUAGE plpgsql
VOLATILE
SET search_path = pg_catalog
SET plan_cache_mode = force_custom_plan
AS $$
BEGIN
  IF current_setting('transaction_read_only') = 'on' OR 100 > (
    SELECT count(*) FROM (
      SELECT FROM telegram.message_keys AS k
      WHERE (k.arrival, k.channel_id, k.message_id) >= (old.position, old.next_channel_id, old.next_message_id)
        AND (k.arrival, k.channel_id, k.message_id) < (target.position, target.next_channel_id, target.next_message_id)
      LIMIT 100
    ) AS passed
  ) THEN
    RETURN;
  END IF;
  -- Another poll that moves it right now may keep its row locked for long: one of them is enough.
  IF pg_try_advisory_xact_lock(1886352243, hashtext(target.reader || target.channel_id)) THEN
    INSERT INTO telegram.positions SELECT target.*
    ON CONFLICT (reader, channel_id) DO UPDATE SET
      position = excluded.position, next_channel_id = excluded.next_channel_id, next_message_id = excluded.next_message_id;
  END IF;
END
$$;

-- Marks many at once; those marked before in the same or a newer version stay. Returns how many were marked.
CREATE FUNCTION telegram.mark_batch_as_processed(
  consumer_name text,
  channel_ids bigint[],
  message_ids bigint[],
  extra jsonb DEFAULT '{}',
  new_status text DEFAULT 'published'
) RETURNS bigint
LANGUAGE plpgsql
VOLATILE
SET search_path = pg_catalog
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
  stamp CONSTANT jsonb := jsonb_build_object('processed_by', consumer_name, 'processed_at', now());
  marked bigint;
BEGIN
  INSERT INTO telegram.processing AS p (
    consumer, channel_id, message_id, version, status, attempts, metadata, created_at, updated_at
  )
  SELECT consumer_name, k.channel_id, k.message_id, k.version, new_status, 1, extra || stamp, clock_timestamp(), clock_timestamp()
  FROM (SELECT DISTINCT * FROM unnest(channel_ids, message_ids)) AS e (channel_id, message_id)
  JOIN telegram.message_keys AS k ON k.channel_id = e.channel_id AND k.message_id = e.message_id
  ORDER BY k.channel_id, k.message_id
  ON CONFLICT (consumer, channel_id, message_id) DO UPDATE SET
    version = excluded.version, status = excluded.status, error = NULL, metadata = p.metadata || excluded.metadata,
    updated_at = excluded.updated_at
  WHERE excluded.version > p.version
    OR excluded.version = p.version AND p.status NOT IN ('published', 'ignored', 'reprocessed', 'deleted');

  GET DIAGNOSTICS marked = ROW_COUNT;
  RETURN marked;
END
$$;

-- Sets the state of one message, whatever it was. False: there is no such message.
CREATE FUNCTION telegram.upsert_message_status(
  consumer_name text,
  channel bigint,
  message bigint,
  new_status text,
  extra jsonb DEFAULT '{}',
  reason text DEFAULT NULL,
  attempt integer DEFAULT 1
) RETURNS boolean
LANGUAGE plpgsql
VOLATILE
SET search_path = pg_catalog
AS $$
BEGIN
  INSERT INTO telegram.processing AS p (
    consumer, channel_id, message_id, version, status, attempts, error, metadata, created_at, updated_at
  )
  SELECT consumer_name, k.channel_id, k.message_id, k.version, new_status, attempt, reason, extra, clock_timestamp(), clock_timestamp()
  FROM telegram.message_keys AS k WHERE k.channel_id = channel AND k.message_id = message
  ON CONFLICT (consumer, channel_id, message_id) DO UPDATE SET
    version = greatest(excluded.version, p.version), status = excluded.status, attempts = excluded.attempts,
    error = excluded.error, metadata = p.metadata || excluded.metadata, updated_at = excluded.updated_at;
  RETURN FOUND;
END
$$;
