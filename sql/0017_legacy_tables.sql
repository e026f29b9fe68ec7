-- Engine: all. Runs in a transaction. Takes over the legacy tables beside the messages: channels, forwarding rules and the
-- consumer's signals; module `legacy_tables_copy` calls these functions. See docs/database.md.

-- What was taken from each legacy row, so that a change there and a change here are told apart. `here`: the id it got.
CREATE TABLE telegram.legacy_documents (
  origin text NOT NULL,
  legacy_key text NOT NULL,
  document jsonb NOT NULL,
  here text,
  PRIMARY KEY (origin, legacy_key)
);

-- Signals as the legacy consumer made them; `document` is the row as it was, `checksum` that of the row's text there.
CREATE TABLE telegram.legacy_signals (
  origin text NOT NULL,
  legacy_id text NOT NULL,
  channel text,
  signal_type text,
  asset text,
  buy_min numeric,
  buy_max numeric,
  target_1 numeric,
  target_2 numeric,
  target_final numeric,
  stop numeric,
  raw_message text,
  source text,
  ts timestamptz,
  ingested_at timestamptz,
  created_at timestamptz,
  updated_at timestamptz,
  document jsonb NOT NULL,
  checksum bigint,
  PRIMARY KEY (origin, legacy_id)
);

ALTER TABLE telegram.channels ADD COLUMN last_sync_at timestamptz;

COMMENT ON COLUMN telegram.channels.last_sync_at IS 'the legacy system''s last sync; nothing here sets it';

CREATE OR REPLACE VIEW telegram_gateway.channels AS
SELECT channel_id AS id, channel_id, label, description, title, is_active, created_at, updated_at, last_sync_at
FROM telegram.channels;

-- What a row here becomes: a field that is as it was taken (`before`) follows the legacy row (`wanted`), another one was
-- changed here and stays.
CREATE FUNCTION telegram.follow_legacy(here jsonb, before jsonb, wanted jsonb) RETURNS jsonb
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog
AS $$
  SELECT jsonb_object_agg(key, CASE WHEN here -> key IS NOT DISTINCT FROM before -> key THEN value ELSE here -> key END)
  FROM jsonb_each(wanted)
$$;

-- The fields that changed there and, to something else, here.
CREATE FUNCTION telegram.legacy_conflicts(here jsonb, before jsonb, wanted jsonb) RETURNS text[]
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog
AS $$
  SELECT array_agg(key ORDER BY key) FROM jsonb_each(wanted)
  WHERE value IS DISTINCT FROM before -> key AND here -> key IS DISTINCT FROM before -> key AND here -> key IS DISTINCT FROM value
$$;

-- A number as a legacy column of whichever type has it, or NULL.
CREATE FUNCTION telegram.legacy_number(found text) RETURNS numeric
LANGUAGE sql
IMMUTABLE
AS $$ SELECT CASE WHEN found ~ '^-?[0-9]{1,30}(\.[0-9]{1,30})?$' THEN found::numeric END $$;

-- A time: milliseconds since the epoch as a number, or what the server writes for a timestamp. Callers set the time zone: a
-- function with settings of its own becomes no part of their queries, and its call costs more than the rest of a row.
CREATE FUNCTION telegram.legacy_time(found text) RETURNS timestamptz
LANGUAGE sql
STABLE
AS $$
  SELECT CASE
    WHEN found ~ '^[0-9]{1,14}(\.[0-9]+)?$' THEN to_timestamp(found::numeric / 1000)
    WHEN found ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}' THEN found::timestamptz
  END
$$;

-- Keeps documents that can be no row here, once each; returns how many are new.
CREATE FUNCTION telegram.quarantine_documents(origin_name text, reason_given text, documents jsonb[]) RETURNS bigint
LANGUAGE plpgsql
VOLATILE
SET search_path = pg_catalog
AS $$
DECLARE
  kept bigint;
BEGIN
  INSERT INTO telegram.quarantine (origin, reason, channel_id, payload)
  SELECT origin_name, reason_given, d.document ->> 'channel_id', d.document
  FROM (SELECT DISTINCT document FROM unnest(documents) AS document) AS d
  WHERE NOT EXISTS (SELECT FROM telegram.quarantine AS q WHERE q.origin = origin_name AND q.payload = d.document);
  GET DIAGNOSTICS kept = ROW_COUNT;
  RETURN kept;
