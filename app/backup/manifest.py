"""What a backup says of itself: its last member, so that one that was cut short has none."""

from datetime import datetime
from pathlib import PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

MANIFEST, DUMP, HOME = "manifest.json", "database.dump", "home"
# Of the home: what a harvest was made with, what was imported, circuits, and SAEs trained here with their logs.
FOLDERS = ("saes", "imports", "circuits", "training")
LONGEST = 16 << 20  # bytes of a manifest


class Entry(BaseModel):
    """A file: its name in the archive, its bytes, and the SHA-256 of them."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=1000)
    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @field_validator("name")
    @classmethod
    def _inside(cls, name: str) -> str:
        """The dump, or a file in one of the home's folders; nothing that leads elsewhere."""
        parts = PurePosixPath(name).parts
        plain = name == "/".join(parts) and not any(part in ("..", ".") or "\\" in part for part in parts)
        known = name == DUMP or (len(parts) >= 3 and parts[0] == HOME and parts[1] in FOLDERS)
        if not plain or not known or any(ord(character) < 32 for character in name):
            raise ValueError(f"{name[:100]!r} is no place in a home")
        return name


class Manifest(BaseModel):
    """``left_out`` are the models that SAEs were harvested with: their folders must be there for prompts."""

    model_config = ConfigDict(extra="forbid")
    format: Literal[1]
    saescope: str
    made: datetime
    schema_revision: str
    postgres: str
    database_bytes: int = Field(ge=0)
    left_out: list[str]
    entries: list[Entry]
