-- Engine: all. Runs in a transaction. How messages and deletions come in.
--
-- A plan that was kept from the time when tables were empty may read them whole, for every batch again when they have
-- grown. Plans are made for each call therefore, here and in 0006, but for the one that every batch needs: making it takes
-- longer than storing a message. That one is kept, and has no choice: a table is asked by its index for each row, and nothing
-- else is joined row by row.

-- A message's row id: its key in another form (UUID version 8), as telegram_stack.ids makes it.
CREATE FUNCTION telegram.row_id(channel_id bigint, message_id bigint) RETURNS uuid
LANGUAGE sql
IMMUTABLE STRICT PARALLEL SAFE
AS $$
  SELECT pg_catalog.encode(
    pg_catalog.int8send((channel_id & -65536) | 32768 | (channel_id >> 4 & 4095))
    || pg_catalog.int8send((channel_id & 15) << 58 | message_id | (-9223372036854775807 - 1)),
    'hex'
  )::pg_catalog.uuid
$$;

-- Whoever writes messages or deletions of several channels holds their locks first: then no two writers can deadlock.
CREATE FUNCTION telegram.lock_channels(channel_ids bigint[]) RETURNS void
LANGUAGE plpgsql -- which keeps the plan
VOLATILE
SET search_path = pg_catalog
AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(1952803939, hash) -- one of our own among advisory locks
  FROM (SELECT DISTINCT hashint8(channel_id) AS hash FROM unnest(channel_ids) AS channel_id ORDER BY hash) AS hashes;
END
$$;

-- What must not come back from Telegram's history, the queue or an import. `message_id` 0: the channel up to that time.
CREATE TABLE telegram.erased (
  channel_id bigint NOT NULL,
  message_id bigint NOT NULL,
  erased_at timestamptz NOT NULL,
  PRIMARY KEY (channel_id, message_id)
);

-- An array a column, in any order, any key any number of times. The newest version of each message stays, whatever came first.
CREATE FUNCTION telegram.bulk_upsert_messages(
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
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_nestloop = off
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
      SELECT FROM telegram.erased AS x
      WHERE x.channel_id = e.channel_id AND x.message_id = e.message_id OFFSET 0 -- or it would become a join
    ) AND NOT EXISTS (
      SELECT FROM telegram.erased AS x
      WHERE x.channel_id = e.channel_id AND x.message_id = 0 AND e.message_date <= x.erased_at OFFSET 0
    )
    ORDER BY channel_id, message_id, version DESC
  ), newer AS (
    INSERT INTO telegram.message_keys AS k (channel_id, message_id, message_date, version, deleted_at)
    SELECT g.channel_id, g.message_id, g.message_date, g.version, (
      SELECT t.deleted_at FROM telegram.tombstones AS t
      WHERE t.channel_id = g.channel_id AND t.message_id = g.message_id
    )
    FROM given AS g
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

COMMENT ON FUNCTION telegram.bulk_upsert_messages IS 'stores messages and edits; returns how many were new or newer';

-- Deletes softly what Telegram has deleted, now or when it comes. Returns how many messages were not deleted before.
CREATE FUNCTION telegram.mark_messages_deleted(channel_ids bigint[], message_ids bigint[], deleted_ats timestamptz[])
RETURNS bigint
LANGUAGE plpgsql
VOLATILE
SET search_path = pg_catalog
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
  earliest timestamptz;
  latest timestamptz;
  marked bigint;
BEGIN
  PERFORM telegram.lock_channels(channel_ids);

  INSERT INTO telegram.tombstones (channel_id, message_id, deleted_at, received_at)
  SELECT channel_id, message_id, min(deleted_at), now()
  FROM unnest(channel_ids, message_ids, deleted_ats) AS e (channel_id, message_id, deleted_at)
  GROUP BY channel_id, message_id ORDER BY channel_id, message_id
  ON CONFLICT (channel_id, message_id) DO NOTHING;

  -- The dates let the planner leave out most of the storage.
  SELECT min(k.message_date), max(k.message_date) INTO earliest, latest
  FROM unnest(channel_ids, message_ids) AS e (channel_id, message_id)
  JOIN telegram.message_keys AS k ON k.channel_id = e.channel_id AND k.message_id = e.message_id;

  WITH deleted AS (
    UPDATE telegram.messages AS m SET deleted_at = t.deleted_at
    FROM unnest(channel_ids, message_ids) AS e (channel_id, message_id)
    JOIN telegram.message_keys AS k ON k.channel_id = e.channel_id AND k.message_id = e.message_id
    JOIN telegram.tombstones AS t ON t.channel_id = e.channel_id AND t.message_id = e.message_id
    WHERE m.channel_id = k.channel_id AND m.message_id = k.message_id AND m.message_date = k.message_date
      AND m.message_date BETWEEN earliest AND latest AND m.deleted_at IS NULL
    RETURNING m.channel_id, m.message_id, m.deleted_at
  )
  UPDATE telegram.message_keys AS k SET arrival = pg_current_xact_id(), deleted_at = d.deleted_at
  FROM deleted AS d WHERE k.channel_id = d.channel_id AND k.message_id = d.message_id;

  GET DIAGNOSTICS marked = ROW_COUNT;
  RETURN marked;
END
$$;
