-- Engine: all. Runs in a transaction.

-- What an operator decided, or what was found out when the database was made (`engine`, by the storage file).
CREATE TABLE telegram.settings (
  name text PRIMARY KEY,
  value text NOT NULL,
  CONSTRAINT days_are_a_whole_number CHECK (name NOT LIKE '%\_days' OR value ~ '^[1-9][0-9]{0,4}$'),
  CONSTRAINT retention_is_on_or_off CHECK (name <> 'retention' OR value IN ('on', 'off'))
);

INSERT INTO telegram.settings (name, value) VALUES
  ('status_consumer', 'signals'),    -- whose processing state fills `status` in telegram_gateway.messages
  ('retention', 'on'),               -- off while a migration has not been finalized: old messages are not dropped
  ('retention_days', '90'),          -- counted from the message's date
  ('compress_after_days', '14'),     -- behind the edit window; engine timescale only
  ('partitions_ahead_days', '120'),  -- engine native only
  ('search_language', 'portuguese'); -- read only: CALL telegram.set_search_language('english') changes it

CREATE FUNCTION telegram.setting(setting_name text) RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog
AS $$
  SELECT value FROM telegram.settings WHERE name = setting_name
$$;

-- The start of the day from which on messages are kept. Whole days on every engine, so that whole chunks can go.
CREATE FUNCTION telegram.retention_cutoff(keep interval DEFAULT NULL) RETURNS timestamptz
LANGUAGE sql
STABLE
SET search_path = pg_catalog
AS $$
  SELECT date_trunc('day', now() - coalesce(keep, make_interval(days => telegram.setting('retention_days')::integer)), 'UTC')
$$;

CREATE TABLE telegram.channels (
  channel_id bigint PRIMARY KEY,
  title text,
  username text,
  label text,
  description text,
  is_active boolean NOT NULL DEFAULT true,
  last_message_id bigint,
  last_pts integer,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON COLUMN telegram.channels.channel_id IS 'Telegram''s marked id (-100…)';
COMMENT ON COLUMN telegram.channels.last_message_id IS 'gap recovery''s cursor: everything up to here is in the spool';
