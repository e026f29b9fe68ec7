-- Run once as telegram_owner. The worker's role gets what the handler does, nothing more.
CREATE SCHEMA keywords;
CREATE TABLE keywords.hits (
  channel_id bigint NOT NULL,
  message_id bigint NOT NULL,
  version bigint NOT NULL,
  words text[] NOT NULL,
  PRIMARY KEY (channel_id, message_id)
);
GRANT USAGE ON SCHEMA keywords TO telegram_worker;
GRANT SELECT, INSERT, UPDATE ON keywords.hits TO telegram_worker;
