"""Messages as a Telegram ingestion stack sees them: few loud channels, many quiet ones, signals among chatter."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

DAYS = 90
SEED = 20_260_101

_ASSETS = [
    letters + digit for letters in ("PETR", "VALE", "ITUB", "BBDC", "MGLU", "WEGE", "PRIO", "SUZB") for digit in "34"
]
_OPENINGS = (
    "Bom dia, pessoal! Abertura com viés de alta no índice futuro.",
    "Atenção para o leilão de hoje, volume acima da média.",
    "Resultado do trimestre saiu melhor que o esperado pelo mercado.",
    "Quem ainda não realizou parcial, ajuste o stop no preço de entrada.",
    "Dólar recua com fluxo estrangeiro e juros futuros acompanham.",
)
_CLOSINGS = (
    "Gestão de risco sempre em primeiro lugar.",
    "Não é recomendação de compra ou venda, apenas estudo.",
    "Acompanhem o gráfico de 60 minutos para confirmar.",
    "Link da sala ao vivo fixado no canal.",
)


class Message(NamedTuple):
    """One message; times are UTC."""

    channel_id: int
    message_id: int
    date: datetime
    text: str
    kind: str


def channel_ids(channels: int) -> list[int]:
    """Telegram's marked ids of as many channels."""
    return [-1_001_000_000_000 - 7_919 * number for number in range(channels)]


def messages(rows: int, channels: int, end: datetime) -> Iterator[Message]:
    """`rows` messages in the order in which they came, evenly over `DAYS` before `end`; the same each time."""
    random_ = random.Random(SEED)  # noqa: S311 - repeatable, no secret
    ids = channel_ids(channels)
    # The loudest channel posts as much as the quietest fifty together.
    weights = list(itertools.accumulate(1 / (rank + 4) for rank in range(channels)))
    numbers = dict.fromkeys(ids, 0)
    step = timedelta(days=DAYS) / rows
    begin = end - timedelta(days=DAYS)
    for row in range(rows):
        channel = random_.choices(ids, cum_weights=weights)[0]
        numbers[channel] += 1
        text, kind = _text(random_)
        yield Message(channel, numbers[channel], begin + step * row, text, kind)


def _text(random_: random.Random) -> tuple[str, str]:
    dice = random_.random()
    if dice < 0.3:
        return _signal(random_), "text"
    if dice < 0.4:
        return "", "photo"
    number = f"{random_.randint(100_000, 999_999)} pontos, {random_.uniform(-3, 3):+.2f}%."
    parts = [random_.choice(_OPENINGS), f"{random_.choice(_ASSETS)} aos {number}", random_.choice(_CLOSINGS)]
    return " ".join(parts[: random_.randint(1, 3)]), "text"


def _signal(random_: random.Random) -> str:
    price = random_.uniform(8, 90)

    def reais(factor: float) -> str:
        return f"{price * factor:.2f}".replace(".", ",")

    return (
        f"ATIVO: {random_.choice(_ASSETS)}\nCOMPRA: {reais(1)} a {reais(1.02)}\nALVO 1: {reais(1.05)}\n"
        f"ALVO 2: {reais(1.09)}\nALVO FINAL: {reais(1.15)}\nSTOP: {reais(0.96)}\n{random_.choice(_CLOSINGS)}"
    )
