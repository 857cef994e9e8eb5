"""What a training will take, before it begins."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from app.corpus.sequences import Sequence as Tokens
from app.errors import BadRequest
from app.subject.load import Subject
from app.train.activations import GRADIENT, kept_tokens, widths
from app.train.ideas import named
from app.train.run import Plan, Recipe


class Estimate(NamedTuple):
    """activations and checkpoints: bytes on disk."""

    tokens: int
    steps: int
    places: int
    activations: int
    checkpoints: int


def places(recipe: Recipe, plans: Sequence[Plan]) -> list[str]:
    """What is gathered: where the SAEs read and write, and the gradient where an idea asks for it."""
    found = [recipe.hook_point, recipe.writes or recipe.hook_point]
    if any(named(plan.idea).wants_gradient for plan in plans):
        found.append(GRADIENT + recipe.hook_point)
    return list(dict.fromkeys(found))


def estimate(
    subject: Subject, sequences: Sequence[Tokens], recipe: Recipe, plans: Sequence[Plan], home: Path
) -> Estimate:
    """
    Raises:
        BadRequest: there is less text than a batch.
    """
    tokens = enough(subject, sequences, recipe)
    wide = widths(subject, places(recipe, plans))
    sizes = [
        2 * plan.n_latents * (wide[recipe.hook_point] + wide[recipe.writes or recipe.hook_point]) for plan in plans
    ]
    steps = tokens // recipe.batch * recipe.epochs
    return Estimate(tokens, steps, len(wide), 2 * tokens * sum(wide.values()), 6 * sum(sizes))


def enough(subject: Subject, sequences: Sequence[Tokens], recipe: Recipe) -> int:
    """The tokens there are to train on.

    Raises:
        BadRequest: they are fewer than a batch.
    """
    tokens = kept_tokens(subject, sequences)
    if tokens < recipe.batch:
        raise BadRequest(
            f"The corpus has {tokens:,} tokens to train on, fewer than one batch of {recipe.batch:,}; give more text.",
            tokens=tokens,
        )
    return tokens
