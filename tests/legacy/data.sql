-- Fills the legacy tables from `said`, what the simulated Telegram has of each channel: the messages before it are made up,
-- and everything gets the defects that are known of real installs. What is made up follows from the message's number alone.
-- {channel_type}, {message_type}: the types of the shape. {days}: how far it all goes back. {apart}: between first ids.

CREATE TEMP TABLE telegram AS
WITH channels AS (
  SELECT
    channel_id,
    1 + {apart} * (row_number() OVER (ORDER BY channel_id DESC) - 1) AS first_id,
    min(message_id) AS first_recent,
    max(message_id) AS last_id,
    to_timestamp(min(sent_at)) AS begin
  FROM said GROUP BY channel_id
), given AS (
  SELECT channel_id, message_id, to_timestamp(sent_at) AS sent, text, photo = 1 AS photo, deleted = 1 AS deleted, true AS recent
  FROM said
  UNION ALL
  SELECT
    c.channel_id, m,
    c.begin - (c.first_recent - m) * (interval '{days} days' / (c.last_id - c.first_id + 1)),
    CASE
      WHEN m % 100 = 0 THEN ''
      WHEN m % 2 = 0 THEN format(
        E'ATIVO: %s\nCOMPRA: 2%s,50 a 2%s,10\nALVO 1: 30,20\nALVO FINAL: 33,00\nSTOP: 19,40\n\nNº %s',
        (ARRAY['PETR4', 'VALE3', 'ITUB4', 'BBAS3'])[1 + m / 2 % 4], m % 9, m % 9 + 1, m
      )
      ELSE (ARRAY['Mercado lateral, paciência.', 'Live às 18h30.', 'Suba o stop para a entrada.'])[1 + m % 3] || E'\n\nNº ' || m
    END,
    m % 50 = 0, m % 97 = 0, false
  FROM channels AS c CROSS JOIN LATERAL generate_series(c.first_id, c.first_recent - 1) AS m
), newest AS (
  SELECT max(sent) AS newest FROM given
)
SELECT
  g.*,
  g.message_id AS m,
  g.text LIKE '%COMPRA%' AS signal,
  -- A part of the oldest history came by a sync, long after it was written.
  CASE
    WHEN g.sent < n.newest - interval '90 days' AND g.message_id % 3 = 0 THEN n.newest - interval '85 days'
    ELSE g.sent + interval '50 ms'
  END AS made_at,
  NOT g.recent AND g.message_id >= c.first_recent - 100 AND g.message_id % 89 = 0 AS queue_only,
  g.message_id % 53 = 0 OR g.deleted AND g.message_id % 2 = 0 AS twice,
  CASE
    WHEN g.deleted THEN 'deleted'
    WHEN g.message_id > c.last_id - 3 THEN 'received'
    WHEN g.message_id % 211 = 0 THEN 'queued'
    WHEN g.message_id % 223 = 0 THEN 'contaminated'
    WHEN g.message_id % 307 = 0 THEN 'failed'
    WHEN g.message_id % 311 = 0 THEN 'reprocess_pending'
    WHEN g.message_id % 313 = 0 THEN 'reprocessed'
    WHEN g.message_id % 317 = 0 THEN 'retrying'
    ELSE 'published'
  END AS state,
  n.newest
FROM given AS g JOIN channels AS c USING (channel_id) CROSS JOIN newest AS n;