END
$$;

-- Channels of the caller's temporary table `legacy_given (document jsonb)`. Where none is active there, all are taken: then
-- all are active here. A channel that is there no more becomes inactive. `kept` names what was changed here and there.
CREATE FUNCTION telegram.adopt_legacy_channels(
  origin_name text,
  OUT given bigint,
  OUT quarantined bigint,
  OUT added bigint,
  OUT changed bigint,
  OUT kept text[],
  OUT none_active boolean
)
LANGUAGE plpgsql
VOLATILE
SET search_path = pg_catalog
SET timezone = 'UTC'
AS $$
DECLARE
  untouched CONSTANT jsonb := '{"label": null, "description": null, "is_active": true, "last_sync_at": null}';
BEGIN
  SELECT
    count(*),
    coalesce(bool_and(telegram.legacy_channel(document ->> 'channel_id') IS NULL OR document ->> 'is_active' = 'false'), true)
  INTO given, none_active FROM pg_temp.legacy_given;
  quarantined := telegram.quarantine_documents(origin_name, 'the channel id is none of Telegram', ARRAY(
    SELECT document FROM pg_temp.legacy_given WHERE telegram.legacy_channel(document ->> 'channel_id') IS NULL
  ));

  DROP TABLE IF EXISTS pg_temp.legacy_compared;
  CREATE TEMP TABLE legacy_compared ON COMMIT DROP AS
  WITH read AS (
    SELECT
      telegram.legacy_channel(document ->> 'channel_id') AS channel, document,
      coalesce(document ->> 'is_active', 'true') = 'true' AS is_active,
      telegram.legacy_time(document ->> 'updated_at') AS updated_at
    FROM pg_temp.legacy_given
  ), wanted AS ( -- a channel may be there with its mark and without
    SELECT DISTINCT ON (channel)
      channel, document, none_active OR bool_or(is_active) OVER (PARTITION BY channel) AS is_active
    FROM read WHERE channel IS NOT NULL ORDER BY channel, updated_at DESC NULLS LAST, document ->> 'channel_id'
  ), known AS (
    SELECT legacy_key::bigint AS channel, document FROM telegram.legacy_documents WHERE origin = origin_name
  )
  SELECT
    coalesce(w.channel, k.channel) AS channel,
    k.channel IS NOT NULL AS known,
    c.channel_id IS NOT NULL AS present,
    w.document ->> 'title' AS title,
    telegram.legacy_time(w.document ->> 'created_at') AS created_at,
    coalesce(k.document, untouched) AS before,
    jsonb_build_object('label', c.label, 'description', c.description, 'is_active', c.is_active, 'last_sync_at', c.last_sync_at) AS here,
    CASE WHEN w.channel IS NULL THEN k.document || jsonb_build_object('is_active', none_active) ELSE jsonb_build_object(
      'label', nullif(w.document ->> 'label', ''), 'description', nullif(w.document ->> 'description', ''),
      'is_active', w.is_active, 'last_sync_at', telegram.legacy_time(w.document ->> 'last_sync_at')
    ) END AS wanted
  FROM wanted AS w
  FULL JOIN known AS k ON k.channel = w.channel
  LEFT JOIN telegram.channels AS c ON c.channel_id = coalesce(w.channel, k.channel);

  SELECT array_agg(format('%s: %s', l.channel, array_to_string(coalesce(l.fields, '{deleted}'), ', ')) ORDER BY l.channel) INTO kept
  FROM (
    SELECT r.channel, r.present, r.wanted <> r.before AS changed_there, telegram.legacy_conflicts(r.here, r.before, r.wanted) AS fields
    FROM pg_temp.legacy_compared AS r WHERE r.known OR r.present
  ) AS l
  WHERE CASE WHEN l.present THEN l.fields IS NOT NULL ELSE l.changed_there END;

  INSERT INTO telegram.channels AS c (channel_id, title, label, description, is_active, last_sync_at, created_at)
  SELECT
    r.channel, r.title, r.wanted ->> 'label', r.wanted ->> 'description', (r.wanted ->> 'is_active')::boolean,
    (r.wanted ->> 'last_sync_at')::timestamptz, coalesce(r.created_at, now())
  FROM pg_temp.legacy_compared AS r WHERE NOT r.known AND NOT r.present
  ON CONFLICT (channel_id) DO NOTHING;
  GET DIAGNOSTICS added = ROW_COUNT;

  UPDATE telegram.channels AS c SET
    title = coalesce(c.title, u.title), label = u.result ->> 'label', description = u.result ->> 'description',
    is_active = (u.result ->> 'is_active')::boolean, last_sync_at = (u.result ->> 'last_sync_at')::timestamptz, updated_at = now()
  FROM (
    SELECT r.channel, r.title, r.here, telegram.follow_legacy(r.here, r.before, r.wanted) AS result
    FROM pg_temp.legacy_compared AS r WHERE r.present
  ) AS u
  WHERE c.channel_id = u.channel AND (u.result <> u.here OR c.title IS NULL AND u.title IS NOT NULL);
  GET DIAGNOSTICS changed = ROW_COUNT;

  INSERT INTO telegram.legacy_documents AS d (origin, legacy_key, document, here)
  SELECT origin_name, channel::text, wanted, channel::text FROM pg_temp.legacy_compared
  ON CONFLICT (origin, legacy_key) DO UPDATE SET document = excluded.document WHERE d.document <> excluded.document;
