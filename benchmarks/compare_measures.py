"""What benchmarks/compare_saes.py measures beside `saescope eval`: recovery of planted directions, and what taking one
active latent out does to the subject's prediction."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from app.corpus.sequences import Sequence as Tokens
from app.harvest.batches import counted, pad
from app.harvest.reading import Hooks
from app.sae.base import SAE
from app.subject.edits import logits_with
from app.subject.load import Subject
from app.train.ideas import IDEAS
from app.train.plans import plans
from app.train.planted import hierarchical, planted, recovery, trained
from app.train.run import Plan, Recipe

ROWS, LATENTS, ACTIVE = 40_960, 256, 4
DRAWS, AT_ONCE = 4, 8  # latents taken out a sequence; sequences in a batch
FLOOR = 2 - 2**-9  # ten groups, each with half the frequency of the one before: the sum, over the first's


def planted_recovery(plan: Plan) -> dict[str, float]:
    """The idea on activations of 128 known directions in 64 dimensions, about 4 active at a row: flat, and in 16
    families of a parent and 7 children (2 of either active). With 256 latents and the idea's own options, but k, L0 and
    frequencies for 4 active latents. Told are the mean of each direction's largest cosine to a decoder row, and the
    share above 0.9."""
    idea = IDEAS[plan.idea]
    few = {"k": f"{ACTIVE}", "l0": f"{ACTIVE}", "frequency": str(ACTIVE / (LATENTS / 10 * FLOOR))}
    (small,) = plans([plan.idea], [plan.seed], LATENTS, {n: v for n, v in few.items() if hasattr(idea.Options(), n)})
    recipe = Recipe(epochs=10, batch=512, lr=3e-3, warmup=0, dead_after=20_000)
    told: dict[str, float] = {}
    for kind, made in (("planted", planted(ROWS, seed=1)), ("families", hierarchical(ROWS, seed=1))):
        with tempfile.TemporaryDirectory() as folder:
            sae = trained(small, made, recipe, Path(folder))
        found = recovery(sae.W_dec, made.atoms, signed=idea.signed)
        told |= {f"{kind}_cosine": found.cosine, f"{kind}_found": found.found}
    return told


@torch.inference_mode()
def effect(subject: Subject, sae: SAE, sequences: Sequence[Tokens], seed: int = 0) -> dict[str, float]:
    """KL, in nats, of the next token's distribution when one active latent's part of the reconstruction is taken out at
    one position, the SAE's error left in: over positions and their latents drawn evenly, ``DRAWS`` a sequence. Also its
    mean by the share of the activation's squared norm that is taken out, for latents of unlike strength."""
    hooks, g = Hooks.of(sae, subject), torch.Generator().manual_seed(seed)
    special = torch.tensor(subject.special_ids)
    kl, taken = [], []
    for first in range(0, len(sequences), AT_ONCE):
        padded = pad(list(sequences[first : first + AT_ONCE]), subject.device)
        mask = counted(padded, special)
        found = hooks.read(subject, padded)
        x = hooks.inputs(sae, found, mask)
        acts = sae.encode(x)
        row = mask.nonzero()[:, 0]  # of each position: its sequence
        ((point, width),) = [(point, found[point].shape[-1]) for point in hooks.writes]
        before = logits_with(subject.model, padded.token_ids, padded.attention, {}, mask).log_softmax(-1)
        for _ in range(DRAWS):
            value, where = torch.zeros(*mask.shape, width), torch.zeros_like(mask)
            for sequence in range(len(mask)):
                entries = (row[acts.position] == sequence).nonzero()[:, 0]
                if not len(entries):
                    continue
                drawn = entries[torch.randint(len(entries), (1,), generator=g)]
                position, part = acts.position[drawn], acts.value[drawn, None] * sae.W_dec[acts.latent[drawn]]
                place = int(mask[sequence].nonzero()[int((row[:position] == sequence).sum()), 0])
                value[sequence, place] = (x[position] - part.float())[0]
                where[sequence, place] = True
                taken.append(float(part.pow(2).sum() / x[position].pow(2).sum()))
            after = logits_with(subject.model, padded.token_ids, padded.attention, {point: value}, where).log_softmax(
                -1
            )
            kl += (before.exp() * (before - after)).sum(-1)[where].double().tolist()
    return {
        "effect": sum(kl) / len(kl), "effect_median": float(torch.tensor(kl).median()),
        "effect_by_share": sum(kl) / sum(taken), "effect_draws": len(kl),
    }  # fmt: skip
