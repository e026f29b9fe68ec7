-- Engine: all. Runs in a transaction. Erasing messages for good, with a record of who asked for it.

-- The audit record: never what a message said. `message_id` NULL: the whole channel. `finished_at` NULL: some is left.
CREATE TABLE telegram.erasures (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  channel_id bigint NOT NULL,
  message_id bigint,
  requested_by text NOT NULL,
  reason text,
  requested_at timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz,
  erased_rows bigint NOT NULL DEFAULT 0
);

-- Records an erasure; nothing of it can be stored any more. `continue_erasure` then removes what is there.
CREATE FUNCTION telegram.begin_erasure(channel bigint, message bigint, who text, why text) RETURNS bigint
LANGUAGE plpgsql
VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog
AS $$
DECLARE
  number bigint;
BEGIN
  PERFORM telegram.lock_channels(ARRAY[channel]);
  INSERT INTO telegram.erased (channel_id, message_id, erased_at) VALUES (channel, coalesce(message, 0), now())
  ON CONFLICT (channel_id, message_id) DO UPDATE SET erased_at = excluded.erased_at;
  IF message IS NULL THEN
    UPDATE telegram.channels SET is_active = false, updated_at = now() WHERE channel_id = channel;
  END IF;
  INSERT INTO telegram.erasures (channel_id, message_id, requested_by, reason) VALUES (channel, message, who, why)
  RETURNING id INTO number;
  RETURN number;
END
$$;

-- Removes at most `max_rows` messages of an erasure with all that was made of them. True: nothing is left.
-- May be called again later, for what was still on its way in a queue.
CREATE FUNCTION telegram.continue_erasure(number bigint, max_rows integer DEFAULT 5000) RETURNS boolean
LANGUAGE plpgsql
VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
  wanted telegram.erasures;
  numbers bigint[];
  dates timestamptz[];
  earliest timestamptz;
  latest timestamptz;
  affected bigint;
  removed bigint := 0;
  finished boolean;
  source text;
BEGIN
  SELECT * INTO STRICT wanted FROM telegram.erasures WHERE id = number FOR UPDATE;
  PERFORM telegram.lock_channels(ARRAY[wanted.channel_id]);

  WITH gone AS (
    DELETE FROM telegram.message_keys WHERE (message_id, channel_id) IN (
      SELECT k.message_id, k.channel_id FROM telegram.message_keys AS k
      WHERE k.channel_id = wanted.channel_id
        AND (k.message_id = wanted.message_id OR wanted.message_id IS NULL AND k.message_date <= wanted.requested_at)
      LIMIT max_rows
    ) RETURNING message_id, message_date
  )
  SELECT array_agg(message_id), array_agg(message_date), min(message_date), max(message_date), count(*) < max_rows
  INTO numbers, dates, earliest, latest, finished FROM gone;

  DELETE FROM telegram.messages AS m USING unnest(numbers, dates) AS g (message_id, message_date)
  WHERE m.channel_id = wanted.channel_id AND m.message_id = g.message_id AND m.message_date = g.message_date
    AND m.message_date BETWEEN earliest AND latest;
  GET DIAGNOSTICS affected = ROW_COUNT;
  removed := removed + affected;

  numbers := coalesce(numbers, '{}') || coalesce(wanted.message_id, 0);
  FOREACH source IN ARRAY '{message_search,message_history,processing,signals,failures,legacy_ids}'::text[] LOOP
    EXECUTE format('DELETE FROM telegram.%I WHERE channel_id = $1 AND message_id = ANY ($2)', source)
    USING wanted.channel_id, numbers;
    GET DIAGNOSTICS affected = ROW_COUNT;
    removed := removed + affected;
    -- What a consumer made of a message that was never stored. Where a channel is active again this waits: it may yet be.
    CONTINUE WHEN NOT finished OR wanted.message_id IS NOT NULL
      OR EXISTS (SELECT FROM telegram.channels WHERE channel_id = wanted.channel_id AND is_active);
    EXECUTE format(
      'DELETE FROM telegram.%I AS s WHERE s.channel_id = $1 AND NOT EXISTS ('
      'SELECT FROM telegram.message_keys AS k WHERE k.channel_id = s.channel_id AND k.message_id = s.message_id)', source
    ) USING wanted.channel_id;
    GET DIAGNOSTICS affected = ROW_COUNT;
    removed := removed + affected;
  END LOOP;

  -- What an import could not read is known by its texts only.
  DELETE FROM telegram.quarantine AS q
  WHERE telegram.legacy_channel(q.channel_id) = wanted.channel_id
    AND (wanted.message_id IS NULL OR q.message_id = wanted.message_id::text);
  GET DIAGNOSTICS affected = ROW_COUNT;
  removed := removed + affected;

  INSERT INTO telegram.marked_channels (arrival, channel_id) VALUES (pg_current_xact_id(), wanted.channel_id)
  ON CONFLICT DO NOTHING;
  UPDATE telegram.erasures
  SET erased_rows = erased_rows + removed, finished_at = CASE WHEN finished THEN coalesce(finished_at, now()) END
  WHERE id = number;
  RETURN finished;
END
$$;

-- Who can delete nothing else can do this, on the record.
REVOKE ALL ON FUNCTION telegram.begin_erasure, telegram.continue_erasure FROM PUBLIC;
GRANT EXECUTE ON FUNCTION telegram.begin_erasure, telegram.continue_erasure TO telegram_api;
GRANT SELECT ON telegram.erasures, telegram.erased TO telegram_api;
GRANT SELECT ON telegram.erased TO telegram_ingest;
