"""Every on-disk format: recognised by what is in the folder, read into one normal form, saved for everyone."""

from pathlib import Path
from types import ModuleType

from app.sae import normal
from app.sae.base import SAE, SAEFormatError
from app.sae.formats import (
    afa,
    dictionary_learning,
    gemma_scope,
    llama_scope,
    openai,
    openmoss,
    overcomplete,
    recsae,
    saelens,
    sparsify,
)
from app.sae.formats.files import Options, Source

READERS: dict[str, ModuleType] = {
    "saescope": normal,
    **{
        reader.NAME: reader
        for reader in (
            saelens, sparsify, dictionary_learning, llama_scope, openmoss, afa, overcomplete, openai, recsae,
            gemma_scope,
        )
    },
}  # fmt: skip


def recognise(source: Source) -> str:
    """The name of the format ``source`` is in.

    Raises:
        SAEFormatError: none; says what lies there.
    """
    for name, reader in READERS.items():
        if reader.recognise(source):
            return name
    found = ", ".join(source.names()[:12]) or "nothing"
    raise SAEFormatError(
        f"{source.folder} is in no format known here (it holds: {found}); 'saescope formats' lists what is read."
    )


def read(path: Path, options: Options = Options(), format: str = "auto") -> SAE:  # noqa: A002
    """The SAE at ``path``, in ``format`` or whichever is recognised.

    Raises:
        SAEFormatError: nothing is there, or not what the format says.
    """
    source = Source.at(path)
    if format != "auto" and format not in READERS:
        raise SAEFormatError(f"Format {format!r} is not known; there are: auto, {', '.join(READERS)}.")
    name = recognise(source) if format == "auto" else format
    try:
        sae: SAE = READERS[name].read(source, options)
    except (
        TypeError,
        AttributeError,
        LookupError,
        OverflowError,
    ) as error:  # a value of another type than it should be
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        raise SAEFormatError(f"{path} holds a value that no {name} file has ({told}).") from error
    return sae


def save(folder: Path, sae: SAE) -> None:
    """Save ``sae`` in SAELens format where sae_lens can compute it, else in saescope's own; nothing is lost."""
    if saelens.can_write(sae):
        saelens.write(folder, sae)
    else:
        normal.write(folder, sae)
