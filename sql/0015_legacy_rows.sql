-- Engine: all. Runs in a transaction. Takes over rows of the legacy tables, of whichever shape: see docs/database.md.

-- A row of the legacy table as it is found there; ids as text, because the shapes have them in several types.
CREATE TYPE telegram.legacy_row AS (
  legacy_id text,
  channel_id text,
  message_id text,
  thread_id bigint,
  source text,
  message_type text,
  text text,
  caption text,
  media_type text,
  media_refs jsonb,
  status text,
  received_at timestamptz,
  telegram_date timestamptz,
  published_at timestamptz,
  failed_at timestamptz,
  queued_at timestamptz,
  reprocess_requested_at timestamptz,
  reprocessed_at timestamptz,
  metadata jsonb,
  created_at timestamptz,
  updated_at timestamptz,
  deleted_at timestamptz
);

-- Which windows of which legacy table are here: module `message_copy` writes a row together with its window. `checksum` is
-- that of the source's rows together, so that a window that has changed there since is known, and `row_checksums` those of each
-- row that was taken over, so that of such a window only what has changed is read.
CREATE TABLE telegram.copied_windows (
  source text NOT NULL,
  window_start text NOT NULL,
  rows bigint NOT NULL,
  checksum text NOT NULL,
  row_checksums bigint[] NOT NULL DEFAULT '{}',
  copied_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (source, window_start)
);

-- Telegram's marked id, where the legacy system kept it with -100 or without; NULL: it is none.
CREATE FUNCTION telegram.legacy_channel(found text) RETURNS bigint
LANGUAGE sql
IMMUTABLE
AS $$
  SELECT CASE
    WHEN found ~ '^-[1-9][0-9]{0,14}$' THEN found::bigint
    WHEN found ~ '^[1-9][0-9]{0,11}$' THEN -1000000000000 - found::bigint
  END
$$;

-- What the consumer wrote into `metadata`, which here stands with its own state, not with the message.
CREATE FUNCTION telegram.legacy_consumer_keys() RETURNS text[]
LANGUAGE sql
IMMUTABLE
AS $$ SELECT '{processed_by,processed_at,signal_asset,error,reason,ignored}'::text[] $$;

-- A media descriptor of what the legacy row says, or NULL. `refs` are its own references: its clients get them back.
CREATE FUNCTION telegram.legacy_media(media_type text, refs jsonb, photo jsonb) RETURNS jsonb
LANGUAGE sql
IMMUTABLE
AS $$
  SELECT CASE WHEN media_type IS NOT NULL THEN jsonb_strip_nulls(jsonb_build_object(
    'type', media_type,
    'id', CASE WHEN photo ->> 'photoId' ~ '^-?[0-9]{1,18}$' THEN (photo ->> 'photoId')::bigint END,
    'access_hash', CASE WHEN photo ->> 'accessHash' ~ '^-?[0-9]{1,18}$' THEN (photo ->> 'accessHash')::bigint END
  )) || CASE WHEN jsonb_typeof(refs) = 'array' AND refs <> '[]' THEN jsonb_build_object('refs', refs) ELSE '{}' END END
$$;

-- Of a message's legacy rows the one made last counts: whether this one is made no earlier than those that are known.
CREATE FUNCTION telegram.legacy_row_leads(channel bigint, message bigint, made_at timestamptz, row_id text) RETURNS boolean
LANGUAGE sql
STABLE
SET search_path = pg_catalog
AS $$
  SELECT coalesce((made_at, row_id) >= (
    SELECT l.created_at, l.legacy_id FROM telegram.legacy_ids AS l WHERE l.channel_id = channel AND l.message_id = message
    ORDER BY l.created_at DESC, l.legacy_id DESC LIMIT 1
  ), true)
$$;

