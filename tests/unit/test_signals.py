"""The signal parser: what it reads, what it refuses and why."""

# ruff: noqa: RUF001 - channels write their ranges with dashes

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telegram_stack.worker.signals import NoSignal, Signal, parse

WHOLE = """ATIVO: PETR4
COMPRA: 28,50 a 29,10
ALVO 1: 30,20
ALVO 2: 31,75
ALVO FINAL: 33,00
STOP: 27,40"""


def signal(text: str) -> Signal:
    """The signal in `text`, or a failure that says why there is none."""
    found = parse(text)
    assert isinstance(found, Signal), found
    return found


@pytest.mark.requirement("WK-04")
def test_reads_every_field() -> None:
    assert parse(WHOLE) == Signal(
        asset="PETR4",
        buy_min=Decimal("28.50"),
        buy_max=Decimal("29.10"),
        target_1=Decimal("30.20"),
        target_2=Decimal("31.75"),
        target_final=Decimal("33.00"),
        stop=Decimal("27.40"),
        signal_type="Swing Trade",
    )


@pytest.mark.parametrize("separator", [" a ", " ate ", " até ", " A ", " ATÉ ", "-", " - ", "–", " – ", " ate\u0301 "])
def test_ranges(separator: str) -> None:
    found = signal(f"ATIVO: VALE3\nCOMPRA: 60,10{separator}61,20")
    assert (found.buy_min, found.buy_max) == (Decimal("60.10"), Decimal("61.20"))


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("COMPRA: 28,50", "28.50", "28.50"),
        ("COMPRA: 28,50 a mercado", "28.50", "28.50"),
        ("COMPRA: 29,10 a 28,50", "28.50", "29.10"),
        ("Compra R$ 28,50 até R$ 29,10", "28.50", "29.10"),
        ("COMPRAR: R$28,50", "28.50", "28.50"),
        ("COMPRA PETR4: 28,50", "28.50", "28.50"),
        ("COMPRA: 1.234,56 a 1.240", "1234.56", "1240"),
        ("COMPRA: 1.234.567,89", "1234567.89", "1234567.89"),
        ("COMPRA: 120.500", "120500", "120500"),
        ("COMPRA: 28.50", "28.50", "28.50"),
        ("COMPRA: 28", "28", "28"),
        ("COMPRA - 28,50.", "28.50", "28.50"),
        ("🟢 **COMPRA:** 28,50 – 29,10", "28.50", "29.10"),
        ("COMPRA: 28,50-29,10 ALVO 1: 30 STOP: 27", "28.50", "29.10"),
    ],
)
def test_buying_prices(text: str, low: str, high: str) -> None:
    found = signal(f"ATIVO: PETR4\n{text}")
    assert (found.buy_min, found.buy_max) == (Decimal(low), Decimal(high))


