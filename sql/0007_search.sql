-- Engine: all. Runs in a transaction. Full-text search in one language, that of setting `search_language`.
-- A query reads: WHERE telegram.search_vector(text) @@ telegram.search_query('compra "alvo 1" -stop').

-- Changes the language, also of what is stored: makes the index anew, which takes a while and keeps writers waiting.
CREATE PROCEDURE telegram.set_search_language(language text)
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $body$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_ts_config WHERE cfgnamespace = 'pg_catalog'::regnamespace AND cfgname = language) THEN
    RAISE EXCEPTION 'no text search configuration "%"; there are: %', language,
      (SELECT string_agg(cfgname, ', ' ORDER BY cfgname) FROM pg_ts_config WHERE cfgnamespace = 'pg_catalog'::regnamespace)
      USING ERRCODE = 'undefined_object';
  END IF;
  DROP INDEX IF EXISTS telegram.messages_search;
  -- Immutable, because what it depends on changes here only. Cut, because a tsvector holds 1 MB and a message may not fail.
  EXECUTE format($$
    CREATE OR REPLACE FUNCTION telegram.search_vector(content text) RETURNS tsvector
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $f$ SELECT pg_catalog.to_tsvector(%1$L::pg_catalog.regconfig, pg_catalog.left(content, 65536)) $f$
  $$, 'pg_catalog.' || quote_ident(language));
  EXECUTE format($$
    CREATE OR REPLACE FUNCTION telegram.search_query(words text) RETURNS tsquery
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $f$ SELECT pg_catalog.websearch_to_tsquery(%1$L::pg_catalog.regconfig, words) $f$
  $$, 'pg_catalog.' || quote_ident(language));
  -- Serves: full-text search (WHERE telegram.search_vector(text) @@ telegram.search_query(…)).
  CREATE INDEX messages_search ON telegram.messages USING gin (telegram.search_vector(text));
  UPDATE telegram.settings SET value = language WHERE name = 'search_language';
END
$body$;

CALL telegram.set_search_language('portuguese');
