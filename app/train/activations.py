"""Activations of a subject at one hook point, gathered once into a file that training reads at random."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from app.corpus.sequences import Sequence
from app.errors import DiskFull
from app.subject.hooks import HookPoint, read_activations
from app.subject.load import Subject


class ActivationFile:
    """[tokens, d] bf16 rows on disk, BOS and other special positions left out.

    Filled batch by batch; ``progress.json`` says how many sequences are in, so a killed run carries on.
    """

    def __init__(self, folder: Path, d: int, capacity: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "activations.bf16"
        self._progress = folder / "progress.json"
        needed = capacity * d * 2
        if not self._path.is_file() or self._path.stat().st_size != needed:
            self._progress.unlink(missing_ok=True)
            with self._path.open("wb") as file:
                try:
                    os.posix_fallocate(file.fileno(), 0, needed)
                except OSError as error:
                    self._path.unlink(missing_ok=True)
                    raise DiskFull(
                        f"Training needs {needed / 1e9:.1f} GB at {folder}: {error.strerror}.",
                        path=str(folder),
                    ) from error
        self.rows = np.memmap(self._path, dtype=np.int16, mode="r+", shape=(capacity, d))

    def progress(self) -> tuple[int, int]:
        """(sequences read, rows written)."""
        if not self._progress.is_file():
            return 0, 0
        state = json.loads(self._progress.read_text())
        return state["sequences"], state["rows"]

    def advance(self, sequences: int, rows: int) -> None:
        self.rows.flush()
        partial = self._progress.with_suffix(".partial")
        partial.write_text(json.dumps({"sequences": sequences, "rows": rows}))
        partial.rename(self._progress)

    def read(self, index: Tensor) -> Tensor:
        """index: [batch] int64 -> [batch, d] fp32."""
        raw = torch.from_numpy(np.asarray(self.rows[index.numpy()]))
        return raw.view(torch.bfloat16).float()


def gather(
    subject: Subject,
    hook_point: HookPoint,
    sequences: list[Sequence],
    folder: Path,
    *,
    batch: int = 64,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[ActivationFile, int]:
    """Fill (or finish filling) the file for ``sequences``; returns it and the number of its rows."""
    special = torch.tensor(subject.special_ids)
    ids = [torch.from_numpy(s.token_ids.astype(np.int64)) for s in sequences]
    keep = [~torch.isin(i, special) for i in ids]
    capacity = int(sum(int(k.sum()) for k in keep))
    file = ActivationFile(folder, subject.d_model, capacity)
    done, row = file.progress()
    while done < len(ids):
        rows = ids[done : done + batch]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(subject.device)
        lengths = torch.tensor([len(r) for r in rows])
        mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long().to(subject.device)
        acts = read_activations(subject.model, padded, [hook_point], mask)[hook_point]
        flat = torch.cat([acts[i, : len(r)][keep[done + i].to(acts.device)] for i, r in enumerate(rows)])
        file.rows[row : row + len(flat)] = flat.to(torch.bfloat16).cpu().view(torch.int16).numpy()
        done, row = done + len(rows), row + len(flat)
        if done % (batch * 16) == 0 or done == len(ids):
            file.advance(done, row)
        on_progress(row, capacity)
    return file, capacity
