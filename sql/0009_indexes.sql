-- Engine: all. Runs in a transaction. Every index beside the primary keys, with the query it serves.
-- tests/integration/test_sql_indexes.py proves each by its plan and refuses one that is not in its list.

-- Serves: newest messages of all channels (API, `ORDER BY message_date DESC, message_id DESC LIMIT …`), and
-- one hour of all channels (roll-ups, `WHERE message_date >= … AND message_date < …`).
CREATE INDEX messages_newest ON telegram.messages (message_date DESC, message_id DESC);

-- Serves, without its table: what came since (polls and roll-ups, `WHERE arrival >= … ORDER BY arrival, channel_id, message_id`).
CREATE INDEX message_keys_arrival ON telegram.message_keys (arrival, channel_id, message_id) INCLUDE (message_date, version);

-- Serves, without its table: how many messages a channel has (API, `count(*) … WHERE channel_id = … AND deleted_at IS NULL`).
-- Few values, so that it takes 7 bytes a message.
CREATE INDEX message_keys_counted ON telegram.message_keys (channel_id, deleted_at);

-- Serves: a message by its row id (legacy clients, `UPDATE telegram_gateway.messages … WHERE id = …`).
CREATE INDEX message_keys_row_id ON telegram.message_keys (telegram.row_id(channel_id, message_id));

-- Serves: a channel whose id is a text, as it was (legacy clients, `FROM telegram_gateway.messages WHERE channel_id = '-100…'`).
CREATE INDEX message_keys_legacy_channel ON telegram.message_keys ((channel_id::text));

-- Serves: full-text search (API, telegram.search_messages: `WHERE vector @@ telegram.search_query(…)`).
CREATE INDEX message_search_vector ON telegram.message_search USING gin (vector);

-- Serves: what waits by its state (polls, `WHERE consumer = … AND status IN (…)`). Finished states are not in it, so that
-- the common way (one row, written once as published) never touches it.
CREATE INDEX processing_waiting ON telegram.processing (consumer, channel_id, message_id)
WHERE status IN ('received', 'retrying', 'queued', 'failed', 'reprocess_pending');

-- Serves: what was first handled since (delivery figures and statistics, `WHERE created_at >= …`). The column never changes
-- and rows come in its order, so that a few pages do for millions of rows.
CREATE INDEX processing_created ON telegram.processing USING brin (created_at) WITH (pages_per_range = 16);

-- Serves: failures that wait for a replay, by consumer (`WHERE consumer = … AND replayed_at IS NULL ORDER BY id`).
CREATE INDEX failures_waiting ON telegram.failures (consumer, id) WHERE replayed_at IS NULL;

-- Serves: the legacy rows of a message (take-over of duplicates, `WHERE channel_id = … AND message_id = …`; retention).
CREATE INDEX legacy_ids_message ON telegram.legacy_ids (message_id, channel_id) INCLUDE (created_at);
