"""A Telegram of our own: an MTProto server that an unmodified Telethon client talks to."""
