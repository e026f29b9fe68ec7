"""Trading signals in Portuguese channel posts: from text to numbers, nothing else.

A post such as::

    ATIVO: PETR4
    COMPRA: 28,50 a 29,10
    ALVO 1: 30,20
    ALVO FINAL: 33,00
    STOP: 27,40
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal

SIGNAL_TYPE = "Swing Trade"


@dataclass(frozen=True)
class Signal:
    """What a post asks to do. Prices are in the asset's currency; ``buy_min`` equals ``buy_max`` for a single price."""

    asset: str
    buy_min: Decimal | None = None
    buy_max: Decimal | None = None
    target_1: Decimal | None = None
    target_2: Decimal | None = None
    target_final: Decimal | None = None
    stop: Decimal | None = None
    signal_type: str = SIGNAL_TYPE


@dataclass(frozen=True)
class NoSignal:
    """The post is none; `reason` is a short sentence without any of its words."""

    reason: str


# 1.234,56 and 28,50 and 28.5; neither a part of a longer number (1,234.56) nor a percentage.
_PRICE = r"[0-9]{1,3}(?:\.[0-9]{3})+(?:,[0-9]+)?|[0-9]+(?:[.,][0-9]+)?"
_NUMBER = rf"(?<![0-9A-Za-z])(?:R\$\s*)?({_PRICE})(?![.,]?[0-9]|\s*%)"
_LABEL = r"ATIVO|COMPRA|ALVO|STOP"
# Words between a label and its price: same line, no other label, no digits but those of a ticker (COMPRA PETR4: 28,50).
_GAP = rf"(?:(?!\b(?:{_LABEL}))(?:[^\n0-9]|(?<=[A-Za-z])[0-9]+)){{0,40}}?"

_BUY = re.compile(rf"\bCOMPRAR?\b{_GAP}{_NUMBER}(?:\s*(?:ate|até|a|à|[-\u2013\u2014])\s*{_NUMBER})?", re.IGNORECASE)
_TARGET_1 = re.compile(rf"\bALVO\s*1(?![0-9]|[.,][0-9]){_GAP}{_NUMBER}", re.IGNORECASE)
_TARGET_2 = re.compile(rf"\bALVO\s*2(?![0-9]|[.,][0-9]){_GAP}{_NUMBER}", re.IGNORECASE)
_TARGET_FINAL = re.compile(rf"\bALVO\s*(?:FINAL|GERAL)\b{_GAP}{_NUMBER}", re.IGNORECASE)
_STOP = re.compile(rf"\bSTOP\b{_GAP}{_NUMBER}", re.IGNORECASE)

_TICKER = r"(?!(?:ALVO|STOP|COMPRA)[0-9])[A-Z][A-Z0-9]{3}[A-Z]{0,2}[0-9]{1,3}F?"
_NAMED_TICKER = re.compile(rf"\bATIVO\b[^\n]{{0,40}}?\b({_TICKER})\b", re.IGNORECASE)
_NAMED = re.compile(r"\bATIVO\s*[:=\u2013-]\s*[$#]?([A-Z][A-Z0-9]{2,11})\b", re.IGNORECASE)
_ANY_TICKER = re.compile(rf"\b({_TICKER})\b")
_MARKUP = str.maketrans("", "", "*_`~\u200b\ufe0f")


def parse(text: str) -> Signal | NoSignal:
    """Read `text` (or a caption). Pure; never raises on any text.

    A signal names an asset and either a buying price, or a target and a stop.
    """
    plain = unicodedata.normalize("NFC", text).translate(_MARKUP)
    if not plain.strip():
        return NoSignal("no text")
    asset = _asset(plain)
    if asset is None:
        return NoSignal("no asset")
    buying = _prices(_BUY, plain)
    signal = Signal(
        asset=asset,
        buy_min=min(buying, default=None),
        buy_max=max(buying, default=None),
        target_1=_price(_TARGET_1, plain),
        target_2=_price(_TARGET_2, plain),
        target_final=_price(_TARGET_FINAL, plain),
        stop=_price(_STOP, plain),
    )
    targets = (signal.target_1, signal.target_2, signal.target_final)
    if not buying and signal.stop is None:
        return NoSignal("no buying price and no stop")
    if not buying and all(target is None for target in targets):
        return NoSignal("no buying price and no target")
    return signal


def _asset(text: str) -> str | None:
    for pattern in (_NAMED_TICKER, _NAMED, _ANY_TICKER):
        for match in pattern.finditer(text):
            if sum(character.isalpha() for character in match[1]) >= 3:
                return match[1].upper()
    return None


def _prices(pattern: re.Pattern[str], text: str) -> list[Decimal]:
    match = pattern.search(text)
    numbers = [_decimal(group) for group in match.groups() if group] if match else []
    return [number for number in numbers if number > 0]


def _price(pattern: re.Pattern[str], text: str) -> Decimal | None:
    return next(iter(_prices(pattern, text)), None)


def _decimal(text: str) -> Decimal:
    """``1.234,56``: comma before the decimals. A point before exactly three digits parts thousands, else decimals."""
    if "," in text or re.fullmatch(r"[0-9]{1,3}(?:\.[0-9]{3})+", text):
        text = text.replace(".", "").replace(",", ".")
    return Decimal(text)
