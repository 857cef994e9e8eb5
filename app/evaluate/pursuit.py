"""Matching pursuit over the SAE's own decoder rows: how well they reconstruct with as many as it takes (Costa et al.
2025, "From Flat to Hierarchical")."""

import torch
from torch import Tensor

from app.evaluate.outcome import NotApplicable, Outcome, Values, lines, mean, table
from app.harvest.batches import Batch
from app.sae.base import SAE
from app.sae.metrics import Reconstruction
from app.sae.normalise import Normalisation
from app.sae.pursuit import MatchingPursuit

POSITIONS = 2048
STEPS = 64
TOLERANCES = (0.5, 0.4, 0.3, 0.2, 0.1)


class Pursuit:
    def __init__(self, sae: SAE, tokens: int) -> None:
        b_dec, kind = getattr(sae, "b_dec", None), getattr(sae, "normalise", Normalisation())
        if (
            not isinstance(b_dec, Tensor)
            or b_dec.shape != sae.W_dec.shape[1:]
            or kind.kind != "none"
            or sae.config.reads != sae.config.writes
            or len(sae.config.reads) > 1
        ):
            raise NotApplicable("its reconstruction is not a plain sum of decoder rows of what it reads")
        rows = sae.W_dec.float()
        rows = rows[rows.norm(dim=1) > 0]
        greedy = sae.config.signed and isinstance(sae, MatchingPursuit)  # its own encoder takes the greatest projection
        if sae.config.signed and not greedy:  # each direction may be taken either way
            rows = torch.cat([rows, -rows])
        self.sae, self.every = sae, max(1, tokens // POSITIONS)
        self.pursuit = MatchingPursuit(
            config=sae.config, W_dec=torch.nn.functional.normalize(rows, dim=1), b_dec=b_dec, steps=STEPS,
            relu=not greedy, subtract_b_dec=True,
        )  # fmt: skip
        self.encoder = Reconstruction(rows.shape[1])
        self.seen, self.parts = 0, list[Tensor]()

    def update(self, batch: Batch, x: Tensor, y: Tensor) -> None:
        number = torch.arange(len(x), device=x.device) + self.seen
        self.seen += len(x)
        some = x[number % self.every == 0].float()
        acts = self.sae.encode(some)
        self.encoder.update(some, self.sae.decode(acts, some), acts)
        self.parts.append(some)

    def result(self) -> Outcome:
        x = torch.cat(self.parts)
        left = self.pursuit.pursue(x).residual.double()
        whole = self.encoder.result()
        total = (x.double() - x.double().mean(0)).pow(2).sum()
        fvu = (left.pow(2).sum(0) / total).tolist()
        l0 = round(float(whole["l0"] or 0))
        values: Values = {f"pursuit_fvu_{k}": fvu[k - 1] for k in (8, 16, 32, 64)}
        values |= {"pursuit_fvu_at_l0": fvu[l0 - 1] if 1 <= l0 <= STEPS else None, "encoder_fvu": whole["fvu"],
                   "encoder_l0": whole["l0"]}  # fmt: skip
        start = (x - self.pursuit.b_dec).double().norm(dim=1)
        rows = []
        for tolerance in TOLERANCES:
            reached = left <= tolerance * start[:, None]
            there = reached.any(1)
            steps = reached[there].double().argmax(1) + 1
            rows.append([tolerance, float(there.double().mean()), mean(steps.double()), _spread(steps)])
            if tolerance == 0.4:
                values |= {"pursuit_steps": mean(steps.double()), "pursuit_reached": rows[-1][1]}
        columns = ["|r| / |x − b_dec|", "Tokens that reach it", "Steps, mean", "Steps, standard deviation"]
        curve = {"matching pursuit": ([float(k) for k in range(1, STEPS + 1)], fvu)}
        if whole["fvu"] is not None:
            curve["the SAE's encoder"] = ([float(whole["l0"] or 0)] * 2, [0.0, float(whole["fvu"])])
        return Outcome(values, len(x), {
            "lines": [lines("FVU by number of steps", "steps (the encoder: its L0)", "FVU", curve)],
            "tables": [table(f"Steps until what is left is small, {STEPS} at most", columns, rows)],
        })  # fmt: skip


def _spread(steps: Tensor) -> float | None:
    return float(steps.double().std()) if len(steps) > 1 else None
