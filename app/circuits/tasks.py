"""The three tasks, in words of our own: indirect objects (Wang et al. 2022), greater-than (Hanna et al. 2023) and
docstrings (Heimersheim & Janiak 2023)."""

import random
from collections.abc import Iterator

from app.circuits import words as w
from app.circuits.prompts import Drawn, Task, Words

_IOI = (
    "When {x} and {y} met at the {place}, {s} handed the {thing} to",
    "After the concert {x} and {y} walked to the {place}, and {s} passed a {thing} to",
    "One morning {x} and {y} were waiting at the {place}. Then {s} offered a {thing} to",
    "While {x} and {y} were cleaning the {place}, {s} brought a {thing} to",
)
_YEARS = (
    "The {event} began in the year {since} and ended in the year {century}",
    "The {event} went on from the year {since} until the year {century}",
    "It is known that the {event} lasted from {since} to {century}",
)
_DOCSTRINGS = (
    'def {f}(self, {a}, {b}, {c}, {d}, {e}, {g}):\n    """{u} {v} {t}\n\n'
    "    :param {i}: {k} {l}\n    :param {j}: {m} {n}\n    :param",
    'def {f}(self, {a}, {b}, {c}, {d}, {e}, {g}):\n    """{u} {v} {t}\n\n'
    "    Args:\n    - {i}: {k} {l}\n    - {j}: {m} {n}\n    -",
)


def ioi(words: Words, rng: random.Random) -> Iterator[Drawn]:
    """Two people, of whom one is named again: the other comes next. In the negative the first clause has two other
    people, so that three are named once each (ABC)."""
    names = words.single(w.NAMES, 8, "names")
    places, things = words.single(w.PLACES, 3, "places"), words.single(w.THINGS, 3, "things")
    number = 0
    while True:
        template = number % (2 * len(_IOI))
        number += 1
        text = _IOI[template // 2]
        other, again, third, fourth = rng.sample(names, 4)
        x, y = (other, again) if template % 2 else (again, other)
        rest = {"s": again, "place": rng.choice(places), "thing": rng.choice(things)}
        yield Drawn(
            template,
            text.format(x=x, y=y, **rest),
            text.format(x=third, y=fourth, **rest),
            [f" {other}"],
            [f" {again}"],
        )


def greater_than(words: Words, rng: random.Random) -> Iterator[Drawn]:
    """A span of years in one century: what ends it comes after what began it. In the negative it began in the year 01,
    which rules nothing out. Tokens that begin both later and earlier years count as neither, nor does the year."""
    events = words.single(w.EVENTS, 5, "events")
    number = 0
    while True:
        template = number % len(_YEARS)
        number += 1
        # Of a tokenizer with a digit a token, years ending in 0 or 9 would leave their tens digit on one side.
        year = 10 * rng.randrange(1, 9) + rng.randrange(1, 9)
        century, event = rng.randrange(11, 20), rng.choice(events)
        text = _YEARS[template]
        yield Drawn(
            template,
            text.format(event=event, since=f"{century}{year}", century=century),
            text.format(event=event, since=f"{century}01", century=century),
            [f"{later:02}" for later in range(year + 1, 100)],
            [f"{earlier:02}" for earlier in range(year)],
        )


def docstring(words: Words, rng: random.Random) -> Iterator[Drawn]:
    """A function's docstring that has told two of its arguments: the one behind them comes next. In the negative both
    the definition's and the docstring's arguments are others, which have nothing to do with each other."""
    arguments = words.single(w.ARGUMENTS, 20, "arguments")
    plain = words.single(w.PLAIN, 10, "words")
    number = 0
    while True:
        template = number % len(_DOCSTRINGS)
        number += 1
        f, a, b, c, d, e, g, *others = rng.sample(arguments, 15)
        told = dict(zip("uvtklmn", rng.sample(plain, 7), strict=True))
        text = _DOCSTRINGS[template]
        yield Drawn(
            template,
            text.format(f=f, a=a, b=b, c=c, d=d, e=e, g=g, i=c, j=d, **told),
            text.format(f=f, **dict(zip("abcdegij", others, strict=True)), **told),
            [f" {e}"],
            [f" {one}" for one in (a, b, c, d, g)],
        )


TASKS: dict[str, Task] = {"ioi": ioi, "greater-than": greater_than, "docstring": docstring}
