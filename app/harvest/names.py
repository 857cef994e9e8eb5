"""The names by which the command and the form are given SAEs and subjects, and those that SAEs get."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import Connection, select

from app.errors import BadRequest, InvalidSAE, UnknownSAE
from app.paths import expanded
from app.store import tables as t

if TYPE_CHECKING:
    from app.sae.base import SAE

ORIGIN = "origin.json"  # in the folder of an import, which app.harvest.imports makes

SHOWN = 20  # names that a refusal lists


class Harvested(NamedTuple):
    """A revision in the database: where its SAE's files lie, and its subject's folder."""

    slug: str
    revision: str
    folder: Path
    model: Path


class Named(NamedTuple):
    """What a name stands for. slug is what the SAE goes by here, None for a folder; model is the subject it was
    harvested with, None where it was not."""

    folder: Path
    slug: str | None = None
    model: Path | None = None


@dataclass(frozen=True)
class Known:
    """Everything that has a name here: harvested SAEs (newest revisions first), imports and subjects."""

    harvested: list[Harvested]
    imports: dict[str, Path]
    subjects: dict[str, Path]

    @classmethod
    def read(cls, connection: Connection, home: Path, imports: dict[str, Path]) -> "Known":
        s, m = t.sae.c, t.subject.c
        saes = select(s.slug, s.revision, s.path, m.path).join(t.subject).order_by(s.id.desc())
        subjects = select(m.name, m.path).order_by(m.name)
        return cls(
            [Harvested(slug, revision, home / path, home / model) for slug, revision, path, model in
             connection.execute(saes)],
            imports,
            {name: home / path for name, path in connection.execute(subjects)},
        )  # fmt: skip

    @property
    def slugs(self) -> list[str]:
        """Every SAE's name, in order."""
        return sorted({*self.imports, *(one.slug for one in self.harvested)})

    def sae(self, text: str) -> Named:
        """An import, a harvested SAE (its newest revision, or ``slug@revision``), or else a path.

        Raises:
            UnknownSAE: the SAE has no such revision.
            InvalidSAE: it is none of them, or the SAE's files are gone.
        """
        slug, at, revision = text.partition("@")
        revisions = [one for one in self.harvested if one.slug == slug]
        newest = revisions[0].model if revisions else None
        if not at and slug in self.imports:
            return Named(self.imports[slug], slug, newest)
        found = next((one for one in revisions if revision in ("", one.revision)), None)
        if found is None and (path := expanded(text)).exists():
            return Named(path)
        if found is None and revisions:
            there = ", ".join(one.revision for one in revisions[:SHOWN])
            raise UnknownSAE(f"{slug} has no revision {revision!r} here; there are: {there}.", sae=slug)
        if found is None:
            known = ", ".join(self.slugs[:SHOWN])
            told = f" and no SAE or import of that name (there are: {known})" if known else ""
            raise InvalidSAE(f"No SAE folder at {text}{told}.", path=text)
        if not found.folder.is_dir():
            raise InvalidSAE(
                f"The files of {slug}@{found.revision} are not at {found.folder} any more; give a folder with them.",
                path=str(found.folder),
            )
        return Named(found.folder, slug, found.model)

    def model(self, given: str | None, saes: Collection[Path | None]) -> Path:
        """The subject's folder: ``given`` by name or path, else the one that all ``saes`` were harvested with.

        Raises:
            BadRequest: nothing is given, and there is no such one.
        """
        if given:
            return self.subjects.get(given) or expanded(given)
        models = set(saes)
        if len(models) == 1 and (only := models.pop()) is not None:
            return only
        several = "These SAEs were harvested with several subjects" if len(models) > 1 else "No subject is known for it"
        known = f", or one of {', '.join(self.subjects)}" if self.subjects else ""
        raise BadRequest(f"{several}: choose one, a Hugging Face folder{known}.", field="model")


def default_slug(sae: "SAE") -> str:
    """``{subject}-l{layer}-{architecture}-{n_latents}``."""
    layer = re.search(r"\.(\d+)(?:\.|:|$)", sae.config.reads[0])
    parts = [
        sae.config.subject,
        f"l{layer[1]}" if layer else None,
        sae.config.architecture,
        str(sae.config.n_latents),
    ]
    return re.sub(r"[^a-z0-9]+", "-", "-".join(p for p in parts if p).lower()).strip("-")


def check_slug(slug: str) -> str:
    if not re.fullmatch(r"[a-z0-9]+(?:[-.][a-z0-9]+)*", slug) or slug.endswith(".json") or len(slug) > 80:
        raise BadRequest(
            f"{slug[:100]!r} cannot name an SAE; use up to 80 lower-case letters and digits, separated by '-' or '.'.",
            slug=slug,
        )
    return slug


def imported(home: Path) -> dict[str, Path]:
    """The imports in ``home``, by name."""
    return {file.parent.name: file.parent for file in sorted((home / "imports").glob(f"*/{ORIGIN}"))}
