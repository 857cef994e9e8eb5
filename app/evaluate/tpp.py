"""Targeted probe perturbation (Karvonen et al. 2024, "Evaluating Sparse Autoencoders on Targeted Concept Erasure"):
latents chosen for one class are taken out, and its probe should suffer while the others' do not."""

import torch
from torch import Tensor

from app.corpus.sequences import Sequence
from app.evaluate.classes import Data, dense
from app.evaluate.outcome import NotApplicable, Outcome, Values, lines, table
from app.evaluate.probe import Probe, accuracy, fit
from app.harvest.batches import Batch
from app.sae.acts import Acts
from app.sae.base import SAE
from app.subject.load import Subject

NS = (2, 5, 10, 20, 50)
SHOWN = 10


def effects(acts: Tensor, y: Tensor, W_dec: Tensor, probe: Probe, *, signed: bool) -> Tensor:
    """What each latent brings to the class's logit: (mean of the class - mean of the rest) times W_dec . w; of unsigned
    latents only those that are stronger in the class. acts: [n, latents]; y: [n] bool -> [latents] fp64."""
    apart = (acts[y].mean(0) - acts[~y].mean(0)).double()
    apart = apart if signed else apart.clamp_min(0)
    return apart * (W_dec.double() @ probe.w)


def without(sae: SAE, acts: Acts, x: Tensor, y: Tensor, latents: Tensor) -> Tensor:
    """y: [rows, d_out] as it is when ``latents`` are 0 in the SAE's part of it; what the SAE misses stays."""
    kept = acts.keep(~torch.isin(acts.latent, latents))
    return y + (sae.decode(kept, x) - sae.decode(acts, x)).clone()


class TPP:
    def __init__(self, subject: Subject, sae: SAE, sequences: list[Sequence], seed: int) -> None:
        self.data, self.sae, self.tokens = Data(subject, sequences, seed), sae.to("cpu"), 0

    def update(self, batch: Batch, x: Tensor, y: Tensor) -> None:
        if y.shape[1] != self.sae.W_dec.shape[1]:
            raise NotApplicable("its latents write several layers, which one decoder row does not tell")
        self.tokens += batch.acts.n_positions
        self.data.update(batch, x, y)

    def result(self) -> Outcome:
        x, y, acts = self.data.gathered()
        names, parts = self.data.names, self.data.parts
        probes = {name: fit(y[parts[name, "train"].rows], parts[name, "train"].y, l2=10.0) for name in names}
        clean = {name: self._accuracy(probes, name, y) for name in names}
        rows, intended, others = [], [], []
        for name in names:
            train = parts[name, "train"]
            here = dense(acts, train.rows, self.sae.config.n_latents)
            order = effects(here, train.y, self.sae.W_dec, probes[name], signed=self.sae.config.signed)
            order = order.argsort(descending=True, stable=True)
            mine, rest = [], []
            for n in NS:
                spoilt = without(self.sae, acts, x, y, order[:n])
                drop = {other: clean[other] - self._accuracy(probes, other, spoilt) for other in names}
                mine.append(drop.pop(name))
                rest.append(sum(drop.values()) / len(drop))
            intended.append(mine)
            others.append(rest)
            at = NS.index(SHOWN)
            rows.append([name, clean[name], mine[at], rest[at], mine[at] - rest[at]])
        own, rest_ = torch.tensor(intended).mean(0), torch.tensor(others).mean(0)
        values: Values = {f"tpp_{n}": float(own[i] - rest_[i]) for i, n in enumerate(NS)}
        at = NS.index(SHOWN)
        values |= {"tpp_intended": float(own[at]), "tpp_others": float(rest_[at])}
        values |= {"tpp_clean": sum(clean.values()) / len(clean), "tpp_classes": len(names)}
        ns = [float(n) for n in NS]
        columns = ["Class", "Accuracy before", "Its own drop", "Others' drop", "Difference"]
        curves = {"its own drop": (ns, own.tolist()), "others' drop": (ns, rest_.tolist())}
        return Outcome(values, self.tokens, {
            "tables": [table(f"With {SHOWN} latents of the class taken out", columns, rows)],
            "lines": [lines("Drop of the probes' accuracy", "latents taken out", "drop", curves)],
        })  # fmt: skip

    def _accuracy(self, probes: dict[str, Probe], name: str, y: Tensor) -> float:
        test = self.data.parts[name, "test"]
        return accuracy(probes[name], y[test.rows], test.y)
