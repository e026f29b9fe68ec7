"""What is posted: about half trading signals in Portuguese, half the talk around them.

Every text carries its number, so no two are equal and a test can tell them apart.
"""

from __future__ import annotations

from random import Random

_ASSETS = (
    "PETR4", "VALE3", "ITUB4", "BBDC4", "BBAS3", "WEGE3", "MGLU3", "ABEV3",
    "B3SA3", "SUZB3", "PRIO3", "RENT3", "GGBR4", "CSNA3", "BOVA11", "KLBN11",
)  # fmt: skip
_CHATTER = (
    "Bom dia, traders! Agenda cheia hoje: IPCA às 9h e decisão do Fed às 15h.",
    "Mercado lateral, paciência. Sem operação por enquanto.",
    "Lembrem: stop curto, mão leve. Quem respeita o gerenciamento fica no jogo. 📉",
    "Alvo atingido na operação de ontem, parabéns a quem seguiu o plano! 🎯",
    "Live às 18h30 com a análise do índice e do dólar. Deixem as perguntas aqui.",
    "Dólar abre em alta de 0,4%, juros futuros sobem na ponta longa.",
    "Quem ainda está comprado, suba o stop para a entrada e deixe correr.",
    "Resumo da semana: sete operações, cinco no alvo, uma no stop, uma em aberto.",
    "Atenção: vencimento de opções amanhã, volatilidade maior na abertura.",
    "Não respondo chamados de entrada no privado. Cuidado com perfis falsos! ⚠️",
)


def text(number: int) -> str:
    """The text of message `number`, always the same for the same number."""
    random = Random(number)  # noqa: S311 (no secret)
    body = _signal(random) if random.random() < 0.5 else random.choice(_CHATTER)
    return f"{body}\n\nNº {number}"


def _signal(random: Random) -> str:
    price = random.uniform(4, 90) if random.random() < 0.9 else random.uniform(1000, 4000)
    low, high = price, price * random.uniform(1.005, 1.03)
    joint = random.choice((" a ", " até ", " ate ", " - ", " – "))  # noqa: RUF001 (channels use the dash)
    buy = _money(low) if random.random() < 0.2 else _money(low) + joint + _money(high)
    first, second, last = (price * random.uniform(*span) for span in ((1.04, 1.07), (1.08, 1.12), (1.13, 1.3)))
    lines = [f"ATIVO: {random.choice(_ASSETS)}", f"COMPRA: {buy}", f"ALVO 1: {_money(first)}"]
    if random.random() < 0.5:
        lines.append(f"ALVO 2: {_money(second)}")
    lines.append(f"{random.choice(('ALVO FINAL', 'ALVO FINAL', 'ALVO GERAL'))}: {_money(last)}")
    lines.append(f"STOP: {_money(price * random.uniform(0.92, 0.98))}")
    return "\n".join(lines)


def _money(value: float) -> str:
    """A price as it is written in Brazil: 1.234,50."""
    return f"{value:,.2f}".translate(str.maketrans(",.", ".,"))
