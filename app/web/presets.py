"""Interventions by name: what a researcher asks first of a feature."""

from typing import NamedTuple

from app import urls
from app.live.edit import Kind


class Preset(NamedTuple):
    """An edit whose feature is still to be named."""

    name: str
    title: str
    kind: Kind
    strength: str
    says: str


PRESETS = (
    Preset("ablate", "ablate", "ablate", "1", "its activation becomes 0"),
    Preset("max", "clamp to its max", "clamp", "1", "its activation is held at its maximum in the harvest"),
    Preset("double", "double", "scale", "2", "its activation is doubled where it fires"),
    Preset("nudge", "steer × 1", "steer", "1", "its maximum is added along its decoder row"),
    Preset("steer", "steer × 4", "steer", "4", "four times its maximum is added along its decoder row"),
    Preset("against", "steer × −4", "steer", "-4", "four times its maximum is taken off along its decoder row"),
    Preset("project", "project out", "project", "1", "what lies along its decoder row is taken out"),
)


def preset(name: str) -> Preset | None:
    return next((one for one in PRESETS if one.name == name), None)


def preset_url(one: Preset, feature: str, text: str | None = None, *, chat: bool = False) -> str:
    """The page of that intervention on ``feature``, SLUG/NUMBER."""
    return urls.intervene(
        text=text, chat=1 if chat else None, feature=[feature], kind=[one.kind], strength=[one.strength]
    )
