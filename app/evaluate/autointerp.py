"""How well rules learned without a language model tell where latents fire: the free explainers' held-out scores."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from sqlalchemy import Engine

from app.errors import CorpusUnavailable
from app.evaluate.outcome import NotApplicable, Outcome, Values, bars
from app.explain.codes import read_codes
from app.explain.free import RULES, Recipe, Watch, Work
from app.sae.metrics import finite
from app.store.engine import explained
from app.store.explain_sources import ExplainSource, read_facts
from app.subject.load import load_tokenizer, special_ids
from app.subject.tokens import Vocabulary


def autointerp(
    source: ExplainSource, engine: Engine, home: Path, tokens: int, seed: int, device: str, watch: Watch
) -> Outcome:
    """Rules are learned and scored as ``saescope explain --method rules`` does, and not saved.

    Raises:
        NotApplicable: the text cannot be kept apart for learning and testing.
    """
    with explained(), engine.connect() as connection:
        facts = read_facts(connection, source.id)
    try:
        sampled = read_codes(engine, source, home, tokens, device=device, doing=watch.doing, step=watch.step)
    except CorpusUnavailable as error:
        raise NotApplicable(error.message.rstrip(".")[:1].lower() + error.message.rstrip(".")[1:]) from None
    tokenizer = load_tokenizer(home / source.subject_path)
    work = Work(
        source, facts, sampled, Recipe((RULES,), tokens, seed), Vocabulary.of(tokenizer), special_ids(tokenizer), watch
    )
    scored = work.run()[3][RULES]
    headline, on_tokens = scored.windows.headline, scored.tokens
    known = headline[~np.isnan(headline)]
    counts, edges = np.histogram(known, 20, (0, 1))
    values: Values = {
        "rules_accuracy": _mean(headline), "rules_accuracy_median": _median(headline),
        "rules_shuffled": _mean(scored.windows.control), "rules_f1": _mean(on_tokens.f1),
        "rules_auprc": _mean(on_tokens.auprc), "rules_scored": len(known), "rules_latents": source.n_latents,
    }  # fmt: skip
    chart = bars("Balanced accuracy of rules", "balanced accuracy", torch.from_numpy(edges), torch.from_numpy(counts))
    return Outcome(values, int(sampled.codes.counted.sum()), {"bars": [chart]})


def _mean(values: Any) -> float | None:
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return finite(float(known.mean())) if len(known) else None


def _median(values: Any) -> float | None:
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return float(np.median(known)) if len(known) else None
