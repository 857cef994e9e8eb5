"""Scores by the subject itself, which cost no endpoint's money: what an explanation says about texts, and what steering
says about it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from app.explain.tally import Real, Tally, interval
from app.live.edit import Edit
from app.live.effect import effect
from app.live.generate import generate
from app.sae.base import SAE
from app.subject.load import Subject
from app.subject.precise import fp32_logits

if TYPE_CHECKING:
    from app.explain.samples import Sampler, Window

TOGETHER = 32  # texts in one forward
KL = 0.5  # nats a position, at which steering is compared
CHOOSING, SCORING = 4, 8  # prompts: to find the amount, to score
PROMPT, CONTINUED = 16, 24  # tokens
DOUBLINGS, HALVINGS = 10, 5
_WITH = "These texts have something in common: {}.\n\nText: "
_WITHOUT = "These texts have something in common.\n\nText: "
_ABOUT = "\n\nWhat stands out in the text above, in a few words: "


@dataclass(eq=False)
class LocalSubject:
    """The subject and its SAE on this machine."""

    subject: Subject
    sae: SAE
    sampler: "Sampler"
    _without: dict[tuple[int, int], float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.subject.name

    def surprisal(self, text: str, windows: "Sequence[Window]") -> list[float]:
        """How much likelier a token of each window is, in nats a token, after the explanation than after the same words
        without it."""
        keys = [(one.sequence, one.start) for one in windows]
        fresh = [one for one, key in zip(windows, keys, strict=True) if key not in self._without]
        for one, value in zip(fresh, self._after(_WITHOUT, [one.token_ids for one in fresh]), strict=True):
            self._without[one.sequence, one.start] = value
        told = self._after(_WITH.format(text.rstrip(".")), [one.token_ids for one in windows])
        return [value - self._without[key] for value, key in zip(told, keys, strict=True)]

    def intervention(self, one: tuple[int, int], text: str, control: str | None, seed: Sequence[int]) -> Tally:
        """Mean over continued prompts of log p(explanation | steered text) - log p(explanation | clean text), in nats,
        the latent's direction added with the strength at which KL(edited || clean) is 0.5 nats a position on other
        prompts (Paulo et al. 2024, "Automatically Interpreting Millions of Features in Large Language Models")."""
        latent, sign = one
        rng = np.random.default_rng([*seed, 8])
        choosing, scoring = self._prompts("val", CHOOSING, rng), self._prompts("test", SCORING, rng)
        amount, reached = self._amount(latent, sign, choosing)
        edit = [Edit(0, latent, "steer", amount)]
        clean, steered = [], []
        for number, prompt in enumerate(scoring):
            steps = list(
                generate(
                    self.subject.model, [self.sae], edit, prompt, special_ids=self.subject.special_ids,
                    max_new=CONTINUED, seed=number,
                )
            )  # fmt: skip
            clean.append([step.baseline for step in steps if step.baseline is not None])
            steered.append([step.edited for step in steps if step.edited is not None])
        gains = self._gains(text, clean, steered)
        other = None if control is None else float(self._gains(control, clean, steered).mean())
        status = "ok" if len(gains) >= SCORING // 2 and reached else "few"
        gain = float(gains.mean()) if len(gains) else None
        bounds = interval([gains], lambda drawn: drawn.mean(1), seed)
        facts = {"gain": gain, "amount": amount, "kl": KL if reached else None, "texts": len(gains)}
        return Tally(
            status, len(gains), 0, 0, gain if status == "ok" else None, control=other, facts=facts,
            ci_low=bounds and bounds[0], ci_high=bounds and bounds[1],
        )  # fmt: skip

    def _prompts(self, split: str, n: int, rng: np.random.Generator) -> list[list[int]]:
        """The first tokens of windows drawn from a split, after BOS."""
        from app.explain.samples import SPLITS

        grid, ids = self.sampler.grid, self.sampler.codes.token_ids
        special, bos = self.subject.special_ids, self.subject.bos_id
        there = np.flatnonzero(grid.split == SPLITS.index(split))
        out = []
        for window in rng.permutation(there)[:n].tolist():
            tokens = [i for i in ids[grid.begin[window] : grid.end[window]].tolist() if i not in special][:PROMPT]
            out.append([*([] if bos is None else [bos]), *tokens])
        return out

    def _amount(self, latent: int, sign: int, prompts: Sequence[list[int]]) -> tuple[float, bool]:
        """The amount of steering, and whether it reaches the KL: doubled until it does, then halved in between."""

        def kl(amount: float) -> float:
            edits, special = [Edit(0, latent, "steer", sign * amount)], self.subject.special_ids
            found = [
                effect(self.subject.model, [self.sae], edits, prompt, special_ids=special).kl[1:].mean().item()
                for prompt in prompts
            ]
            return sum(found) / len(found)

        low, high = 0.0, max(float(self.sampler.maxima[latent, int(sign < 0)]), 1e-3)
        for _ in range(DOUBLINGS):
            if kl(high) >= KL:
                break
            low, high = high, 2 * high
        else:
            return sign * high, False
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if kl(middle) >= KL else (middle, high)
        return sign * high, True

    def _gains(self, text: str, clean: Sequence[list[int]], steered: Sequence[list[int]]) -> Real:
        """[texts]: what each pair of texts says for the explanation, in nats."""
        about, said = self.subject.encode(_ABOUT), np.array(self.subject.encode(text), np.int32)
        pairs = [pair for pair in zip(clean, steered, strict=True) if all(pair)]
        sides = [self._likely([[*pair[side], *about] for pair in pairs], [said] * len(pairs)) for side in (0, 1)]
        gains: Real = (np.array(sides[1]) - np.array(sides[0])) * len(said)
        return gains

    def _after(self, prefix: str, rows: Sequence[np.ndarray]) -> list[float]:
        return self._likely([self.subject.encode(prefix)] * len(rows), rows)

    @torch.inference_mode()
    def _likely(self, prefixes: Sequence[list[int]], rows: Sequence[np.ndarray]) -> list[float]:
        """Mean log-probability in nats of each row's tokens after its prefix, BOS before it; special ones do not
        count."""
        out: list[float] = []
        bos = [] if self.subject.bos_id is None else [self.subject.bos_id]
        special = torch.tensor(self.subject.special_ids, dtype=torch.int64)
        for first in range(0, len(rows), TOGETHER):
            some = list(zip(prefixes, rows, strict=True))[first : first + TOGETHER]
            whole = [[*bos, *prefix, *row.tolist()] for prefix, row in some]
            width = max(map(len, whole))
            ids = torch.zeros(len(whole), width, dtype=torch.int64)
            mask, counted = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
            for i, (line, (_, row)) in enumerate(zip(whole, some, strict=True)):
                ids[i, : len(line)] = torch.tensor(line)
                mask[i, : len(line)] = 1
                counted[i, len(line) - len(row) : len(line)] = True
            counted &= ~torch.isin(ids, special)
            out += self._mean(ids.to(self.subject.device), mask.to(self.subject.device), counted)
        return out

    def _mean(self, ids: Tensor, mask: Tensor, counted: Tensor) -> list[float]:
        with fp32_logits(self.subject.model):
            logits = self.subject.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        out = []
        for row, these, where in zip(logits, ids, counted.to(ids.device), strict=True):
            place = where.nonzero()[:, 0]
            log_p = row[place - 1].float().log_softmax(-1).gather(1, these[place, None])[:, 0]
            out.append(float(log_p.mean()) if len(place) else 0.0)
        return out
