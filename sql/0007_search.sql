-- Engine: all. Runs in a transaction. Full-text search in one language, that of setting `search_language`.
--
-- An index on telegram.messages would cost each insert more than all others together, and compressed chunks have none. So
-- maintenance fills a table of its own behind the writers; what it has not reached yet is searched without an index.

CREATE TABLE telegram.message_search (
  channel_id bigint NOT NULL,
  message_id bigint NOT NULL,
  message_date timestamptz NOT NULL,
  vector tsvector NOT NULL,
  PRIMARY KEY (message_id, channel_id)
);

-- Takes what came since the last run, at most some hundred thousand messages: the rest is left for the next run.
CREATE FUNCTION telegram.maintain_search(OUT detail text, OUT backlog bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $$
DECLARE
  horizon CONSTANT xid8 := pg_snapshot_xmin(pg_current_snapshot());
  begin_at CONSTANT xid8 := telegram.position_of('search');
  end_at xid8;
  taken bigint;
BEGIN
  SELECT least(horizon, arrival) INTO end_at FROM telegram.message_keys
  WHERE arrival >= begin_at ORDER BY arrival, channel_id, message_id OFFSET 200000 LIMIT 1;
  IF end_at IS NULL OR end_at = begin_at THEN -- no more than that, or all of it in one transaction
    end_at := horizon;
  END IF;

  INSERT INTO telegram.message_search AS s (channel_id, message_id, message_date, vector)
  SELECT m.channel_id, m.message_id, m.message_date, telegram.search_vector(m.text)
  FROM telegram.message_keys AS k JOIN telegram.messages AS m
    ON m.channel_id = k.channel_id AND m.message_id = k.message_id AND m.message_date = k.message_date
  WHERE k.arrival >= begin_at AND k.arrival < end_at AND m.text <> ''
  ON CONFLICT (message_id, channel_id) DO UPDATE SET vector = excluded.vector;
  GET DIAGNOSTICS taken = ROW_COUNT;

  INSERT INTO telegram.positions (reader, channel_id, position) VALUES ('search', 0, end_at)
  ON CONFLICT (reader, channel_id) DO UPDATE SET position = excluded.position;
  detail := format('%s messages indexed', taken);
  SELECT count(*) INTO backlog FROM telegram.message_keys WHERE arrival >= end_at;
END
$$;

-- Messages with these words (as in a web search: compra "alvo 1" -stop), the newest first, without deleted ones.
CREATE FUNCTION telegram.search_messages(
  words text,
  max_rows integer DEFAULT 50,
  only_channel bigint DEFAULT NULL,
  before timestamptz DEFAULT 'infinity'
) RETURNS SETOF telegram.messages
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
  query CONSTANT tsquery := telegram.search_query(words);
  begin_at CONSTANT xid8 := telegram.position_of('search');
BEGIN
  RETURN QUERY
  WITH new_ones AS MATERIALIZED (
    SELECT k.channel_id, k.message_id, k.message_date FROM telegram.message_keys AS k
    WHERE k.arrival >= begin_at AND k.message_date < before AND (only_channel IS NULL OR k.channel_id = only_channel)
  ), found AS (
    SELECT s.channel_id, s.message_id, s.message_date FROM telegram.message_search AS s
    WHERE s.vector @@ query AND s.message_date < before AND (only_channel IS NULL OR s.channel_id = only_channel)
      AND NOT EXISTS (SELECT FROM telegram.tombstones AS t WHERE t.channel_id = s.channel_id AND t.message_id = s.message_id)
      AND NOT EXISTS (SELECT FROM new_ones AS n WHERE n.channel_id = s.channel_id AND n.message_id = s.message_id)
    ORDER BY s.message_date DESC, s.message_id DESC
    LIMIT max_rows
  )
  SELECT m.* FROM (SELECT * FROM found UNION ALL SELECT * FROM new_ones) AS f
  JOIN telegram.messages AS m
    ON m.channel_id = f.channel_id AND m.message_id = f.message_id AND m.message_date = f.message_date
  WHERE m.deleted_at IS NULL AND telegram.search_vector(m.text) @@ query
  ORDER BY m.message_date DESC, m.message_id DESC
  LIMIT max_rows;
END
$$;

-- Changes the language, also of what is stored: all is indexed anew, which takes a while.
CREATE PROCEDURE telegram.set_search_language(language text)
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $body$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_ts_config WHERE cfgnamespace = 'pg_catalog'::regnamespace AND cfgname = language) THEN
    RAISE EXCEPTION 'no text search configuration "%"; there are: %', language,
      (SELECT string_agg(cfgname, ', ' ORDER BY cfgname) FROM pg_ts_config WHERE cfgnamespace = 'pg_catalog'::regnamespace)
      USING ERRCODE = 'undefined_object';
  END IF;
  -- Cut, because a tsvector holds 1 MB, and no message may make maintenance fail.
  EXECUTE format($$
    CREATE OR REPLACE FUNCTION telegram.search_vector(content text) RETURNS tsvector
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $f$ SELECT pg_catalog.to_tsvector(%1$L::pg_catalog.regconfig, pg_catalog.left(content, 65536)) $f$
  $$, 'pg_catalog.' || quote_ident(language));
  EXECUTE format($$
    CREATE OR REPLACE FUNCTION telegram.search_query(words text) RETURNS tsquery
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $f$ SELECT pg_catalog.websearch_to_tsquery(%1$L::pg_catalog.regconfig, words) $f$
  $$, 'pg_catalog.' || quote_ident(language));
  UPDATE telegram.settings SET value = language WHERE name = 'search_language';
  UPDATE telegram.message_search AS s SET vector = telegram.search_vector(m.text)
  FROM telegram.messages AS m
  WHERE m.channel_id = s.channel_id AND m.message_id = s.message_id AND m.message_date = s.message_date;
END
$body$;

CALL telegram.set_search_language('portuguese');