-- The rows as the gateway inserted them and the consumer left them.
INSERT INTO telegram_gateway.messages (
  channel_id, message_id, thread_id, source, message_type, text, caption, media_type, media_refs, status, received_at,
  telegram_date, published_at, failed_at, queued_at, reprocess_requested_at, reprocessed_at, metadata, created_at, updated_at,
  deleted_at
)
SELECT
  CASE WHEN m % 61 = 0 THEN (-1000000000000 - channel_id)::text ELSE channel_id::text END::{channel_type},
  m::{message_type},
  CASE WHEN m % 67 = 0 THEN 7 END,
  CASE WHEN m % 101 = 0 THEN 'bot' WHEN m % 103 = 0 THEN 'unknown' ELSE 'user_client' END,
  'channel_post',
  CASE WHEN NOT photo THEN text || CASE WHEN m % 106 = 0 THEN ' (antes)' ELSE '' END END,
  CASE WHEN photo THEN text END,
  CASE WHEN photo THEN 'photo' WHEN m % 35 = 0 AND NOT recent THEN 'document' END,
  CASE WHEN photo THEN jsonb_build_array(jsonb_build_object('type', 'photo', 'fileId', m::text)) ELSE '[]' END,
  CASE state WHEN 'contaminated' THEN 'published' ELSE state END,
  CASE WHEN made_at > sent + interval '1 day' THEN sent ELSE made_at END,
  CASE WHEN m % 83 > 0 THEN sent END,
  CASE WHEN state IN ('published', 'contaminated') THEN sent + interval '5 s' END,
  CASE WHEN state = 'failed' THEN sent + interval '5 s' END,
  CASE WHEN state = 'queued' THEN sent + interval '1 s' END,
  CASE WHEN state IN ('reprocess_pending', 'reprocessed') THEN sent + interval '1 hour' END,
  CASE WHEN state = 'reprocessed' THEN sent + interval '2 hours' END,
  jsonb_strip_nulls(jsonb_build_object(
    'telegram', jsonb_build_object('chatId', channel_id::text, 'threadId', CASE WHEN m % 67 = 0 THEN 7 END, 'messageType', 'channel_post'),
    'photo', CASE WHEN photo THEN jsonb_build_object(
      'channelId', channel_id::text, 'messageId', m, 'photoId', ((-1000000000000 - channel_id) << 24 | m)::text, 'accessHash', (-m * 104729)::text
    ) END,
    'replyTo', CASE WHEN m % 29 = 0 THEN jsonb_build_object('messageId', m - 1, 'text', 'antes') END,
    'linkPreview', CASE WHEN m % 31 = 0 THEN jsonb_build_object(
      'type', (ARRAY['twitter', 'youtube', 'instagram', 'generic'])[1 + m % 4], 'url', 'https://example.org/' || m, 'title', 'Página'
    ) END,
    'sync', CASE WHEN made_at > sent + interval '1 day' THEN jsonb_build_object('syncedAt', made_at, 'reason', 'history') END
  ) || CASE
    WHEN state IN ('received', 'queued', 'contaminated', 'retrying') THEN '{{}}'
    WHEN signal THEN jsonb_build_object(
      'processed_by', 'tp-capital', 'processed_at', sent + interval '5 s', 'signal_asset', substring(text FROM 'ATIVO: (\w+)'),
      'error', CASE WHEN state = 'failed' THEN 'invalid price' END
    )
    ELSE jsonb_build_object(
      'processed_by', 'tp-capital', 'processed_at', sent + interval '5 s', 'ignored', true, 'reason', 'incomplete signal'
    )
  END),
  made_at, made_at,
  CASE WHEN deleted THEN sent + interval '30 min' END
FROM telegram WHERE NOT queue_only
ORDER BY sent;

-- The same messages once more, as syncs made them: with the text as it is now, and some deletions taken back.
INSERT INTO telegram_gateway.messages (
  channel_id, message_id, source, text, caption, media_type, status, received_at, telegram_date, metadata, created_at, updated_at
)
SELECT
  CASE WHEN m % 106 = 0 THEN (-1000000000000 - channel_id)::text ELSE channel_id::text END::{channel_type},
  m::{message_type}, 'user_client',
  CASE WHEN NOT photo THEN text END, CASE WHEN photo THEN text END, CASE WHEN photo THEN 'photo' END,
  'published', sent, sent,
  jsonb_build_object('sync', jsonb_build_object('syncedAt', again, 'reason', 'gap'), 'telegram', jsonb_build_object('chatId', channel_id::text)),
  again, again
FROM telegram CROSS JOIN LATERAL (
  SELECT made_at + CASE WHEN made_at < newest - interval '3 days' THEN interval '2 days' ELSE interval '2 min' END AS again
) AS a
WHERE twice AND NOT queue_only
ORDER BY sent;

INSERT INTO tp_capital.tp_capital_signals (
  channel, asset, buy_min, buy_max, target_1, target_final, stop, raw_message, source, ts, ingested_at, created_at
)
SELECT channel_id, substring(text FROM 'ATIVO: (\w+)'), 28.5, 29.1, 30.2, 33, 27.4, text, 'telegram',
  extract(epoch FROM sent)::bigint * 1000, sent + interval '5 s', sent + interval '5 s'
FROM (SELECT DISTINCT ON (channel_id, text) * FROM telegram ORDER BY channel_id, text, sent) AS t
WHERE signal AND state NOT IN ('received', 'queued', 'contaminated', 'retrying', 'failed') AND NOT queue_only
ORDER BY sent;
INSERT INTO tp_capital.tp_capital_signals (channel, asset, source, ts) VALUES ('__checkpoint__', '__checkpoint__', 'system', 0);

INSERT INTO telegram_gateway.channels (channel_id, {channel_title}, is_active)
SELECT channel_id, 'Canal ' || row_number() OVER (ORDER BY channel_id DESC), true FROM (SELECT DISTINCT channel_id FROM said) AS s
UNION ALL SELECT -1009999999999, 'Saiu', false;
