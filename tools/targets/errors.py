"""What this tool says when it cannot do what it was asked."""

from collections.abc import Sequence


class TargetError(Exception):
    """One sentence: what failed, on what, why, and the command that helps."""

    exit_code = 1


class UnfitMachineError(TargetError):
    """This machine cannot run targets; each line names one thing it lacks and how to get it."""

    exit_code = 3

    def __init__(self, lacks: Sequence[str]) -> None:
        super().__init__("\n".join(lacks))
        self.lacks = tuple(lacks)
