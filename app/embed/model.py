"""Sentence models: a folder in the format of sentence-transformers, read by transformers.

A text's vector is the mean of its tokens' last hidden states (or the state at CLS), as ``1_Pooling`` says, made of norm
1 (Reimers & Gurevych 2019). Only that kind is read.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from app.errors import EmbeddingsUnavailable
from app.store.explain_tables import EMBEDDED
from app.subject.load import choose_device, loading

Floats = npt.NDArray[np.float32]
BATCH = 64
_KINDS = ("Transformer", "Pooling", "Normalize")


class SentenceModel:
    """``name`` tells models apart: the folder's name and a hash of what makes the vectors."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """
        Raises:
            EmbeddingsUnavailable: there is no sentence model of this kind in ``folder``, or one of another width.
        """
        try:
            self._cls = _pooling(folder)
            with loading:  # what transformers loads when it is asked for, two threads cannot load at once
                from transformers import AutoModel, AutoTokenizer

                self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
                self._model: Any = AutoModel.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
                )
            self._longest = _longest(folder)
        except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise EmbeddingsUnavailable(
                f"No sentence model can be read from {folder}: {reason[:200]}.", path=str(folder)
            ) from None
        self.dimensions = int(self._model.config.hidden_size)
        if self.dimensions != EMBEDDED:
            raise EmbeddingsUnavailable(
                f"The sentence model at {folder} makes vectors of {self.dimensions} numbers, not {EMBEDDED}.",
                path=str(folder),
            )
        self._device = choose_device(device)
        self._model.to(self._device).eval().requires_grad_(False)
        self.name = name_of(folder)

    def encode(self, texts: Sequence[str], *, done: Callable[[int], None] = lambda n: None) -> Floats:
        """[texts, EMBEDDED], each of norm 1; ``done`` is told how many there are so far."""
        out = np.zeros((len(texts), EMBEDDED), np.float32)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # so that little of a batch is padding
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            out[some] = self._batch([texts[i] for i in some])
            done(min(start + BATCH, len(order)))
        return out

    @torch.inference_mode()
    def _batch(self, texts: list[str]) -> Floats:
        given = self._tokenizer(texts, padding=True, truncation=True, max_length=self._longest, return_tensors="pt")
        given = {name: values.to(self._device) for name, values in given.items()}
        states = self._model(**given).last_hidden_state  # [texts, tokens, d]
        if self._cls:
            vectors = states[:, 0]
        else:
            mask = given["attention_mask"][..., None].to(states.dtype)
            vectors = (states * mask).sum(1) / mask.sum(1).clamp_min(1e-9)
        found: Floats = torch.nn.functional.normalize(vectors, dim=1).cpu().numpy()
        return found


def name_of(folder: Path) -> str:
    """The folder's name, and the first ten digits of a hash over what makes its vectors."""
    digest = hashlib.sha256()
    for name in ("model.safetensors", "tokenizer.json", "vocab.txt", "modules.json", "1_Pooling/config.json"):
        file = folder / name
        if file.is_file():
            with file.open("rb") as stream:
                digest.update(name.encode() + hashlib.file_digest(stream, "sha256").digest())
    return f"{folder.resolve().name}@{digest.hexdigest()[:10]}"


def _pooling(folder: Path) -> bool:
    """Whether the state at CLS is taken, not the mean.

    Raises:
        OSError, ValueError, KeyError: there is no such model, or it is of another kind.
    """
    modules = json.loads((folder / "modules.json").read_text())
    for module in modules:
        if (kind := str(module["type"]).rpartition(".")[2]) not in _KINDS:
            raise ValueError(f"its part {kind} is not known, only {', '.join(_KINDS)}")
    path = next((str(m["path"]) for m in modules if str(m["type"]).endswith("Pooling")), "1_Pooling")
    told = json.loads((folder / path / "config.json").read_text())
    wanted = sorted(name for name, value in told.items() if name.startswith("pooling_mode") and value is True)
    match wanted:
        case ["pooling_mode_mean_tokens"]:
            return False
        case ["pooling_mode_cls_token"]:
            return True
    raise ValueError(f"its pooling is {', '.join(wanted) or 'none'}; the mean or CLS is read")


def _longest(folder: Path) -> int:
    file = folder / "sentence_bert_config.json"
    return int(json.loads(file.read_text()).get("max_seq_length") or 256) if file.is_file() else 256