-- Reads the caller's `legacy_rows` into its temporary table `legacy_read`: key, date and content as they are here, and why a
-- row can be no message.
CREATE FUNCTION telegram.read_legacy_rows() RETURNS void
LANGUAGE plpgsql
VOLATILE
SET search_path = pg_catalog
AS $$
BEGIN
  DROP TABLE IF EXISTS pg_temp.legacy_read;
  CREATE TEMP TABLE legacy_read ON COMMIT DROP AS
  SELECT
    r.*,
    k.channel,
    k.message,
    k.date,
    coalesce(r.created_at, k.date) AS made_at,
    coalesce(nullif(r.text, ''), r.caption, '') AS content,
    -- Most have none, and a call costs more than the rest of the row.
    CASE WHEN r.media_type IS NOT NULL THEN telegram.legacy_media(r.media_type, r.media_refs, r.metadata -> 'photo') END AS media,
    CASE
      WHEN jsonb_typeof(r.metadata) = 'object' THEN r.metadata
      WHEN jsonb_typeof(r.metadata) <> 'null' THEN jsonb_build_object('legacy', r.metadata)
      ELSE '{}'
    END || CASE WHEN r.text <> '' AND r.caption <> r.text THEN jsonb_build_object('caption', r.caption) ELSE '{}' END AS facts,
    CASE
      WHEN k.channel IS NULL THEN 'the channel id is none of Telegram'
      WHEN k.message IS NULL THEN 'the message id is none of Telegram'
      WHEN k.date IS NULL THEN 'there is no date'
      WHEN k.date NOT BETWEEN '2013-08-01' AND now() + interval '1 day' THEN 'the date is not of Telegram''s time'
    END AS refusal
  FROM pg_temp.legacy_rows AS r CROSS JOIN LATERAL (
    SELECT
      telegram.legacy_channel(r.channel_id) AS channel,
      CASE WHEN r.message_id ~ '^[1-9][0-9]{0,9}$' AND r.message_id::bigint < 2147483648 THEN r.message_id::bigint END AS message,
      coalesce(r.telegram_date, r.received_at, r.created_at) AS date
  ) AS k;
END
$$;

-- The part of `adopt_legacy_rows` that stores messages; returns how many were new or changed.
--
-- Their version is that of an edit in the second of the message: above the message as Telegram tells it, so that to read
-- its history again changes nothing here and no consumer is asked twice; below every edit that is to come.
CREATE FUNCTION telegram.adopt_legacy_contents() RETURNS bigint
LANGUAGE plpgsql
VOLATILE
SET search_path = pg_catalog
SET plan_cache_mode = force_custom_plan
SET work_mem = '32MB' -- a batch of texts is sorted three times
AS $$
DECLARE
  consumer_name CONSTANT text := telegram.setting('status_consumer');
  written bigint;
  first_known timestamptz;
  last_known timestamptz;
