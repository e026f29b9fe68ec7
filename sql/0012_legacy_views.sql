-- Engine: all. Runs in a transaction. The legacy tables' columns (their shape A) for SQL clients, which change nothing but
-- their connection string: they poll `status = 'received'` and set `status` and `metadata`.

CREATE SCHEMA telegram_gateway AUTHORIZATION telegram_owner;

-- `status`, its times and half of `metadata` are what the consumer of setting `status_consumer` made of the message.
CREATE VIEW telegram_gateway.messages AS
SELECT
  telegram.row_id(k.channel_id, k.message_id) AS id,
  k.channel_id::text AS channel_id,
  k.message_id,
  m.topic_id AS thread_id,
  m.source,
  m.message_type,
  m.text,
  CASE WHEN m.media IS NOT NULL THEN m.text END AS caption,
  m.media ->> 'type' AS media_type,
  CASE
    WHEN m.media IS NULL THEN '[]' ELSE coalesce(m.media -> 'refs', jsonb_build_array(m.media - 'access_hash'))
  END AS media_refs,
  CASE WHEN m.deleted_at IS NOT NULL THEN 'deleted' ELSE coalesce(p.status, 'received') END AS status,
  m.received_at,
  m.message_date AS telegram_date,
  CASE WHEN p.status = 'published' THEN p.updated_at END AS published_at,
  CASE WHEN p.status = 'failed' THEN p.updated_at END AS failed_at,
  CASE WHEN p.status = 'queued' THEN p.updated_at END AS queued_at,
  CASE WHEN p.status = 'reprocess_pending' THEN p.updated_at END AS reprocess_requested_at,
  CASE WHEN p.status = 'reprocessed' THEN p.updated_at END AS reprocessed_at,
  jsonb_strip_nulls(jsonb_build_object(
    'linkPreview', m.link_preview,
    'telegram', jsonb_build_object('chatId', k.channel_id::text, 'threadId', m.topic_id, 'messageType', m.message_type),
    'replyTo', CASE WHEN m.reply_to IS NOT NULL THEN jsonb_build_object('messageId', m.reply_to -> 'message_id') END,
    'photo', CASE WHEN m.media ->> 'type' = 'photo' THEN jsonb_build_object(
      'channelId', k.channel_id::text, 'messageId', k.message_id, 'photoId', m.media ->> 'id'
    ) END
  )) || m.metadata || coalesce(p.metadata, '{}') AS metadata,
  m.stored_at AS created_at,
  greatest(m.stored_at, p.updated_at, m.deleted_at) AS updated_at,
  m.deleted_at
FROM telegram.message_keys AS k
JOIN telegram.messages AS m
  ON m.channel_id = k.channel_id AND m.message_id = k.message_id AND m.message_date = k.message_date
LEFT JOIN telegram.processing AS p
  ON p.consumer = (SELECT value FROM telegram.settings WHERE name = 'status_consumer')
  AND p.channel_id = k.channel_id AND p.message_id = k.message_id;

-- Times that follow from the status may be set and are ignored; anything else belongs to Telegram and is refused.
CREATE FUNCTION telegram.update_legacy_message() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog
AS $$
DECLARE
  free_columns CONSTANT text[] := '{status,metadata,published_at,failed_at,queued_at,reprocess_requested_at,reprocessed_at,updated_at,deleted_at}';
  consumer_name CONSTANT text := telegram.setting('status_consumer');
  old_metadata CONSTANT jsonb := coalesce(OLD.metadata, '{}');
  new_metadata CONSTANT jsonb := coalesce(NEW.metadata, '{}');
BEGIN
  IF to_jsonb(NEW) - free_columns IS DISTINCT FROM to_jsonb(OLD) - free_columns THEN
    RAISE EXCEPTION 'only status and metadata of telegram_gateway.messages can be changed' USING ERRCODE = 'feature_not_supported';
  END IF;
  IF (NEW.status = 'deleted' OR NEW.deleted_at IS NOT NULL) AND OLD.deleted_at IS NULL THEN
    PERFORM telegram.mark_messages_deleted(
      ARRAY[OLD.channel_id::bigint], ARRAY[OLD.message_id], ARRAY[coalesce(NEW.deleted_at, now())]
    );
  END IF;
  IF NEW.status IS DISTINCT FROM OLD.status AND NEW.status <> 'deleted' OR new_metadata <> old_metadata THEN
    PERFORM telegram.upsert_message_status(
      consumer_name, OLD.channel_id::bigint, OLD.message_id,
      CASE WHEN NEW.status = 'deleted' THEN OLD.status ELSE NEW.status END,
      (SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM jsonb_each(new_metadata) WHERE old_metadata -> key IS DISTINCT FROM value)
    );
    UPDATE telegram.processing AS p
    SET metadata = p.metadata - ARRAY(SELECT jsonb_object_keys(old_metadata) EXCEPT SELECT jsonb_object_keys(new_metadata))
    WHERE p.consumer = consumer_name AND p.channel_id = OLD.channel_id::bigint AND p.message_id = OLD.message_id
      AND NOT new_metadata ?& ARRAY(SELECT jsonb_object_keys(old_metadata));
  END IF;
  RETURN NEW;
END
$$;

CREATE TRIGGER status_and_metadata INSTEAD OF UPDATE ON telegram_gateway.messages
FOR EACH ROW EXECUTE FUNCTION telegram.update_legacy_message();

-- Simple enough for the server to insert and update through it.
CREATE VIEW telegram_gateway.channels AS
SELECT
  channel_id AS id, channel_id, label, description, title, is_active, created_at, updated_at, NULL::timestamptz AS last_sync_at
FROM telegram.channels;
