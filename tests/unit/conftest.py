"""Fixtures that several files share."""

from tests.unit.simulators import empty_state, telegram

__all__ = ["empty_state", "telegram"]