@pytest.mark.parametrize(
    ("text", "asset"),
    [
        ("ATIVO: PETR4", "PETR4"),
        ("ativo: petr4", "PETR4"),
        ("Ativo - VALE3", "VALE3"),
        ("ATIVO PETR4", "PETR4"),
        ("*ATIVO:* PETR4", "PETR4"),
        ("ATIVO: #PETR4", "PETR4"),
        ("ATIVO: $PETR4", "PETR4"),
        ("ATIVO: WINFUT", "WINFUT"),
        ("ATIVO: BTC", "BTC"),
        ("ATIVO: Petrobras (PETR4)", "PETR4"),
        ("ATIVO: B3SA3", "B3SA3"),
        ("ATIVO: PETR4F", "PETR4F"),
        ("ATIVO: PETRA295", "PETRA295"),
        ("🚀 PETR4 🚀", "PETR4"),
        ("Operação em AAPL34 hoje", "AAPL34"),
        ("WINZ25", "WINZ25"),
        ("ALVO1 rompido em ITUB4", "ITUB4"),
    ],
)
def test_assets(text: str, asset: str) -> None:
    assert signal(f"{text}\nCOMPRA: 10,00").asset == asset


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("ALVO 1: 30,20", "target_1", "30.20"),
        ("ALVO1: 30,20", "target_1", "30.20"),
        ("Alvo 1 - R$ 30,20 (5%)", "target_1", "30.20"),
        ("ALVO 1 30,20", "target_1", "30.20"),
        ("ALVO 2: 31", "target_2", "31"),
        ("ALVO FINAL: 33,00", "target_final", "33.00"),
        ("ALVO GERAL: 33,00", "target_final", "33.00"),
        ("alvo final 1.033,00", "target_final", "1033.00"),
        ("STOP: 27,40", "stop", "27.40"),
        ("STOP LOSS: 27,40", "stop", "27.40"),
        ("Stop abaixo de 27,40", "stop", "27.40"),
        ("STOP ALVO 1: 30,20", "stop", None),
        ("ALVO 12,50", "target_1", None),
        ("ALVO 1: 5%", "target_1", None),
        ("ALVO 1:\nSTOP: 27", "target_1", None),
        ("STOP: 1,234.56", "stop", None),
        ("STOP: 0,00", "stop", None),
        ("STOPPER: 3", "stop", None),
    ],
)
def test_targets_and_stop(text: str, field: str, value: str | None) -> None:
    found = signal(f"ATIVO: PETR4\nCOMPRA: 28,50\n{text}")
    assert getattr(found, field) == (None if value is None else Decimal(value))


def test_target_and_stop_are_enough() -> None:
    assert parse("ATIVO: PETR4\nALVO FINAL: 33,00\nSTOP: 27,40") == Signal(
        asset="PETR4", target_final=Decimal("33.00"), stop=Decimal("27.40")
    )


@pytest.mark.requirement("WK-04")
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no text"),
        (" \n\t", "no text"),
        ("Bom dia a todos!", "no asset"),
        ("COMPRA: 28,50\nSTOP: 27,40", "no asset"),
        ("COMPRA2: 28,50 ALVO1 STOP1", "no asset"),
        ("PETR4 subiu 3% ontem", "no buying price and no stop"),
        ("ATIVO: PETR4\nALVO 1: 30,20", "no buying price and no stop"),
        ("ATIVO: PETR4\nSTOP: 27,40", "no buying price and no target"),
        ("ATIVO: PETR4\nCOMPRA: a definir", "no buying price and no stop"),
        ("ATIVO: PETR4\nCOMPRA: 0", "no buying price and no stop"),
    ],
)
def test_refuses_with_a_reason(text: str, reason: str) -> None:
    assert parse(text) == NoSignal(reason)


@given(st.text(max_size=4096))
def test_never_raises(text: str) -> None:
    found = parse(text)
    assert isinstance(found, Signal) or re.fullmatch(r"[a-z ]+", found.reason)


PRICES = st.decimals(min_value=Decimal("0.01"), max_value=Decimal("9999999.99"), places=2)


def brazilian(price: Decimal, *, thousands: bool) -> str:
    """`price` as a Brazilian writes it."""
    text = f"{price:,.2f}" if thousands else f"{price:.2f}"
    return text.translate(str.maketrans(",.", ".,"))


@given(st.tuples(PRICES, PRICES, PRICES, PRICES), st.booleans(), st.sampled_from([" a ", " até ", "-", " – "]))
def test_reads_back_what_was_written(prices: tuple[Decimal, ...], thousands: bool, separator: str) -> None:
    buy, other, target, stop = prices
    numbers = [brazilian(price, thousands=thousands) for price in prices]
    text = f"ATIVO: PETR4\nCOMPRA: {numbers[0]}{separator}{numbers[1]}\nALVO 2: {numbers[2]}\nSTOP: {numbers[3]}"
    assert parse(text) == Signal(
        asset="PETR4", buy_min=min(buy, other), buy_max=max(buy, other), target_2=target, stop=stop
    )