END
$$;

-- Forwarding rules of the caller's `legacy_given`, each as it is; nothing here acts by them. A rule that is there no more
-- becomes inactive. `kept` names rules that were changed here and there.
CREATE FUNCTION telegram.adopt_legacy_rules(
  origin_name text, OUT given bigint, OUT quarantined bigint, OUT added bigint, OUT changed bigint, OUT kept text[]
)
LANGUAGE plpgsql
VOLATILE
SET search_path = pg_catalog
AS $$
BEGIN
  SELECT count(*) INTO given FROM pg_temp.legacy_given;

  DROP TABLE IF EXISTS pg_temp.legacy_compared;
  CREATE TEMP TABLE legacy_compared ON COMMIT DROP AS
  WITH read AS (
    SELECT DISTINCT ON (legacy_key)
      coalesce(document ->> 'id', md5(document::text)) AS legacy_key, document,
      telegram.legacy_channel(coalesce(
        document ->> 'source_channel_id', document ->> 'source_channel', document ->> 'from_channel_id', document ->> 'channel_id'
      )) AS channel
    FROM pg_temp.legacy_given ORDER BY legacy_key, document
  ), wanted AS (
    SELECT legacy_key, document, jsonb_build_object(
      'source_channel_id', channel, 'definition', document,
      'is_active', coalesce(document ->> 'is_active', document ->> 'enabled', 'true') = 'true'
    ) AS fields
    FROM read
  ), known AS (
    SELECT legacy_key, document, here FROM telegram.legacy_documents WHERE origin = origin_name
  )
  SELECT
    coalesce(w.legacy_key, k.legacy_key) AS legacy_key,
    k.legacy_key IS NOT NULL AS known,
    f.id,
    w.document,
    k.document AS before,
    jsonb_build_object('source_channel_id', f.source_channel_id, 'definition', f.definition, 'is_active', f.is_active) AS here,
    coalesce(w.fields, k.document || '{"is_active": false}') AS wanted
  FROM wanted AS w
  FULL JOIN known AS k ON k.legacy_key = w.legacy_key
  LEFT JOIN telegram.forwarding_rules AS f ON f.id::text = k.here;

  quarantined := telegram.quarantine_documents(origin_name, 'the rule names no channel of Telegram', ARRAY(
    SELECT document FROM pg_temp.legacy_compared WHERE wanted ->> 'source_channel_id' IS NULL
  ));
  DELETE FROM pg_temp.legacy_compared WHERE wanted ->> 'source_channel_id' IS NULL;

  SELECT array_agg(format('%s: %s', l.legacy_key, array_to_string(coalesce(l.fields, '{deleted}'), ', ')) ORDER BY l.legacy_key)
  INTO kept
  FROM (
    SELECT r.legacy_key, r.id, r.wanted <> r.before AS changed_there, telegram.legacy_conflicts(r.here, r.before, r.wanted) AS fields
    FROM pg_temp.legacy_compared AS r WHERE r.known
  ) AS l
  WHERE CASE WHEN l.id IS NULL THEN l.changed_there ELSE l.fields IS NOT NULL END;

  WITH numbered AS ( -- its own number where that is free: clients know it
    SELECT r.legacy_key, r.wanted, CASE
      WHEN r.legacy_key ~ '^[1-9][0-9]{0,17}$' AND NOT EXISTS (
        SELECT FROM telegram.forwarding_rules AS f WHERE f.id::text = r.legacy_key
      ) THEN r.legacy_key::bigint
      ELSE nextval(pg_get_serial_sequence('telegram.forwarding_rules', 'id'))
    END AS id
    FROM pg_temp.legacy_compared AS r WHERE NOT r.known
  ), fresh AS (
    INSERT INTO telegram.forwarding_rules (id, source_channel_id, is_active, definition)
    SELECT n.id, (n.wanted ->> 'source_channel_id')::bigint, (n.wanted ->> 'is_active')::boolean, n.wanted -> 'definition'
    FROM numbered AS n
  )
  INSERT INTO telegram.legacy_documents (origin, legacy_key, document, here)
  SELECT origin_name, n.legacy_key, n.wanted, n.id::text FROM numbered AS n;
  GET DIAGNOSTICS added = ROW_COUNT;
  PERFORM setval(
    pg_get_serial_sequence('telegram.forwarding_rules', 'id'), (SELECT coalesce(max(id), 0) + 1 FROM telegram.forwarding_rules), false
  );

  UPDATE telegram.forwarding_rules AS f SET
    source_channel_id = (u.result ->> 'source_channel_id')::bigint, is_active = (u.result ->> 'is_active')::boolean,
    definition = u.result -> 'definition', updated_at = now()
  FROM (
    SELECT r.id, r.here, telegram.follow_legacy(r.here, r.before, r.wanted) AS result
    FROM pg_temp.legacy_compared AS r WHERE r.id IS NOT NULL
  ) AS u
  WHERE f.id = u.id AND u.result <> u.here;
  GET DIAGNOSTICS changed = ROW_COUNT;

  UPDATE telegram.legacy_documents AS d SET document = r.wanted
  FROM pg_temp.legacy_compared AS r
  WHERE r.known AND d.origin = origin_name AND d.legacy_key = r.legacy_key AND d.document <> r.wanted;
