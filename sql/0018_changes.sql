-- Engine: all. Runs in a transaction. How the API knows, without asking for them again, that messages are as they were.
--
-- `message_keys.arrival` tells what came, was edited or deleted since a snapshot; this tells the same of the consumers'
-- marks. A row a channel and transaction: rows of the same channel written by several transactions would wait for each other.

CREATE TABLE telegram.marked_channels (
  arrival xid8 NOT NULL,
  channel_id bigint NOT NULL,
  PRIMARY KEY (arrival, channel_id)
);

COMMENT ON TABLE telegram.marked_channels IS 'channels in which a state was set, by transaction; maintenance removes old ones';

CREATE FUNCTION telegram.note_marks() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog
AS $$
BEGIN
  INSERT INTO telegram.marked_channels (arrival, channel_id)
  SELECT DISTINCT pg_current_xact_id(), channel_id FROM changed
  ON CONFLICT DO NOTHING;
  RETURN NULL;
END
$$;

CREATE TRIGGER note_insert AFTER INSERT ON telegram.processing REFERENCING NEW TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION telegram.note_marks();

CREATE TRIGGER note_update AFTER UPDATE ON telegram.processing REFERENCING NEW TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION telegram.note_marks();

CREATE TRIGGER note_delete AFTER DELETE ON telegram.processing REFERENCING OLD TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION telegram.note_marks();

-- Whether the messages of these channels (NULL: of all) and their states are as a query at snapshot `since` saw them.
-- Looks at 2,000 rows at most; false where there are more, or where marks from then on are no longer kept. A snapshot of
-- another server, or of before a restart, is for the caller to refuse.
CREATE FUNCTION telegram.unchanged_since(since pg_snapshot, channels bigint[] DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
  begin_at CONSTANT xid8 := pg_snapshot_xmin(since);
BEGIN
  RETURN (
    SELECT begin_at >= telegram.position_of('marks') AND count(*) <= 2000 AND NOT coalesce(bool_or(
      (channels IS NULL OR channel_id = ANY (channels)) AND NOT pg_visible_in_snapshot(arrival, since)
    ), false)
    FROM (
      SELECT * FROM (
        SELECT arrival, channel_id FROM telegram.message_keys
        WHERE arrival >= begin_at ORDER BY arrival, channel_id, message_id LIMIT 2001
      ) AS messages
      UNION ALL
      SELECT * FROM (
        SELECT arrival, channel_id FROM telegram.marked_channels
        WHERE arrival >= begin_at ORDER BY arrival, channel_id LIMIT 2001
      ) AS marks
    ) AS lately
  );
END
$$;

-- A database that was restored on another server holds transaction numbers that are still to come here.
CREATE OR REPLACE FUNCTION telegram.maintain_arrivals(OUT detail text, OUT backlog bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $$
DECLARE
  next_one CONSTANT xid8 := pg_snapshot_xmax(pg_current_snapshot());
  oldest CONSTANT xid8 := pg_snapshot_xmin(pg_current_snapshot());
  renewed bigint;
BEGIN
  DELETE FROM telegram.positions WHERE position > next_one;
  UPDATE telegram.message_keys SET arrival = pg_current_xact_id() WHERE arrival > next_one;
  GET DIAGNOSTICS renewed = ROW_COUNT;
  detail := format('%s arrivals renewed', renewed);
  backlog := 0;
  -- What is older than every transaction that runs goes; who asks about a snapshot from before that learns nothing.
  DELETE FROM telegram.marked_channels WHERE arrival < oldest OR arrival > next_one;
  INSERT INTO telegram.positions (reader, channel_id, position) VALUES ('marks', 0, oldest)
  ON CONFLICT (reader, channel_id) DO UPDATE SET position = excluded.position;
END
$$;

GRANT SELECT ON telegram.marked_channels TO telegram_api;
