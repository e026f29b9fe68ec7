"""The spool: every event is on disk here before anything else happens to it."""

from telegram_stack.spool.file import begin_anew
from telegram_stack.spool.records import Channel, Entry, SpoolError, SpoolFullError
from telegram_stack.spool.spool import Spool

__all__ = ["Channel", "Entry", "Spool", "SpoolError", "SpoolFullError", "begin_anew"]