BEGIN
  -- Between them the messages are looked for: with bounds that the planner knows it leaves out the other chunks.
  SELECT min(k.message_date), max(k.message_date) INTO first_known, last_known
  FROM pg_temp.legacy_read AS r JOIN telegram.message_keys AS k ON k.channel_id = r.channel AND k.message_id = r.message;

  WITH newest AS ( -- no more columns than are needed: they are sorted and kept
    SELECT DISTINCT ON (channel, message)
      channel, message, legacy_id, made_at, date, min(telegram_date) OVER (PARTITION BY channel, message) AS said,
      received_at, source, message_type, thread_id, content, media, facts
    FROM pg_temp.legacy_read ORDER BY channel, message, made_at DESC, legacy_id DESC
  ), facts AS ( -- of those that are there more than once
    SELECT r.channel, r.message, jsonb_object_agg(e.key, e.value ORDER BY r.made_at, r.legacy_id) AS facts
    FROM (SELECT channel, message FROM pg_temp.legacy_read GROUP BY channel, message HAVING count(*) > 1) AS d
    JOIN pg_temp.legacy_read AS r ON r.channel = d.channel AND r.message = d.message
    CROSS JOIN LATERAL jsonb_each(r.facts) AS e (key, value)
    GROUP BY r.channel, r.message
  ), seen AS MATERIALIZED ( -- or `leads` is looked up for each of its uses
    SELECT
      n.*, coalesce(f.facts, n.facts) - (telegram.legacy_consumer_keys() || '{linkPreview}') AS merged, k.version AS known,
      k.version IS NULL OR telegram.legacy_row_leads(n.channel, n.message, n.made_at, n.legacy_id) AS leads,
      coalesce(k.message_date, n.said, n.date) AS first_date
    FROM newest AS n
    LEFT JOIN facts AS f ON f.channel = n.channel AND f.message = n.message
    LEFT JOIN telegram.message_keys AS k ON k.channel_id = n.channel AND k.message_id = n.message
  ), final AS (
    SELECT
      s.channel, s.message, s.first_date, m.version AS known, m.entities, m.sender_id, m.reply_to, m.forward, m.grouped_id,
      m.edit_date, m.text AS known_text, m.media AS known_media, m.link_preview AS known_preview, m.metadata AS known_metadata,
      coalesce(m.received_at, s.received_at, s.date) AS received_at,
      coalesce(m.source, s.source, 'unknown') AS source,
      coalesce(m.message_type, s.message_type, 'channel_post') AS message_type,
      coalesce(m.topic_id, s.thread_id) AS topic_id,
      CASE WHEN s.leads THEN s.content ELSE m.text END AS text,
      CASE WHEN s.leads THEN coalesce(s.media, m.media) ELSE m.media END AS media,
      CASE WHEN s.leads THEN coalesce(s.facts -> 'linkPreview', m.link_preview) ELSE m.link_preview END AS link_preview,
      CASE WHEN s.leads THEN coalesce(m.metadata, '{}') || s.merged ELSE s.merged || m.metadata END AS metadata
    FROM seen AS s
    LEFT JOIN telegram.messages AS m
      ON m.channel_id = s.channel AND m.message_id = s.message AND m.message_date = s.first_date
      AND m.message_date BETWEEN first_known AND last_known
  ), changed AS (
    SELECT
      *, coalesce(known + 1, extract(epoch FROM date_trunc('second', first_date))::bigint << 20 | 524288) AS version,
      text IS DISTINCT FROM known_text AS rewritten
    FROM final
    WHERE known IS NULL
      OR (text, media, link_preview, metadata) IS DISTINCT FROM (known_text, known_media, known_preview, known_metadata)
  ), still_processed AS ( -- the legacy consumer has done the message, in whichever of its rows
    UPDATE telegram.processing AS p SET version = c.version FROM changed AS c
    WHERE p.consumer = consumer_name AND p.channel_id = c.channel AND p.message_id = c.message
      AND p.version = c.known
  )
  SELECT telegram.bulk_upsert_messages(
    array_agg(channel), array_agg(message), array_agg(first_date), array_agg(version), array_agg(received_at),
    array_agg(source), array_agg(message_type), array_agg(text),
    array_agg(CASE WHEN NOT rewritten THEN entities END), -- places in a text that is not there any more
    array_agg(sender_id), array_agg(reply_to), array_agg(forward), array_agg(grouped_id), array_agg(topic_id),
    array_agg(media), array_agg(link_preview), array_agg(edit_date), array_agg(metadata)
  )
  INTO written FROM changed;
  RETURN written;
END
$$;

