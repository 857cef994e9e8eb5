"""The pictures that link previews show, drawn from stored data in the style sheet's light colours."""

import io
import math
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from app.web.contexts import Glimpse, SAEPage
from app.web.formats import measured, percent, sig
from app.web.heat import SPECIAL, Span, spans, visible
from app.web.preview_contexts import FeatureCard
from app.web.rendering import ROOT

WIDTH, HEIGHT = 1200, 630
MARGIN = 64
Font = ImageFont.FreeTypeFont
# Pillow's own font has little beyond ASCII; the others are taken where the system has them. The first that has a
# character draws it, and a character that none has is drawn as a box.
_FONTS = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial Unicode.ttf", "Arial.ttf",
    "NotoSansCJK-Regular.ttc", "NotoSansHebrew-Regular.ttf", "NotoSansArabic-Regular.ttf",
)  # fmt: skip
_NO_CHARACTER = "\uffff"


class Piece(NamedTuple):
    """Text of one colour; ``heat`` is the class of its background, ``peak`` whether it is underlined."""

    text: str
    heat: str
    peak: bool


def feature_picture(card: FeatureCard) -> bytes:
    """The PNG of a feature: its label, where it comes from, how often and how strongly it fires, and on what."""
    image, draw = _blank()
    _line(draw, (MARGIN, 52), f"{card.sae} · feature {card.index}", 30, "--muted")
    y = _wrapped(draw, card.label or "no label", 100, size=54, lines=3)
    score = "not scored" if card.label_score is None else f"score {card.label_score:.2f}"
    _line(draw, (MARGIN, y + 10), f"label from {card.label_source}, {score}", 26, "--muted")
    facts = f"density {percent(card.density)}   ·   max {sig(card.max)}"
    _line(draw, (MARGIN, y + 52), facts + (f"   ·   min {sig(card.min)}" if card.min < 0 else ""), 32, "--text")
    if card.example is None:
        _line(draw, (MARGIN, y + 124), "It never fired on the harvest.", 32, "--muted")
    else:
        _heat(draw, pieces(card.example), y + 124, size=34)
    return _finished(image, draw)


def sae_picture(page: SAEPage) -> bytes:
    """The PNG of an SAE: what it is, its metrics, and how dense its latents are."""
    image, draw = _blank()
    _line(draw, (MARGIN, 52), f"{page.subject} · {', '.join(page.reads)}", 30, "--muted")
    y = _wrapped(draw, page.sae, 100, size=54, lines=2)
    m = page.metrics
    numbers = f"L0 {measured(m.l0, m.tokens)}", f"FVU {measured(m.fvu, m.tokens)}"
    facts = (page.architecture, f"{page.n_latents:,} latents", *numbers)
    _line(draw, (MARGIN, y + 14), "   ·   ".join(facts), 32, "--text")
    _bars(draw, page.density_histogram.counts, (MARGIN, y + 90, WIDTH - MARGIN, 520))
    _line(draw, (MARGIN, 528), "log10 density of its latents", 24, "--muted")
    return _finished(image, draw)


def pieces(example: Glimpse) -> list[Piece]:
    """An example's tokens as a heat map has them, without the token that begins the sequence."""
    tokens, activations, peak = example.tokens, example.activations, example.position
    if tokens and SPECIAL.fullmatch(tokens[0]):
        tokens, activations, peak = tokens[1:], activations[1:], peak - 1
    found = []
    for item in spans(tokens, activations, example.maximum, peak):
        if isinstance(item, Span):
            found.append(Piece(visible(item.text), item.heat, item.peak))
        else:
            found.append(Piece(visible(item), "a0", False))
    return found


@cache
def colours() -> dict[str, tuple[int, int, int]]:
    """The custom properties of the style sheet's first rule, the light theme: ``--a3`` and its RGB."""
    first = re.search(r":root \{([^}]*)\}", (ROOT / "static" / "site.css").read_text())
    found = re.findall(r"(--\w+): #([0-9a-f]{6})", first[1] if first else "")
    return {name: (int(code[:2], 16), int(code[2:4], 16), int(code[4:], 16)) for name, code in found}


