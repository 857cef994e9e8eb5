"""Python and the packages that are installed, against those that pyproject.toml names."""

import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement

from app.doctor.finding import Finding, fault, fine, note
from app.web.assets import ROOT

GIVES = {
    "llm": "explanations by a language model",
    "mcp": "features for an assistant to look up (saescope mcp)",
    "otel": "traces for OpenTelemetry",
    "map": "maps by UMAP and t-SNE, and clusters by HDBSCAN",
    "ray": "harvests and inference over a Ray cluster",
}
OLDEST = (3, 11)


def python() -> Finding:
    told = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    if sys.version_info < OLDEST:
        return fault("python", f"{told} is too old.", "Make the environment anew with Python 3.11 or newer.")
    return fine("python", told)


def packages() -> Iterator[Finding]:
    """What every use needs, and each extra with what it would give."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wrong = [told for one in project["dependencies"] if (told := _lacking(one)) is not None]
    if wrong:
        yield fault("packages", f"{'; '.join(wrong)}.", "Run scripts/setup, which installs what is pinned.")
    else:
        yield fine("packages", f"all {len(project['dependencies'])} that are needed")
    for extra, needs in project["optional-dependencies"].items():
        lacking = [told for one in needs if (told := _lacking(one)) is not None]
        gives = GIVES.get(extra, extra)
        if lacking:
            yield note(
                f"extra {extra}", f"{'; '.join(lacking)}; it would give {gives}.",
                f"If you want that: pip install -c constraints.txt -e '.[{extra}]'.",
            )  # fmt: skip
        else:
            yield fine(f"extra {extra}", gives)


def _lacking(text: str) -> str | None:
    """Why a requirement is not met."""
    wanted = Requirement(text)
    if wanted.marker is not None and not wanted.marker.evaluate():
        return None
    try:
        have = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return f"{wanted.name} is missing"
    return None if wanted.specifier.contains(have, prereleases=True) else f"{wanted.name} is {have}, not {text}"
