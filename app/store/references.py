"""What a list can hold, written so that it outlives the thing: ``slug@revision/12`` is a feature, ``run/abc`` a kept
prompt run, ``slug@revision/map/version/0/3`` a region of a map. A revision that is left out is the newest."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby

from app.errors import BadRequest

LONGEST_LINK = 4000  # characters of items in a URL
MOST_IN_LINK = 200
_SLUG = r"(?P<slug>[a-z0-9]+(?:[-.][a-z0-9]+)*)(?:@(?P<revision>[0-9a-f]{1,40}))?"
_FEATURE = re.compile(rf"{_SLUG}/(?P<index>[0-9]{{1,9}})")
_REGION = re.compile(rf"{_SLUG}/map/(?P<version>[0-9a-z]{{1,64}})/(?P<level>[01])/(?P<region>[0-9]{{1,9}})")
_RUN = re.compile(r"run/(?P<run>[0-9a-z]{1,30})")


@dataclass(frozen=True)
class Feature:
    slug: str
    revision: str
    index: int

    def __str__(self) -> str:
        return f"{_address(self)}/{self.index}"


@dataclass(frozen=True)
class Run:
    name: str

    def __str__(self) -> str:
        return f"run/{self.name}"


@dataclass(frozen=True)
class Region:
    """level 0 is a region, 1 a cluster in one."""

    slug: str
    revision: str
    version: str
    level: int
    id: int

    def __str__(self) -> str:
        return f"{_address(self)}/map/{self.version}/{self.level}/{self.id}"


Reference = Feature | Run | Region


def _address(of: Feature | Region) -> str:
    return f"{of.slug}@{of.revision}" if of.revision else of.slug


def parse(text: str) -> Reference:
    """
    Raises:
        BadRequest: it names nothing that a list can hold.
    """
    if found := _RUN.fullmatch(text):
        return Run(found["run"])
    if found := _FEATURE.fullmatch(text):
        return Feature(found["slug"], found["revision"] or "", int(found["index"]))
    if found := _REGION.fullmatch(text):
        place = int(found["level"]), int(found["region"])
        return Region(found["slug"], found["revision"] or "", found["version"], *place)
    raise BadRequest(
        f"{text[:100]!r} is nothing a list can hold; write SAE@REVISION/NUMBER, run/NAME or "
        "SAE@REVISION/map/VERSION/LEVEL/NUMBER.",
        item=text[:100],
    )


def pinned(reference: Reference, newest: Mapping[str, str]) -> Reference:
    """The reference with its revision; ``newest`` has that of every SAE here.

    Raises:
        BadRequest: it names none, and there is no such SAE here.
    """
    if isinstance(reference, Run) or reference.revision:
        return reference
    if reference.slug not in newest:
        raise BadRequest(
            f"There is no SAE {reference.slug!r} here, so {str(reference)!r} must name its revision.",
            sae=reference.slug,
        )
    return replace(reference, revision=newest[reference.slug])


def link(references: Iterable[Reference]) -> str | None:
    """All in the text of a URL, in their order: ``a@1/3,5,8~run/x``; None where that is too long."""
    parts = [str(one).rpartition("/") for one in references]
    groups = groupby(parts, key=lambda part: part[0])
    text = "~".join(f"{first}/{','.join(last for _, _, last in group)}" for first, group in groups)
    return text if len(text) <= LONGEST_LINK and len(parts) <= MOST_IN_LINK else None


def linked(text: str) -> list[Reference]:
    """What ``link`` wrote, each once.

    Raises:
        BadRequest: it is empty or too long, or a part of it names nothing.
    """
    if len(text) > LONGEST_LINK:
        raise BadRequest(f"The items are longer than {LONGEST_LINK:,} characters.", field="items")
    groups = [part.rpartition("/") for part in text.split("~") if part]
    found = [parse(f"{first}/{last}") for first, _, several in groups for last in several.split(",")]
    if not found:
        raise BadRequest("There are no items: 'items' is empty.", field="items")
    if len(found) > MOST_IN_LINK:
        raise BadRequest(f"There are {len(found):,} items; a link holds at most {MOST_IN_LINK}.", field="items")
    return list(dict.fromkeys(found))
