"""Feature absorption on the first-letter task (Chanin et al. 2024, "A is for Absorption"; SAEBench,
absorption_first_letter): a latent for a letter stays silent on some words that begin with it, and another latent there
carries the letter along."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from app.corpus.sequences import Held, Sequence
from app.evaluate.outcome import NotApplicable, Outcome, Values, table
from app.evaluate.probe import f1, fit, separation
from app.harvest.batches import groups, pad
from app.harvest.reading import Hooks
from app.sae.acts import Acts, joined
from app.sae.base import SAE
from app.subject.load import Subject

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = 120  # of a letter, at most
LEAST = 40  # of a letter, to be looked at
TEST = 0.2
EXAMPLES = (("tiger", "T"), ("apple", "A"), ("market", "M"), ("silver", "S"), ("house", "H"))
SPLITS, GAIN = 10, 0.03  # latents of a letter at most, and the F1 that each further one must bring
ALIGNED, FULLY_ALIGNED = 0.1, 0.025  # least cosines with the probe, for the fraction and for full absorption
SHARE = 0.4  # of the probe's projection that absorbers must bring
ABSORBERS = 3


class Words(NamedTuple):
    """x: [words, d], acts: of them, letter: [words] int64, test: [words] bool."""

    x: Tensor
    acts: Acts
    letter: Tensor
    test: Tensor


class Absorbed(NamedTuple):
    """Of words [n]: fraction fp64 and full bool."""

    fraction: Tensor
    full: Tensor


def absorbed(x: Tensor, acts: Tensor, W_dec: Tensor, direction: Tensor, mains: Tensor) -> Absorbed:
    """x: [n, d], acts: [n, latents], of words whose letter the probe tells; direction: [d], the probe's; mains: the
    letter's latents.

    With u the unit probe, each latent brings p_i = a_i (W_dec,i . u) of p = x . u. The fraction is 0 where the mains
    bring p or more, or the three strongest others with a cosine of 0.1 and more bring less than 0.4 p together; 1
    where the mains bring nothing; else A / (A + M) with M the mains' and A the others' part, at most p - M. A word is
    fully absorbed where no main fires, and the strongest latent has a cosine of 0.025 or more and brings 0.4 p or
    more, p not below 0.
    """
    u = direction.double() / direction.double().norm()
    along = W_dec.double() @ u
    cosine = along / W_dec.double().norm(dim=1).clamp_min(1e-12)
    whole = x.double() @ u
    parts = acts.double() * along
    main = parts[:, mains].sum(1)
    others = torch.ones(len(W_dec), dtype=torch.bool)
    others[mains] = False
    able = parts.clamp_min(0) * (others & (cosine >= ALIGNED))
    absorbers = able.topk(min(ABSORBERS, able.shape[1]), dim=1).values.sum(1)
    carried = torch.minimum(absorbers, whole - main)
    fraction = torch.where(main <= 0, 1.0, (carried / (carried + main).clamp_min(1e-12)).clamp(0, 1))
    fraction = torch.where((main >= whole) | (absorbers < SHARE * whole), 0.0, fraction)
    strongest, which = parts.max(dim=1)
    silent = (acts[:, mains] == 0).all(1)
    full = silent & (cosine[which] >= FULLY_ALIGNED) & (whole >= 0) & (strongest >= SHARE * whole)
    return Absorbed(torch.where(whole > 0, fraction, 0.0), full)


def main_latents(acts: Tensor, y: Tensor) -> Tensor:
    """The latents that tell the letter together: the one furthest apart, and further ones while each brings 0.03 of F1.
    acts: [n, latents]; y: [n] bool."""
    order = separation(acts, y).argsort(descending=True, stable=True)[:SPLITS]
    best, k = 0.0, 0
    while k < len(order):
        some = order[: k + 1]
        now = f1(fit(acts[:, some], y).logits(acts[:, some]) > 0, y)
        if k and now - best <= GAIN:
            break
        best, k = now, k + 1
    return order[:k]


class Absorption:
    def __init__(self, subject: Subject, sae: SAE, batch_tokens: int, seed: int) -> None:
        if sae.config.reads != sae.config.writes or len(sae.config.reads) > 1:
            raise NotApplicable(
                "it does not write what it reads, so a probe of that is in another space than its latents"
            )
        if sae.config.heads is not None:
            raise NotApplicable("it reads attention heads, not a residual stream")
        self.subject, self.sae, self.batch_tokens, self.seed = subject, sae, batch_tokens, seed
        self.hooks = Hooks.of(sae, subject)
        self.chosen, self.space = words(subject, seed)
        if len(self.chosen) < 3:
            raise NotApplicable(
                "the vocabulary holds 40 whole words or more with fewer than three letters of the alphabet"
            )

    def read(self) -> Words:
        """The SAE's input at each word, after five examples of the task."""
        subject = self.subject
        before = "\n".join(f"{self.space}{word}: {letter}" for word, letter in EXAMPLES) + "\n"
        bos = [subject.bos_id] if subject.bos_id is not None and self.sae.config.prepend_bos else []
        prefix = bos + subject.encode(before)
        rows, letters, test = [], [], []
        for letter, ids in self.chosen.items():
            rows += [np.array([*prefix, one], np.int32) for one in ids]
            letters += [LETTERS.index(letter)] * len(ids)
            test += [number < round(TEST * len(ids)) for number in range(len(ids))]
        parts, acts = [], []
        for _, some in groups(Held(Sequence(row, "") for row in rows), self.batch_tokens):
            padded = pad(some, subject.device)
            last = torch.zeros_like(padded.token_ids, dtype=torch.bool)
            last[:, -1] = True
            x = self.hooks.inputs(self.sae, self.hooks.read(subject, padded), last)
            found = self.sae.encode(x)
            parts.append(x.float().cpu())
            acts.append(Acts(found.position.cpu(), found.latent.cpu(), found.value.cpu(), found.n_positions))
        return Words(torch.cat(parts).clone(), joined(acts), torch.tensor(letters), torch.tensor(test))

    def result(self) -> Outcome:
        found = self.read()
        acts, W_dec = found.acts.dense(self.sae.config.n_latents), self.sae.W_dec.float().cpu()
        rows, scores = [], []
        for letter in self.chosen:
            y = found.letter == LETTERS.index(letter)
            probe = fit(found.x[~found.test], y[~found.test], l2=10.0)
            said = probe.logits(found.x) > 0
            mains = main_latents(acts[~found.test], y[~found.test])
            told = fit(acts[~found.test][:, mains], y[~found.test])
            mains_f1 = f1(told.logits(acts[found.test][:, mains]) > 0, y[found.test])
            right = found.test & said & y
            if not right.any():
                continue
            one = absorbed(found.x[right], acts[right], W_dec, probe.w, mains)
            score = (float(one.full.double().mean()), float(one.fraction.mean()), f1(said & found.test, y & found.test))
            scores.append((*score, mains_f1, float(len(mains))))
            rows.append([letter, int(y.sum()), int(right.sum()), *score, mains_f1, ", ".join(map(str, mains.tolist()))])
        if not scores:
            raise NotApplicable("no probe of the subject's activations tells a letter")
        full, fraction, probe_f1, mains_f1, split = np.array(scores).mean(0).tolist()
        values: Values = {
            "full_absorption": full, "absorption_fraction": fraction, "letter_probe_f1": probe_f1,
            "letter_latents_f1": mains_f1, "letter_split": split, "letters": len(scores),
            "letter_words": len(found.letter),
        }  # fmt: skip
        columns = ["Letter", "Words", "Test words told", "Fully absorbed", "Fraction", "F1 of the probe",
                   "F1 of its latents", "Its latents"]  # fmt: skip
        return Outcome(values, None, {"tables": [table("By letter", columns, rows)]})


def words(subject: Subject, seed: int) -> tuple[dict[str, list[int]], str]:
    """Tokens that are whole words of four small letters or more, by first letter, those of the examples left out; and
    what stands before them in the prompt. Where the vocabulary has more such words with a space in front, these are
    taken."""
    examples = {word for word, _ in EXAMPLES}
    found: dict[str, dict[bool, list[int]]] = {letter: {False: [], True: []} for letter in LETTERS}
    for token in range(len(subject.vocabulary)):
        text = subject.vocabulary.text(token)
        word = text.removeprefix(" ")
        if len(word) >= 4 and word.isascii() and word.isalpha() and word.islower() and word not in examples:
            found[word[0]][text != word].append(token)
    spaced = sum(len(both[True]) for both in found.values()) >= sum(len(both[False]) for both in found.values())
    rng = np.random.default_rng([seed, 20])
    out = {letter: rng.permutation(both[spaced])[:WORDS].tolist() for letter, both in found.items()}
    return {letter: ids for letter, ids in out.items() if len(ids) >= LEAST}, " " if spaced else ""