END
$$;

-- Signals of the caller's `legacy_given`. The row in which the consumer kept its place is no signal, and what the feed has
-- written there (before the migration was taken back) is here as it was made.
CREATE FUNCTION telegram.adopt_legacy_signals(
  origin_name text, OUT given bigint, OUT checkpoints bigint, OUT added bigint, OUT changed bigint
)
LANGUAGE plpgsql
VOLATILE
SET search_path = pg_catalog
SET timezone = 'UTC'
AS $$
BEGIN
  SELECT
    count(*),
    count(*) FILTER (WHERE '__checkpoint__' IN (document ->> 'channel', document ->> 'asset', document ->> 'signal_type'))
  INTO given, checkpoints FROM pg_temp.legacy_given;

  WITH written AS (
    INSERT INTO telegram.legacy_signals AS s
    SELECT DISTINCT ON (r.legacy_id)
      origin_name, r.legacy_id, r.document ->> 'channel', r.document ->> 'signal_type', r.document ->> 'asset',
      telegram.legacy_number(r.document ->> 'buy_min'), telegram.legacy_number(r.document ->> 'buy_max'),
      telegram.legacy_number(r.document ->> 'target_1'), telegram.legacy_number(r.document ->> 'target_2'),
      telegram.legacy_number(r.document ->> 'target_final'), telegram.legacy_number(r.document ->> 'stop'),
      r.document ->> 'raw_message', r.document ->> 'source',
      coalesce(telegram.legacy_time(r.document ->> 'ts'), r.ingested_at, r.created_at),
      r.ingested_at, r.created_at, telegram.legacy_time(r.document ->> 'updated_at'), r.document,
      r.checksum
    FROM (
      SELECT
        coalesce(document ->> 'id', md5(document::text)) AS legacy_id, document, checksum,
        telegram.legacy_time(document ->> 'ingested_at') AS ingested_at, telegram.legacy_time(document ->> 'created_at') AS created_at
      FROM pg_temp.legacy_given
      WHERE '__checkpoint__' IN (document ->> 'channel', document ->> 'asset', document ->> 'signal_type') IS NOT TRUE
    ) AS r
    WHERE NOT EXISTS (
      SELECT FROM telegram.signals AS o
      WHERE o.channel_id = telegram.legacy_channel(r.document ->> 'channel') AND o.asset = r.document ->> 'asset'
        AND o.message_date = telegram.legacy_time(r.document ->> 'ts') AND o.raw_message = r.document ->> 'raw_message'
    )
    ORDER BY r.legacy_id, r.document
    ON CONFLICT (origin, legacy_id) DO UPDATE SET
      channel = excluded.channel, signal_type = excluded.signal_type, asset = excluded.asset, buy_min = excluded.buy_min,
      buy_max = excluded.buy_max, target_1 = excluded.target_1, target_2 = excluded.target_2, target_final = excluded.target_final,
      stop = excluded.stop, raw_message = excluded.raw_message, source = excluded.source, ts = excluded.ts,
      ingested_at = excluded.ingested_at, created_at = excluded.created_at, updated_at = excluded.updated_at,
      document = excluded.document, checksum = excluded.checksum
    WHERE s.document <> excluded.document
    RETURNING s.xmax = 0 AS is_new
  )
  SELECT count(*) FILTER (WHERE is_new), count(*) FILTER (WHERE NOT is_new) INTO added, changed FROM written;
