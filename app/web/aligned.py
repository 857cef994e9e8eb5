"""Two texts' tokens lined up: a column a pair, so that both rows wrap together."""

import html
from collections.abc import Sequence

from markupsafe import Markup

from app.web.differences_contexts import AlignedColumn, ReadPrompt
from app.web.formats import sig
from app.web.heat import SPECIAL, heat_class, visible

WHOLE = 60  # columns that are shown without gaps
AROUND = 5  # columns either side of what is worth seeing, where there are more
PLACES = 4  # of those


def texts(prompt: ReadPrompt) -> list[str]:
    return [token.text for token in prompt.tokens]


def aligned_heat(
    columns: Sequence[AlignedColumn], first: Sequence[str], second: Sequence[str],
    rows: tuple[list[float], list[float]], maximum: float, peaks: tuple[int | None, int | None],
) -> Markup:  # fmt: skip
    """A latent on both texts. Of long ones only what is around the places where it differs most."""
    values = [
        (0.0 if c.first is None else rows[0][c.first], 0.0 if c.second is None else rows[1][c.second]) for c in columns
    ]
    parts, hidden = [_NAMES], 0
    for place, shown in enumerate(_shown(values)):
        if not shown:
            hidden += 1
            continue
        parts.append(_gap(hidden))
        hidden = 0
        c, (one, other) = columns[place], values[place]
        upper = _cell(None if c.first is None else first[c.first], one, maximum, c.first == peaks[0])
        lower = _cell(None if c.second is None else second[c.second], other, maximum, c.second == peaks[1])
        parts.append(f'<span class="pair">{upper}{lower}</span>')
    return Markup("".join([*parts, _gap(hidden)]))


_NAMES = '<span class="pair names"><span>1</span><span>2</span></span>'


def _shown(values: Sequence[tuple[float, float]]) -> list[bool]:
    if len(values) <= WHOLE:
        return [True] * len(values)
    ranked = sorted(range(len(values)), key=lambda n: (-abs(values[n][0] - values[n][1]), -abs(values[n][0]), n))
    shown = [False] * len(values)
    for place in ranked[:PLACES]:
        if any(values[place]) or place == ranked[0]:
            for near in range(max(0, place - AROUND), min(len(values), place + AROUND + 1)):
                shown[near] = True
    return shown


def _gap(hidden: int) -> str:
    return f'<span class="gap" title="{hidden} places left out">…</span>' if hidden else ""


def _cell(token: str | None, value: float, maximum: float, peak: bool) -> str:
    if token is None:
        return '<span class="none"> </span>'
    if SPECIAL.fullmatch(token):
        return f'<span class="bos" title="{html.escape(token)}">⊢</span>'
    text = html.escape(visible(token)) or "·"
    if not value:
        return f"<span>{text}</span>"
    return f'<span class="{heat_class(value, maximum)}{" peak" if peak else ""}" title="{sig(value)}">{text}</span>'


def around(
    tokens: Sequence[str], row: list[float], position: int | None, reach: int = 12
) -> tuple[str, list[str], list[float], int | None, str]:
    """A text's tokens near ``position`` (its beginning where there is none), with what stands for the rest."""
    middle = 0 if position is None else position
    low, high = max(0, middle - reach), min(len(tokens), middle + reach + 1)
    high = max(high, min(len(tokens), low + 2 * reach + 1))
    peak = None if position is None else position - low
    return "…" if low else "", list(tokens[low:high]), row[low:high], peak, "…" if high < len(tokens) else ""


def by_size(values: Sequence[float]) -> list[int]:
    """The places of ``values``, the greatest magnitude first."""
    return sorted(range(len(values)), key=lambda place: -abs(values[place]))


def bos_marked(tokens: Sequence[str]) -> list[str]:
    """The tokens with a sign for a leading special one, so that a heat map colours it like any other."""
    return ["⊢" if place == 0 and SPECIAL.fullmatch(token) else token for place, token in enumerate(tokens)]
