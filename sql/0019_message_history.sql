-- Engine: all. Runs in a transaction. What a message said before it was edited, and search that goes on behind a page.

CREATE TABLE telegram.message_history (
  channel_id bigint NOT NULL,
  message_id bigint NOT NULL,
  version bigint NOT NULL,
  message_date timestamptz NOT NULL,
  message_type text NOT NULL,
  text text NOT NULL,
  entities jsonb,
  media jsonb,
  link_preview jsonb,
  edit_date timestamptz,
  received_at timestamptz NOT NULL,
  replaced_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (message_id, channel_id, version)
);

COMMENT ON TABLE telegram.message_history IS 'versions of messages that an edit has replaced; goes with its message';

-- A row, not a set: hypertables know no transition tables, and edits are few.
CREATE FUNCTION telegram.keep_version() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog
AS $$
BEGIN
  INSERT INTO telegram.message_history (
    channel_id, message_id, version, message_date, message_type, text, entities, media, link_preview, edit_date, received_at
  ) VALUES (
    OLD.channel_id, OLD.message_id, OLD.version, OLD.message_date, OLD.message_type, OLD.text, OLD.entities, OLD.media,
    OLD.link_preview, OLD.edit_date, OLD.received_at
  ) ON CONFLICT DO NOTHING;
  RETURN NULL;
END
$$;

CREATE TRIGGER keep_version AFTER UPDATE ON telegram.messages
FOR EACH ROW WHEN (OLD.version <> NEW.version) EXECUTE FUNCTION telegram.keep_version();

-- As before, and behind a message: of several with one date those with a lower number, then of a lower channel.
DROP FUNCTION telegram.search_messages(text, integer, bigint, timestamptz);

-- Messages with these words (as in a web search: compra "alvo 1" -stop), the newest first, without deleted ones.
CREATE FUNCTION telegram.search_messages(
  words text,
  max_rows integer DEFAULT 50,
  only_channel bigint DEFAULT NULL,
  before timestamptz DEFAULT 'infinity',
  before_message bigint DEFAULT 0,
  before_channel bigint DEFAULT 0
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
    WHERE k.arrival >= begin_at AND (only_channel IS NULL OR k.channel_id = only_channel)
      AND (k.message_date, k.message_id, k.channel_id) < (before, before_message, before_channel)
  ), found AS (
    SELECT s.channel_id, s.message_id, s.message_date FROM telegram.message_search AS s
    WHERE s.vector @@ query AND (only_channel IS NULL OR s.channel_id = only_channel)
      AND (s.message_date, s.message_id, s.channel_id) < (before, before_message, before_channel)
      AND NOT EXISTS (SELECT FROM telegram.tombstones AS t WHERE t.channel_id = s.channel_id AND t.message_id = s.message_id)
      AND NOT EXISTS (SELECT FROM new_ones AS n WHERE n.channel_id = s.channel_id AND n.message_id = s.message_id)
    ORDER BY s.message_date DESC, s.message_id DESC, s.channel_id DESC
    LIMIT max_rows
  )
  SELECT m.* FROM (SELECT * FROM found UNION ALL SELECT * FROM new_ones) AS f
  JOIN telegram.messages AS m
    ON m.channel_id = f.channel_id AND m.message_id = f.message_id AND m.message_date = f.message_date
  WHERE m.deleted_at IS NULL AND telegram.search_vector(m.text) @@ query
  ORDER BY m.message_date DESC, m.message_id DESC, m.channel_id DESC
  LIMIT max_rows;
END
$$;

GRANT SELECT ON telegram.message_history TO telegram_api;
