"""Activations of a subject at some places, gathered once into files that all training reads at random."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from app.corpus.sequences import Sequence as Tokens
from app.disk import room
from app.errors import BadRequest
from app.subject.backward import AttentionInFp32
from app.subject.hooks import HookPoint, read_activations, tap
from app.subject.load import Subject

GRADIENT = "gradient at "  # the subject's loss by the activation, as a place: "gradient at model.layers.9:out"
PROGRESS = "progress.json"
ROWS = 64  # positions whose logits are compared at once


class ActivationFile:
    """[tokens, d] bf16 rows on disk, BOS and other special positions left out."""

    def __init__(self, folder: Path, place: str, d: int, capacity: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = _path(folder, place)
        needed = capacity * d * 2
        if not self.path.is_file() or self.path.stat().st_size != needed:
            with room(folder, f"Training's activations ({needed / 1e9:.1f} GB)"), self.path.open("wb") as file:
                try:
                    os.posix_fallocate(file.fileno(), 0, needed)
                except OSError:
                    self.path.unlink(missing_ok=True)
                    raise
        self.rows = np.memmap(self.path, dtype=np.int16, mode="r+", shape=(capacity, d))

    @property
    def d(self) -> int:
        return int(self.rows.shape[1])

    def write(self, row: int, values: Tensor) -> None:
        self.rows[row : row + len(values)] = values.to(torch.bfloat16).cpu().view(torch.int16).numpy()

    def read(self, index: Tensor) -> Tensor:
        """index: [batch] int64 -> [batch, d] fp32."""
        raw = torch.from_numpy(np.asarray(self.rows[index.numpy()]))
        return raw.view(torch.bfloat16).float()


class Gathered(NamedTuple):
    """files: by place; rows: how many each has."""

    folder: Path
    files: dict[str, ActivationFile]
    rows: int


def cache_folder(home: Path, subject_sha256: str, dtype: torch.dtype, corpus_sha256: str) -> Path:
    """Where the activations of a subject over a corpus are kept, whatever the places."""
    told = json.dumps([subject_sha256, str(dtype), corpus_sha256])
    return home / "training" / "activations" / hashlib.sha256(told.encode()).hexdigest()[:16]


def kept_tokens(subject: Subject, sequences: Sequence[Tokens]) -> int:
    """How many tokens are trained on: none of BOS, EOS, PAD."""
    special = np.array(subject.special_ids)
    return int(sum((~np.isin(s.token_ids, special)).sum() for s in sequences))


def gather(
    subject: Subject,
    places: Sequence[str],
    sequences: Sequence[Tokens],
    folder: Path,
    *,
    batch: int = 64,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    between: Callable[[], None] = lambda: None,
) -> Gathered:
    """Fill (or finish filling) a file for each of ``places`` over ``sequences``. What a killed run has gathered is not
    gathered again; ``between`` batches a caller may stop."""
    capacity = kept_tokens(subject, sequences)
    special = torch.tensor(subject.special_ids)
    wide = widths(subject, places)
    progress = _progress(folder, {place: capacity * wide[place] * 2 for place in places})
    files = {place: ActivationFile(folder, place, wide[place], capacity) for place in places}
    todo = [place for place in places if progress.get(place, (0, 0))[0] < len(sequences)]
    done, row = min((tuple(progress.get(place, (0, 0))) for place in todo), default=(len(sequences), capacity))
    if any(place.startswith(GRADIENT) for place in todo):
        batch = max(1, batch // 8)  # its logits are held
    while done < len(sequences):
        between()
        ids = [torch.from_numpy(s.token_ids.astype(np.int64)) for s in sequences[done : done + batch]]
        keep = [~torch.isin(i, special) for i in ids]
        found = _forward(subject, todo, ids)
        for place in todo:
            flat = torch.cat([found[place][i, : len(k)][k.to(subject.device)] for i, k in enumerate(keep)])
            files[place].write(row, flat)
        done, row = done + len(ids), row + sum(int(k.sum()) for k in keep)
        if (done // batch) % 16 == 0 or done == len(sequences):
            for place in todo:
                files[place].rows.flush()
                progress[place] = [done, row]
            _save_progress(folder, progress)
        on_progress(row, capacity)
    return Gathered(folder, files, capacity)


def _path(folder: Path, place: str) -> Path:
    return folder / (re.sub(r"[^\w.]+", "-", place) + ".bf16")


def _progress(folder: Path, sizes: Mapping[str, int]) -> dict[str, list[int]]:
    """By place, how many sequences are in and how many rows they made; of files that are there, and whole where
    ``sizes`` says how many bytes they have. Nothing where it cannot be read: all is gathered again."""
    try:
        told = json.loads((folder / PROGRESS).read_text())
        known = {str(place): [int(sequences), int(rows)] for place, (sequences, rows) in told.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return {place: at for place, at in known.items() if _whole(_path(folder, place), sizes.get(place))}


def _whole(path: Path, size: int | None) -> bool:
    return path.is_file() and size in (None, path.stat().st_size)


def _save_progress(folder: Path, progress: dict[str, Any]) -> None:
    partial = folder / (PROGRESS + ".partial")
    partial.write_text(json.dumps(progress))
    partial.rename(folder / PROGRESS)


def widths(subject: Subject, places: Sequence[str]) -> dict[str, int]:
    """How wide the activations are, by asking for those of one token.

    Raises:
        BadRequest: what is there is no vector for each token.
    """
    points = [HookPoint.parse(place.removeprefix(GRADIENT)) for place in places]
    one = torch.tensor([[subject.bos_id or 0]], device=subject.device)
    found = read_activations(subject.model, one, points, torch.ones_like(one))
    for point, value in found.items():
        if value.ndim != 3 or not value.is_floating_point():
            raise BadRequest(f"There are no vectors at {point}, so no SAE can be trained there.", hook_point=str(point))
    return {place: int(found[point].shape[-1]) for place, point in zip(places, points, strict=True)}


def _forward(subject: Subject, places: Sequence[str], ids: list[Tensor]) -> dict[str, Tensor]:
    """What is at ``places``: [sequences, length, d] each."""
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True).to(subject.device)
    lengths = torch.tensor([len(r) for r in ids])
    mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long().to(subject.device)
    points = {place: HookPoint.parse(place) for place in places if not place.startswith(GRADIENT)}
    found: dict[str, Tensor] = {}
    if points:
        acts = read_activations(subject.model, padded, list(points.values()), mask)
        found = {place: acts[point] for place, point in points.items()}
    for place in places:
        if place.startswith(GRADIENT):
            found[place] = gradient_at(subject, HookPoint.parse(place.removeprefix(GRADIENT)), padded, mask)
    return found


def gradient_at(subject: Subject, point: HookPoint, input_ids: Tensor, mask: Tensor) -> Tensor:
    """d (summed next-token cross-entropy) / d activation at ``point``: [sequences, length, d] fp32.

    input_ids, mask: [sequences, length], padded at the end.
    """
    held: list[Tensor] = []

    def leaf(value: Tensor) -> Tensor:
        held.append(value.detach().requires_grad_())
        return held[-1]

    handle = tap(subject.model, point, leaf)
    try:
        with torch.enable_grad(), AttentionInFp32():
            logits = subject.model(input_ids=input_ids, attention_mask=mask, use_cache=False).logits
        targets = torch.full_like(input_ids, -1)
        targets[:, :-1] = input_ids[:, 1:].masked_fill(mask[:, 1:] == 0, -1)
        slope = loss_gradient(logits.detach().flatten(0, 1), targets.flatten()).view_as(logits)
        (gradient,) = torch.autograd.grad(logits, held[:1], slope)
    finally:
        handle.remove()
    return gradient.float()


def loss_gradient(logits: Tensor, targets: Tensor) -> Tensor:
    """d (summed cross-entropy) / d logits: softmax less the target's 1, and 0 where ``targets`` is negative.

    logits: [rows, vocabulary]; targets: [rows] int64. As ``logits`` in shape and dtype, computed in fp32, ROWS at a
    time: whole copies of the logits take memory that comes from the kernel anew each time.
    """
    out = torch.empty_like(logits)
    for rows, target, slope in zip(logits.split(ROWS), targets.split(ROWS), out.split(ROWS), strict=True):
        chances = rows.float().softmax(-1)
        told = target >= 0
        chances[torch.arange(len(target), device=target.device), target.clamp(min=0)] -= 1
        slope.copy_(chances.mul_(told[:, None]))
    return out


def normalisation(file: ActivationFile, rows: int, chunk: int = 65_536) -> tuple[Tensor, float]:
    """The mean [d] and the scale that brings the centred rows to mean squared norm d, over all rows in fp64.

    Raises:
        BadRequest: all rows are the same, or one is not finite.
    """
    d = file.d
    total, squares = torch.zeros(d, dtype=torch.float64), 0.0
    for start in range(0, rows, chunk):
        x = file.read(torch.arange(start, min(start + chunk, rows))).double()
        total += x.sum(0)
        squares += float(x.pow(2).sum())
    mean = total / rows
    variance = squares / rows - float(mean.pow(2).sum())
    if not variance > 1e-12 * squares / rows:
        raise BadRequest("The activations there are all the same, or not all finite: there is nothing to train on.")
    return mean.float(), float((d / variance) ** 0.5)


def gradient_scale(file: ActivationFile, rows: int, chunk: int = 65_536) -> float:
    """What brings gradients, whose mean is left in, to mean squared norm d."""
    squares = 0.0
    for start in range(0, rows, chunk):
        squares += float(file.read(torch.arange(start, min(start + chunk, rows))).double().pow(2).sum())
    return float((file.d * rows / max(squares, 1e-300)) ** 0.5)
