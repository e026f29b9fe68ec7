-- Engine: all. Runs in a transaction, as the role that logs in: what only a superuser may do.
-- run-as: login

-- PgBouncer asks for a client's SCRAM verifier with this function. Superusers are never answered: they have no business in a pool.
CREATE SCHEMA pgbouncer;

CREATE FUNCTION pgbouncer.user_lookup(name text)
RETURNS TABLE (username text, password text)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog
AS $$
  SELECT s.usename::text, s.passwd
  FROM pg_shadow AS s
  WHERE s.usename = name AND NOT s.usesuper AND (s.valuntil IS NULL OR s.valuntil > now())
$$;

REVOKE ALL ON FUNCTION pgbouncer.user_lookup(text) FROM PUBLIC;
GRANT USAGE ON SCHEMA pgbouncer TO pgbouncer_lookup;
GRANT EXECUTE ON FUNCTION pgbouncer.user_lookup(text) TO pgbouncer_lookup;

-- The exporter reads the server's statistics, those of each statement too.
GRANT pg_monitor TO telegram_exporter;
CREATE EXTENSION pg_stat_statements;