@cache
def fonts(size: int) -> tuple[Font, ...]:
    found = []
    for name in _FONTS:
        try:
            found.append(ImageFont.truetype(name, size))
        except OSError:
            continue
    default = ImageFont.load_default(size)
    return (*found, default) if isinstance(default, Font) else tuple(found)


@cache
def font_of(character: str, size: int) -> Font | None:
    """The first font that has ``character``; None where none does."""
    return next((font for font in fonts(size) if _has(font, character)), None)


def _has(font: Font, character: str) -> bool:
    if character.isspace():
        return True
    drawn, missing = font.getmask(character), font.getmask(_NO_CHARACTER)
    return drawn.size != missing.size or bytes(drawn) != bytes(missing)


def runs(text: str, size: int) -> Iterator[tuple[str, Font | None]]:
    """``text`` cut where the font changes."""
    start, current = 0, None
    for place, character in enumerate(text):
        font = font_of(character, size)
        if place and font is not current:
            yield text[start:place], current
            start = place
        current = font
    if text:
        yield text[start:], current


def length(text: str, size: int) -> float:
    return sum(font.getlength(run) if font else _box(size) * len(run) for run, font in runs(text, size))


def _box(size: int) -> float:
    return 0.7 * size


def _blank() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (WIDTH, HEIGHT), colours()["--bg"])
    return image, ImageDraw.Draw(image)


def _finished(image: Image.Image, draw: ImageDraw.ImageDraw) -> bytes:
    draw.rectangle((0, HEIGHT - 14, WIDTH, HEIGHT), fill=colours()["--a10"])
    _line(draw, (MARGIN, HEIGHT - 62), "saescope", 28, "--accent")
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=6)
    return out.getvalue()


def _line(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, colour: str) -> None:
    """One line, shortened to the picture's width; ``at`` is its top left."""
    while text and at[0] + length(text, size) > WIDTH - MARGIN:
        text = text[:-2].rstrip() + "…" if len(text) > 2 else ""
    x, baseline = at[0], at[1] + size
    for run, font in runs(text, size):
        if font is not None:
            draw.text((x, baseline), run, font=font, fill=colours()[colour], anchor="ls")
            x += font.getlength(run)
            continue
        for _ in run:
            box = (x + 2, baseline - 0.75 * size, x + _box(size) - 2, baseline)
            draw.rectangle(box, outline=colours()[colour], width=2)
            x += _box(size)


def _wrapped(draw: ImageDraw.ImageDraw, text: str, y: int, *, size: int, lines: int) -> int:
    """Text broken between words into at most ``lines`` lines; returns where the next line would stand."""
    rows = [""]
    for word in text.split():
        longer = f"{rows[-1]} {word}".strip()
        if rows[-1] and length(longer, size) > WIDTH - 2 * MARGIN:
            rows.append(word)
        else:
            rows[-1] = longer
    if len(rows) > lines:
        rows = [*rows[: lines - 1], " ".join(rows[lines - 1 :])]
    for row in rows:
        _line(draw, (MARGIN, y), row, size, "--text")
        y += round(1.25 * size)
    return y


def _heat(draw: ImageDraw.ImageDraw, shown: Sequence[Piece], y: int, *, size: int) -> None:
    """A heat map over as many lines as there is room for."""
    x, step = float(MARGIN), round(1.5 * size)
    for piece in shown:
        wide = length(piece.text, size)
        if x > MARGIN and x + wide > WIDTH - MARGIN:
            x, y = float(MARGIN), y + step
        if y + step > HEIGHT - 70:
            return
        if piece.heat != "a0":
            draw.rectangle((x, y, x + wide, y + 1.3 * size), fill=colours()[f"--{piece.heat}"])
        _line(draw, (x, y), piece.text, size, "--text")
        if piece.peak:
            draw.line((x, y + 1.2 * size, x + wide, y + 1.2 * size), fill=colours()["--text"], width=3)
        x += wide


def _bars(draw: ImageDraw.ImageDraw, counts: Sequence[int], box: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = box
    highest, step = max(counts, default=0), (right - left) / max(len(counts), 1)
    for place, count in enumerate(counts):
        if count:
            high = math.ceil((bottom - top) * count / highest)
            bar = (left + place * step, bottom - high, left + (place + 1) * step - 2, bottom)
            draw.rectangle(bar, fill=colours()["--accent"])
