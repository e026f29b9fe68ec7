-- Engine: all. Runs in a transaction. Each service may do what it does, nothing more; nobody but the owner may delete.

DO $$
BEGIN
  EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
  EXECUTE format(
    'GRANT CONNECT ON DATABASE %I'
    ' TO telegram_ingest, telegram_api, telegram_worker, telegram_exporter, pgbouncer_lookup',
    current_database()
  );
END
$$;

GRANT USAGE ON SCHEMA telegram TO telegram_ingest, telegram_api, telegram_worker, telegram_exporter;
GRANT SELECT ON telegram.settings, telegram.schema_migrations
  TO telegram_ingest, telegram_api, telegram_worker, telegram_exporter;

-- The gateway stores what Telegram says.
GRANT SELECT, INSERT, UPDATE
  ON telegram.channels, telegram.messages, telegram.message_keys, telegram.tombstones, telegram.link_previews, telegram.leases
  TO telegram_ingest;
GRANT SELECT, INSERT ON telegram.failures TO telegram_ingest;

-- The API reads everything, keeps the channel registry, marks messages and replays failures.
GRANT SELECT ON ALL TABLES IN SCHEMA telegram TO telegram_api;
GRANT INSERT, UPDATE ON telegram.channels, telegram.processing, telegram.positions, telegram.tombstones TO telegram_api;
GRANT UPDATE (deleted_at, metadata) ON telegram.messages TO telegram_api;
GRANT UPDATE (arrival, deleted_at) ON telegram.message_keys TO telegram_api;
GRANT UPDATE (replayed_at) ON telegram.failures TO telegram_api;

-- The worker reads messages and records what it made of them.
GRANT SELECT ON telegram.channels, telegram.messages, telegram.message_keys, telegram.tombstones TO telegram_worker;
GRANT SELECT, INSERT, UPDATE ON telegram.processing, telegram.positions, telegram.signals, telegram.failures TO telegram_worker;

-- The exporter counts; it does not read what was written.
GRANT SELECT ON telegram.channels, telegram.processing, telegram.message_keys, telegram.maintenance_runs TO telegram_exporter;
GRANT SELECT ON telegram.maintenance_status TO telegram_exporter;
GRANT SELECT (channel_id, message_id, message_date, message_type, received_at, stored_at, deleted_at)
  ON telegram.messages TO telegram_exporter;
GRANT SELECT (id, consumer, channel_id, created_at, replayed_at) ON telegram.failures TO telegram_exporter;
GRANT SELECT ON telegram.message_processing_stats, telegram.channel_health_summary, telegram.performance_metrics_realtime
  TO telegram_exporter;
GRANT SELECT ON telegram.messages_hourly, telegram.messages_daily, telegram.delivery_hourly TO telegram_exporter;

-- A legacy SQL client comes as the worker: it reads what was written, and sets status and metadata (its trigger does the rest).
GRANT USAGE ON SCHEMA telegram_gateway TO telegram_api, telegram_worker;
GRANT SELECT ON telegram_gateway.messages, telegram_gateway.channels TO telegram_api, telegram_worker;
GRANT UPDATE (
  status, metadata, published_at, failed_at, queued_at, reprocess_requested_at, reprocessed_at, updated_at, deleted_at
) ON telegram_gateway.messages TO telegram_worker;

-- Behind the grants: TimescaleDB cannot hand grants of single columns on to a hypertable that compresses.
CALL telegram.adopt_engine();