END
$$;

-- The consumer's table for its SQL clients: the legacy signals and ours. Where the legacy table's `ts` was a time they read
-- the schema `signals`, where it was milliseconds the schema `tp_capital`.
CREATE SCHEMA signals AUTHORIZATION telegram_owner;
CREATE SCHEMA tp_capital AUTHORIZATION telegram_owner;

CREATE VIEW signals.tp_capital_signals AS
SELECT
  legacy_id AS id, channel, signal_type, asset, buy_min, buy_max, target_1, target_2, target_final, stop, raw_message, source,
  ts, ingested_at, created_at, updated_at
FROM telegram.legacy_signals
UNION ALL
SELECT
  telegram.row_id(channel_id, message_id)::text, channel_id::text, signal_type, asset, buy_min, buy_max, target_1, target_2,
  target_final, stop, raw_message, source, message_date, ingested_at, ingested_at, ingested_at
FROM telegram.signals;

CREATE VIEW tp_capital.tp_capital_signals AS
SELECT
  id, channel, signal_type, asset, buy_min, buy_max, target_1, target_2, target_final, stop, raw_message, source,
  (extract(epoch FROM ts) * 1000)::bigint AS ts, ingested_at, created_at, updated_at
FROM signals.tp_capital_signals;

GRANT USAGE ON SCHEMA signals, tp_capital TO telegram_api, telegram_worker;
GRANT SELECT ON signals.tp_capital_signals, tp_capital.tp_capital_signals TO telegram_api, telegram_worker;

-- As telegram.adopt_legacy_rows, for rows of which the legacy table may have newer ones and Telegram itself may have told:
-- what came from Telegram stays as it said.
CREATE FUNCTION telegram.adopt_queued_rows(
  origin_name text,
  OUT given bigint,
  OUT told bigint,
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
BEGIN
  SELECT count(*) INTO given FROM pg_temp.legacy_rows;
  DELETE FROM pg_temp.legacy_rows AS r USING telegram.message_keys AS k
  WHERE r.message_id ~ '^[1-9][0-9]{0,9}$' AND k.message_id = r.message_id::bigint
    AND k.channel_id = telegram.legacy_channel(r.channel_id)
    AND NOT EXISTS (
      SELECT FROM telegram.legacy_ids AS l WHERE l.message_id = k.message_id AND l.channel_id = k.channel_id
    );
  GET DIAGNOSTICS told = ROW_COUNT;
  SELECT a.quarantined, a.undated, a.duplicates, a.written, a.processed, a.deleted
  INTO quarantined, undated, duplicates, written, processed, deleted
  FROM telegram.adopt_legacy_rows(origin_name) AS a;
END
$$;