-- Takes over what is in the caller's temporary table `legacy_rows` (`CREATE TEMP TABLE legacy_rows OF telegram.legacy_row`):
-- any row any number of times, duplicates in any windows. Windows may come in any order; only where two older duplicates fill
-- a key of `metadata` differently, and the newest does not, the one that came first stays.
--
-- Of duplicates the row made last gives text and media; metadata is merged; deleted once is deleted. Processed is what
-- `metadata.processed_by` says is: the status of a row may be that of another channel's message. What cannot become a
-- message goes to `quarantine` under `origin`, with the reason. Leaves the rows it took over in `legacy_read`.
CREATE FUNCTION telegram.adopt_legacy_rows(
  origin_name text,
  OUT given bigint,
  OUT quarantined bigint,
  OUT undated bigint,
  OUT duplicates bigint,
  OUT written bigint,
  OUT processed bigint,
  OUT deleted bigint
)
LANGUAGE plpgsql
VOLATILE
SET search_path = pg_catalog
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
  consumer_name CONSTANT text := telegram.setting('status_consumer');
BEGIN
  PERFORM telegram.read_legacy_rows();

  SELECT count(*), count(*) FILTER (WHERE telegram_date IS NULL AND refusal IS NULL) INTO given, undated FROM pg_temp.legacy_read;

  INSERT INTO telegram.quarantine (origin, reason, channel_id, message_id, payload)
  SELECT DISTINCT ON (r.legacy_id) origin_name, r.refusal, r.channel_id, r.message_id,
    to_jsonb(r) - '{channel,message,date,made_at,content,media,facts,refusal}'::text[]
  FROM pg_temp.legacy_read AS r
  WHERE r.refusal IS NOT NULL AND NOT EXISTS (
    SELECT FROM telegram.quarantine AS q WHERE q.origin = origin_name AND q.payload ->> 'legacy_id' = r.legacy_id
  );
  GET DIAGNOSTICS quarantined = ROW_COUNT;
  DELETE FROM pg_temp.legacy_read WHERE refusal IS NOT NULL;

  PERFORM telegram.lock_channels(ARRAY(SELECT DISTINCT channel FROM pg_temp.legacy_read));
  written := telegram.adopt_legacy_contents();

  WITH fresh AS (
    INSERT INTO telegram.legacy_ids AS l (legacy_id, channel_id, message_id, created_at)
    SELECT DISTINCT ON (legacy_id) legacy_id, channel, message, made_at FROM pg_temp.legacy_read ORDER BY legacy_id
    ON CONFLICT (legacy_id) DO NOTHING
    RETURNING l.channel_id, l.message_id
  ), keys AS (
    SELECT channel_id, message_id, count(*) AS rows FROM fresh GROUP BY channel_id, message_id
  )
  SELECT coalesce(sum(k.rows - CASE WHEN o.known THEN 0 ELSE 1 END), 0) INTO duplicates
  FROM keys AS k CROSS JOIN LATERAL (
    SELECT EXISTS ( -- those of the statement itself do not show yet
      SELECT FROM telegram.legacy_ids AS l WHERE l.channel_id = k.channel_id AND l.message_id = k.message_id
    ) AS known
  ) AS o;

  INSERT INTO telegram.processing AS p (
    consumer, channel_id, message_id, version, status, attempts, metadata, created_at, updated_at
  )
  SELECT DISTINCT ON (k.channel_id, k.message_id)
    consumer_name, k.channel_id, k.message_id, k.version,
    CASE
      WHEN r.facts ->> 'ignored' = 'true' THEN 'ignored'
      WHEN r.status IN ('failed', 'reprocess_pending', 'reprocessed') THEN r.status
      ELSE 'published'
    END,
    1,
    (SELECT jsonb_object_agg(key, value) FROM jsonb_each(r.facts) WHERE key = ANY (telegram.legacy_consumer_keys())),
    r.made_at,
    coalesce(r.reprocessed_at, r.reprocess_requested_at, r.failed_at, r.published_at, r.updated_at, r.made_at)
  FROM pg_temp.legacy_read AS r
  JOIN telegram.message_keys AS k ON k.channel_id = r.channel AND k.message_id = r.message
  WHERE r.facts ? 'processed_by'
  ORDER BY k.channel_id, k.message_id, r.made_at DESC, r.legacy_id DESC
  ON CONFLICT (consumer, channel_id, message_id) DO UPDATE SET
    version = excluded.version, status = excluded.status, metadata = excluded.metadata, updated_at = excluded.updated_at
  WHERE excluded.version > p.version OR excluded.updated_at > p.updated_at;
  GET DIAGNOSTICS processed = ROW_COUNT;

  deleted := telegram.mark_messages_deleted(
    array_agg(channel), array_agg(message), array_agg(coalesce(deleted_at, updated_at, made_at))
  ) FROM pg_temp.legacy_read WHERE deleted_at IS NOT NULL OR status = 'deleted';
  deleted := coalesce(deleted, 0);
