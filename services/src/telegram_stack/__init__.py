"""Telegram hybrid stack: the services that the collection tradingsystem.telegram_stack installs."""
