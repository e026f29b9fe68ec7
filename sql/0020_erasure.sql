-- Engine: all. Runs in a transaction. Erasing messages for good, with a record of who asked for it.

-- What must not come back from Telegram's history, the queue or an import. `message_id` 0: the channel up to that time.
CREATE TABLE telegram.erased (
  channel_id bigint NOT NULL,
  message_id bigint NOT NULL,
  erased_at timestamptz NOT NULL,
  PRIMARY KEY (channel_id, message_id)
);

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

-- As before, but for what was erased.
CREATE OR REPLACE FUNCTION telegram.bulk_upsert_messages(
  channel_ids bigint[],
  message_ids bigint[],
  message_dates timestamptz[],
  versions bigint[],
  received_ats timestamptz[],
  sources text[],
  message_types text[],
  texts text[],
  entities jsonb[] DEFAULT NULL,
  sender_ids bigint[] DEFAULT NULL,
  reply_tos jsonb[] DEFAULT NULL,
  forwards jsonb[] DEFAULT NULL,
  grouped_ids bigint[] DEFAULT NULL,
  topic_ids bigint[] DEFAULT NULL,
  medias jsonb[] DEFAULT NULL,
  link_previews jsonb[] DEFAULT NULL,
  edit_dates timestamptz[] DEFAULT NULL,
  metadatas jsonb[] DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql
VOLATILE
SET search_path = pg_catalog
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
  written bigint;
BEGIN
  PERFORM telegram.lock_channels(channel_ids);

  WITH given AS MATERIALIZED (
    SELECT DISTINCT ON (channel_id, message_id) *
    FROM unnest(
      channel_ids, message_ids, message_dates, versions, received_ats, sources, message_types, texts, entities, sender_ids,
      reply_tos, forwards, grouped_ids, topic_ids, medias, link_previews, edit_dates, metadatas
    ) AS e (
      channel_id, message_id, message_date, version, received_at, source, message_type, text, entities, sender_id,
      reply_to, forward, grouped_id, topic_id, media, link_preview, edit_date, metadata
    )
    WHERE NOT EXISTS (
      SELECT FROM telegram.erased AS x WHERE x.channel_id = e.channel_id AND x.message_id = e.message_id
    ) AND NOT EXISTS (
      SELECT FROM telegram.erased AS x
      WHERE x.channel_id = e.channel_id AND x.message_id = 0 AND e.message_date <= x.erased_at
    )
    ORDER BY channel_id, message_id, version DESC
  ), newer AS (
    INSERT INTO telegram.message_keys AS k (channel_id, message_id, message_date, version, deleted_at)
    SELECT g.channel_id, g.message_id, g.message_date, g.version, t.deleted_at
    FROM given AS g
    LEFT JOIN telegram.tombstones AS t ON t.channel_id = g.channel_id AND t.message_id = g.message_id
    ORDER BY g.channel_id, g.message_id
    ON CONFLICT (message_id, channel_id) DO UPDATE SET
      version = excluded.version, arrival = excluded.arrival, deleted_at = coalesce(k.deleted_at, excluded.deleted_at)
    WHERE excluded.version > k.version
    RETURNING k.channel_id, k.message_id, k.message_date, k.deleted_at
  )
  INSERT INTO telegram.messages AS m (
    id, channel_id, message_id, message_date, version, received_at, source, message_type, text, entities, sender_id,
    reply_to, forward, grouped_id, topic_id, media, link_preview, edit_date, metadata, deleted_at
  )
  SELECT
    telegram.row_id(g.channel_id, g.message_id), g.channel_id, g.message_id,
    n.message_date, -- Telegram never changes a date: the first one counts, or the message would be there twice
    g.version, g.received_at, g.source, g.message_type, g.text, g.entities, g.sender_id,
    g.reply_to, g.forward, g.grouped_id, g.topic_id, g.media, g.link_preview, g.edit_date, coalesce(g.metadata, '{}'),
    n.deleted_at
  FROM given AS g
  JOIN newer AS n ON n.channel_id = g.channel_id AND n.message_id = g.message_id
  ON CONFLICT (channel_id, message_id, message_date) DO UPDATE SET
    version = excluded.version, source = excluded.source, message_type = excluded.message_type, text = excluded.text,
    entities = excluded.entities, sender_id = excluded.sender_id, reply_to = excluded.reply_to,
    forward = excluded.forward, grouped_id = excluded.grouped_id, topic_id = excluded.topic_id, media = excluded.media,
    link_preview = excluded.link_preview, edit_date = excluded.edit_date, received_at = excluded.received_at,
    metadata = m.metadata || excluded.metadata, stored_at = now(), deleted_at = coalesce(m.deleted_at, excluded.deleted_at)
  WHERE excluded.version > m.version;

  GET DIAGNOSTICS written = ROW_COUNT;
  RETURN written;
END
$$;

-- As before; and what was erased within the last week goes again, should a queue have brought something of it.
CREATE OR REPLACE FUNCTION telegram.maintain_retention(OUT detail text, OUT backlog bigint)
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

-- Who can delete nothing else can do this, on the record.
REVOKE ALL ON FUNCTION telegram.begin_erasure, telegram.continue_erasure FROM PUBLIC;
GRANT EXECUTE ON FUNCTION telegram.begin_erasure, telegram.continue_erasure TO telegram_api;
GRANT SELECT ON telegram.erasures, telegram.erased TO telegram_api;
GRANT SELECT ON telegram.erased TO telegram_ingest;
