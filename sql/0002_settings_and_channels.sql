-- Engine: all. Runs in a transaction.

-- What was decided or found out when the database was made; `engine` is set by the storage file.
CREATE TABLE telegram.settings (
  name text PRIMARY KEY,
  value text NOT NULL
);

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