END
$$;

-- Compares what is in the caller's `legacy_read` with what is here, row by row; a line a channel and day with a difference.
-- A row is right when it leads to its message and that says what its newest row says, is deleted and processed where the
-- row says so; or when it stands in `quarantine`. What Telegram edited later is right, too.
CREATE FUNCTION telegram.compare_legacy_rows(origin_name text)
RETURNS TABLE (channel text, day date, rows bigint, lacking bigint, differing bigint, undeleted bigint, unprocessed bigint)
LANGUAGE plpgsql
VOLATILE
SET search_path = pg_catalog
SET timezone = 'UTC'
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
  consumer_name CONSTANT text := telegram.setting('status_consumer');
  first_known timestamptz;
  last_known timestamptz;
BEGIN
  SELECT min(k.message_date), max(k.message_date) INTO first_known, last_known -- as in `adopt_legacy_contents`
  FROM pg_temp.legacy_read AS r JOIN telegram.message_keys AS k ON k.channel_id = r.channel AND k.message_id = r.message;

  RETURN QUERY
  WITH compared AS (
    SELECT
      r.channel_id AS channel,
      CASE WHEN isfinite(r.date) THEN r.date::date END AS day,
      CASE WHEN r.refusal IS NULL THEN m.message_id IS NULL ELSE NOT EXISTS (
        SELECT FROM telegram.quarantine AS q WHERE q.origin = origin_name AND q.payload ->> 'legacy_id' = r.legacy_id
      ) END AS lacking,
      m.text <> r.content AND m.version >> 20 <= extract(epoch FROM date_trunc('second', m.message_date))
      AND telegram.legacy_row_leads(l.channel_id, l.message_id, r.made_at, r.legacy_id) AS differing,
      m.deleted_at IS NULL AND (r.deleted_at IS NOT NULL OR r.status = 'deleted') AS undeleted,
      r.facts ? 'processed_by' AND p.version IS NULL AS unprocessed
    FROM pg_temp.legacy_read AS r
    LEFT JOIN telegram.legacy_ids AS l
      ON l.legacy_id = r.legacy_id AND l.channel_id = r.channel AND l.message_id = r.message
    LEFT JOIN telegram.message_keys AS k ON k.channel_id = l.channel_id AND k.message_id = l.message_id
    LEFT JOIN telegram.messages AS m
      ON m.channel_id = k.channel_id AND m.message_id = k.message_id AND m.message_date = k.message_date
      AND m.message_date BETWEEN first_known AND last_known
    LEFT JOIN telegram.processing AS p
      ON p.consumer = consumer_name AND p.channel_id = k.channel_id AND p.message_id = k.message_id
  )
  SELECT
    c.channel, c.day, count(*), count(*) FILTER (WHERE c.lacking), count(*) FILTER (WHERE NOT c.lacking AND c.differing),
    count(*) FILTER (WHERE NOT c.lacking AND c.undeleted), count(*) FILTER (WHERE NOT c.lacking AND c.unprocessed)
  FROM compared AS c
  GROUP BY c.channel, c.day
  HAVING bool_or(c.lacking OR c.differing OR c.undeleted OR c.unprocessed)
  ORDER BY c.channel, c.day;
END
$$;
