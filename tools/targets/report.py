"""What the user sees while waiting."""

import sys


def say(sentence: str) -> None:
    """One line about progress; results alone go to standard output."""
    print(sentence, file=sys.stderr, flush=True)
