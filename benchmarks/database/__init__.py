"""The database against the legacy schema, in one run on one server with the same settings."""
