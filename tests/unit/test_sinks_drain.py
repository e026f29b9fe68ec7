"""The loop that feeds a sink: what fails comes again, what is refused goes aside, the cursor follows only then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

import pytest
from tests.unit.test_spool import event

from telegram_stack import events
from telegram_stack.sinks.base import RejectedEventsError, SinkUnavailableError, drain, latest
from telegram_stack.spool import Entry

Act = Callable[[list[Entry]], None]


class ListSpool:
    """A spool in memory; the drain ends when it is empty."""

    def __init__(self, *batches: list[Entry]) -> None:
        self._batches = batches
        self.log: list[tuple[str, object]] = []

    async def batches(self, sink: str, limit: int) -> AsyncIterator[list[Entry]]:
        for batch in self._batches:
            yield batch

    def advance(self, sink: str, seq: int) -> None:
        self.log.append(("advance", seq))

    async def quarantine(self, sink: str, entries: Iterable[Entry], reason: str) -> None:
        self.log.append(("quarantine", [entry.seq for entry in entries]))


class Commanded:
    """A sink that does what the next command says, then writes."""

    name = "database"

    def __init__(self, spool: ListSpool, *commands: Act) -> None:
        self._spool = spool
        self._commands = list(commands)
        self.written: list[int] = []

    async def write(self, batch: Sequence[Entry]) -> None:
        if self._commands:
            self._commands.pop(0)(list(batch))
        self.written += [entry.seq for entry in batch]
        self._spool.log.append(("write", [entry.seq for entry in batch]))

    async def close(self) -> None:
        pass


class Notes:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.reasons: list[str] = []

    def written(self, sink: str, entries: Sequence[Entry]) -> None:
        self.done += [entry.seq for entry in entries]

    def unavailable(self, sink: str, reason: str) -> None:
        self.reasons.append(reason)

    def rejected(self, sink: str, entries: Sequence[Entry], reason: str) -> None:
        self.reasons.append(reason)


def batch(*numbers: int) -> list[Entry]:
    return [Entry(number, event(number), events.encode(event(number)), 0.0) for number in numbers]


def unavailable(_batch: list[Entry]) -> None:
    raise SinkUnavailableError("away")


def half(entries: list[Entry]) -> None:
    raise SinkUnavailableError("cut", entries[len(entries) // 2 :])


def refuse(*numbers: int, tried: int) -> Act:
    def act(entries: list[Entry]) -> None:
        refused = [entry for entry in entries if entry.seq in numbers]
        raise RejectedEventsError("bad", refused, entries[tried:])

    return act


async def run(spool: ListSpool, *commands: Act) -> tuple[Commanded, Notes, list[float]]:
    sink, notes, slept = Commanded(spool, *commands), Notes(), []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    await drain(sink, spool, notes, sleep=sleep)
    return sink, notes, slept


async def test_batches_are_written_in_order_and_the_cursor_follows() -> None:
    spool = ListSpool(batch(1, 2), batch(3))
    _, notes, slept = await run(spool)
    assert spool.log == [("write", [1, 2]), ("advance", 2), ("write", [3]), ("advance", 3)]
    assert (notes.done, slept) == ([1, 2, 3], [])


@pytest.mark.requirement("GW-05")
async def test_the_cursor_waits_for_a_sink_that_is_away() -> None:
    spool = ListSpool(batch(1, 2))
    _, notes, slept = await run(spool, unavailable, unavailable, unavailable)
    assert spool.log == [("write", [1, 2]), ("advance", 2)]
    assert notes.reasons == ["away"] * 3
    assert slept[0] < slept[1] < slept[2]


async def test_only_what_was_not_accepted_comes_again() -> None:
    spool = ListSpool(batch(1, 2, 3, 4))
    sink, notes, _ = await run(spool, half)
    assert sink.written == [3, 4]
    assert notes.done == [1, 2, 3, 4]
    assert spool.log[-1] == ("advance", 4)


async def test_what_is_refused_goes_into_quarantine_before_the_cursor_passes_it() -> None:
    spool = ListSpool(batch(1, 2, 3, 4))
    sink, notes, _ = await run(spool, refuse(2, tried=2))
    assert spool.log == [("quarantine", [2]), ("write", [3, 4]), ("advance", 4)]
    assert sink.written == [3, 4]
    assert notes.done == [1, 3, 4]


async def test_a_batch_may_be_refused_as_a_whole() -> None:
    spool = ListSpool(batch(1), batch(2))
    await run(spool, refuse(1, tried=1))
    assert spool.log == [("quarantine", [1]), ("advance", 1), ("write", [2]), ("advance", 2)]


async def test_delays_begin_anew_after_a_success() -> None:
    spool = ListSpool(batch(1), batch(2))

    def works(_batch: list[Entry]) -> None:
        pass

    _, _, slept = await run(spool, *[unavailable] * 6, works, unavailable)
    assert slept[-1] <= 0.1 < slept[-2]


async def test_an_unforeseen_error_ends_the_drain_and_keeps_the_cursor() -> None:
    def fail(_batch: list[Entry]) -> None:
        raise KeyError("defect")

    spool = ListSpool(batch(1))
    with pytest.raises(KeyError):
        await run(spool, fail)
    assert spool.log == []


async def test_a_cancel_keeps_the_cursor() -> None:
    class Stuck(Commanded):
        async def write(self, batch: Sequence[Entry]) -> None:
            begun.set()
            await asyncio.Event().wait()

    begun, spool = asyncio.Event(), ListSpool(batch(1))
    draining = asyncio.create_task(drain(Stuck(spool), spool, Notes()))
    await begun.wait()
    draining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await draining
    assert spool.log == []


@pytest.mark.requirement("GW-05")
async def test_several_batches_are_on_their_way_and_the_cursor_follows_the_first_that_is_not_done() -> None:
    class Slow(Commanded):
        """Writes the first batch last."""

        def __init__(self, spool: ListSpool) -> None:
            super().__init__(spool)
            self.begun: list[int] = []
            self.others = asyncio.Event()

        async def write(self, batch: Sequence[Entry]) -> None:
            self.begun.append(batch[0].seq)
            if batch[0].seq == 1:
                await self.others.wait()
            await super().write(batch)
            if batch[0].seq == 3:
                self.others.set()

    spool = ListSpool(batch(1), batch(2), batch(3), batch(4))
    sink, notes = Slow(spool), Notes()
    await drain(sink, spool, notes, window=3)
    assert sink.begun == [1, 2, 3, 4]
    assert notes.done == [2, 3, 1, 4], "the fourth waits for a place"
    advances = [seq for what, seq in spool.log if what == "advance"]
    assert advances == [1, 2, 3, 4]
    assert spool.log.index(("advance", 1)) > spool.log.index(("write", [3]))


@pytest.mark.requirement("GW-05")
async def test_what_fails_on_its_way_comes_again_before_those_behind_it() -> None:
    class Away(Commanded):
        """Away until the third batch has been tried in vain, too."""

        async def write(self, batch: Sequence[Entry]) -> None:
            tried.append(batch[0].seq)
            await asyncio.sleep(0)
            if len(tried) <= 3:
                raise SinkUnavailableError("away")
            await super().write(batch)

    async def longest_for_the_first(_seconds: float) -> None:
        pauses.append(asyncio.Event())
        if len(pauses) == 3:
            for pause in reversed(pauses):
                pause.set()
        await pauses[-1].wait()

    tried: list[int] = []
    pauses: list[asyncio.Event] = []
    spool = ListSpool(*(batch(number) for number in range(1, 7)))
    sink, notes = Away(spool), Notes()
    await drain(sink, spool, notes, window=3, sleep=longest_for_the_first)
    assert tried == [1, 2, 3, 1, 2, 3, 4, 5, 6]
    assert sink.written == [1, 2, 3, 4, 5, 6]
    assert notes.reasons == ["away"] * 3


async def test_an_error_ends_the_drain_though_others_are_on_their_way() -> None:
    class Defect(Commanded):
        async def write(self, batch: Sequence[Entry]) -> None:
            if batch[0].seq == 2:
                raise KeyError("defect")
            await asyncio.Event().wait()

    spool = ListSpool(batch(1), batch(2), batch(3))
    with pytest.raises(KeyError):
        await drain(Defect(spool), spool, Notes(), window=3)
    assert spool.log == []


def test_latest_takes_one_state_a_message_sorted_by_key() -> None:
    first, second = event(2, "a"), event(2, "b")
    newer = max(first, second, key=lambda state: state.version)
    found = latest([Entry(number, state, b"", 0.0) for number, state in enumerate([first, second, event(1)])])
    assert [entry.event for entry in found] == [event(1), newer]


async def test_a_flood_is_paced_and_a_full_batch_is_not() -> None:
    batches = [batch(number) for number in range(1, 40)]
    spool = ListSpool(*batches, batch(100, 101))
    sink = Commanded(spool)
    pauses: list[float] = []

    async def rest(seconds: float) -> None:
        pauses.append(seconds)

    await drain(sink, spool, Notes(), batch_size=2, linger=0.02, sleep=rest)
    assert len(pauses) == len(batches)  # after each but the full one
    assert 0 < pauses[0] <= pauses[-1] <= 0.02


async def test_without_a_linger_nothing_rests() -> None:
    spool = ListSpool(batch(1), batch(2))

    async def rest(_seconds: float) -> None:
        raise AssertionError("rested")

    await drain(Commanded(spool), spool, Notes(), sleep=rest)


@pytest.mark.requirement("GW-05")
async def test_however_long_a_sink_was_away_it_is_tried_again_within_two_seconds() -> None:
    _, notes, slept = await run(ListSpool(batch(1)), *[unavailable] * 20)
    assert len(slept) == len(notes.reasons) == 20
    assert slept[0] <= 0.1
    assert 1.0 <= slept[-1] <= 2.0
    assert max(slept) <= 2.0
