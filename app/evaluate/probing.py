"""Sparse probing: how well a class of tokens is told by a few latents (Gurnee et al. 2023; SAEBench)."""

import torch
from torch import Tensor

from app.corpus.sequences import Sequence
from app.evaluate.classes import Data, dense
from app.evaluate.outcome import Outcome, Values, lines, table
from app.evaluate.probe import accuracy, fit, separation
from app.harvest.batches import Batch
from app.sae.base import SAE
from app.subject.load import Subject

KS = (1, 2, 5, 10, 20)


def by_k(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor) -> list[float]:
    """Accuracy on test with the k columns of x [n, d] that are furthest apart on train, for each of KS."""
    order = separation(x, y).abs().argsort(descending=True, stable=True)
    return [accuracy(fit(x[:, order[:k]], y), x_test[:, order[:k]], y_test) for k in KS]


class Probing:
    def __init__(self, subject: Subject, sae: SAE, sequences: list[Sequence], seed: int) -> None:
        self.data, self.n, self.tokens = Data(subject, sequences, seed), sae.config.n_latents, 0

    def update(self, batch: Batch, x: Tensor, y: Tensor) -> None:
        self.tokens += batch.acts.n_positions
        self.data.update(batch, x, y)

    def result(self) -> Outcome:
        _, y, acts = self.data.gathered()
        rows, latents, dims, whole = [], [], [], []
        for name in self.data.names:
            train, test = self.data.parts[name, "train"], self.data.parts[name, "test"]
            full = accuracy(fit(y[train.rows], train.y, l2=10.0), y[test.rows], test.y)
            mine = by_k(dense(acts, train.rows, self.n), train.y, dense(acts, test.rows, self.n), test.y)
            plain = by_k(y[train.rows], train.y, y[test.rows], test.y)
            whole.append(full)
            latents.append(mine)
            dims.append(plain)
            rows.append([name, *mine, plain[0], plain[-1], full, len(train.rows), len(test.rows)])
        of_latents, of_dims = torch.tensor(latents).mean(0).tolist(), torch.tensor(dims).mean(0).tolist()
        values: Values = {f"probe_{k}": of_latents[i] for i, k in enumerate(KS)}
        values |= {f"probe_dims_{k}": of_dims[i] for i, k in enumerate(KS) if k in (1, 20)}
        values |= {"probe_all": sum(whole) / len(whole), "probe_classes": len(whole)}
        ks = [float(k) for k in KS]
        columns = ["Class", *(f"{k} latents" for k in KS), "1 dimension", f"{KS[-1]} dimensions", "All dimensions",
                   "Train", "Test"]  # fmt: skip
        return Outcome(values, self.tokens, {
            "tables": [table("Accuracy on tokens of other documents, half of them of the class", columns, rows)],
            "lines": [lines("Accuracy, mean over classes", "latents or dimensions", "accuracy",
                            {"latents": (ks, of_latents), "dimensions of the activation": (ks, of_dims)})],
        })  # fmt: skip
