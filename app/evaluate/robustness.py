"""How far the active latents of a text stay the same when its spelling, case or spacing is spoilt."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from app.corpus.sequences import Held, Sequence
from app.evaluate.outcome import NotApplicable, Outcome, Values, lines, mean, table
from app.evaluate.perturb import FAULTS, perturbed
from app.harvest.batches import groups
from app.harvest.reader import Reader

TEXTS = 48
LEVELS = (0.05, 0.1, 0.25, 0.5)
HEADLINE = 0.1


class Reading(NamedTuple):
    """cells: text * n + latent of what is active anywhere in a text, ascending, each once; means: [texts, d_in], the
    mean of what the SAE read; texts, tokens: how many."""

    cells: Tensor
    means: Tensor
    texts: int
    tokens: int


def jaccard(a: Reading, b: Reading, n: int) -> Tensor:
    """[texts]: of the latents active in either, the share active in both; nan where there is none."""
    both = torch.bincount(a.cells[torch.isin(a.cells, b.cells)] // n, minlength=a.texts)
    one, other = (torch.bincount(x.cells // n, minlength=a.texts) for x in (a, b))
    return both.double() / (one + other - both)


def turned(a: Reading, n: int) -> Reading:
    """Each text with the one after it in its place."""
    text = (a.cells // n - 1) % a.texts
    return a._replace(cells=(text * n + a.cells % n).sort().values, means=a.means.roll(-1, 0))


class Robustness:
    """texts: [T], read as they are and spoilt."""

    def __init__(self, reader: Reader, sequences: list[Sequence], batch_tokens: int, seed: int) -> None:
        self.reader, self.batch_tokens, self.seed = reader, batch_tokens, seed
        subject = reader.subject
        step = max(1, len(sequences) // TEXTS)
        ids = [[int(i) for i in s.token_ids if i not in subject.special_ids] for s in sequences[::step][:TEXTS]]
        self.texts = [text for text in (subject.tokenizer.decode(row) for row in ids) if text.strip()]
        if len(self.texts) < 2:
            raise NotApplicable("there are fewer than two texts to compare")
        self.bos = [int(i) for i in sequences[0].token_ids[:1] if i == subject.bos_id]

    def read(self, texts: list[str]) -> Reading:
        subject = self.reader.subject
        rows = [np.array((self.bos + subject.encode(text))[: subject.max_context], np.int32) for text in texts]
        n = self.reader.saes[0].config.n_latents
        cells, sums = [], torch.zeros(len(rows), self.reader.saes[0].config.d_in, dtype=torch.float64)
        counts = torch.zeros(len(rows))
        for first, some in groups(Held(Sequence(row, "") for row in rows), self.batch_tokens):
            for (read,) in self.reader.read(first, some):
                text = (read.batch.sequence + read.batch.first_sequence).cpu()
                acts = read.batch.acts
                cells.append((text[acts.position.cpu()] * n + acts.latent.cpu()).unique())
                sums.index_add_(0, text, read.x.double().cpu())
                counts += torch.bincount(text, minlength=len(rows))
        means = sums / counts.clamp_min(1)[:, None]
        return Reading(torch.cat(cells).sort().values, means, len(rows), int(counts.sum()))

    def result(self) -> Outcome:
        n, whole = self.reader.saes[0].config.n_latents, self.read(self.texts)
        other = turned(whole, n)
        values: Values = {
            "jaccard_between": mean(jaccard(whole, other, n)), "subject_between": mean(alike(whole, other))
        }  # fmt: skip
        curves: dict[str, tuple[list[float], list[float]]] = {}
        rows, tokens = [], whole.tokens
        for fault in FAULTS:
            curve = [1.0]
            for level in LEVELS:
                spoilt = self.read([perturbed(text, fault, level, self.seed) for text in self.texts])
                tokens += spoilt.tokens
                found, subject = jaccard(whole, spoilt, n), alike(whole, spoilt)
                curve.append(mean(found) or 0.0)
                rows.append([fault, f"{level:.0%}", mean(found), float(found.nan_to_num().min()), mean(subject)])
                if level == HEADLINE:
                    values |= {f"jaccard_{fault}": mean(found), f"subject_{fault}": mean(subject)}
            curves[fault] = ([0.0, *LEVELS], curve)
        values["texts"] = whole.texts
        columns = ["Fault", "Share", "Jaccard, mean", "Jaccard, least", "Cosine of the subject's means"]
        return Outcome(values, tokens, {
            "lines": [lines("Active latents that stay", "share of words or gaps", "Jaccard", curves)],
            "tables": [table("By fault and share of words or gaps", columns, rows)],
        })  # fmt: skip


def alike(a: Reading, b: Reading) -> Tensor:
    """[texts]: cosine of the means of what the SAE read."""
    return torch.nn.functional.cosine_similarity(a.means, b.means, dim=1)
