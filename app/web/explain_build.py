"""Rows of explanations and scores to page contexts."""

from typing import Any

import numpy as np

from app import urls
from app.explain.rules import Rule, Topic, rule_from_json
from app.explain.samples import KINDS
from app.store.explanations import ExplanationRecord, ScoreRecord, SummaryRecord, WindowRecord
from app.store.queries import LatentRecord, SAERecord
from app.subject.tokens import Vocabulary
from app.web import explain_contexts as c

HOW = {
    "token-rules": "A rule learned on train documents, with no language model",
    "vocab-projection": "The tokens whose logits the decoder row raises most",
    "llm": "Written by a language model that saw train documents",
    "llm-contrastive": "Written by a language model that saw train documents, also ones in which it is not active",
    "imported": "From another tool's file, not scored here",
    "person": "Written by a person",
}
KIND_NAMES = {
    "active": "active",
    "random": "random",
    "neighbour": "a decoder neighbour fires",
    "same_token": "same token, not active",
}
_SCORE = tuple(name for name in c.ExplanationScore.model_fields if name != "url")


def explanation(sae: SAERecord, latent: LatentRecord, record: ExplanationRecord) -> c.Explanation:
    return c.Explanation(
        id=record.id,
        sign=record.sign,
        method=record.method,
        model=record.model,
        author=record.author,
        text=record.text,
        label=record.label,
        failure=str(record.parameters.get("failure") or record.status) if record.status != "ok" else None,
        how=how(record),
        made=record.made.isoformat(timespec="seconds"),
        votes=record.votes,
        chosen=record.id == latent.explanation_id,
        earlier=[c.EarlierText(text=one["text"], author=one["author"], made=one["made"][:19]) for one in record.edits],
        scores=[score(sae, latent.index, one) for one in record.scores],
    )


def how(record: ExplanationRecord) -> str:
    told = HOW.get(record.method, record.method)
    reading = {"here": "read as the token itself", "next": "read as the next token"}.get(
        str(record.parameters.get("reading"))
    )
    parts = [told, reading, record.model and f"by {record.model}", record.author and f"by {record.author}"]
    return ", ".join(part for part in parts if part)


def score(sae: SAERecord, index: int, row: dict[str, Any]) -> c.ExplanationScore:
    url = None if row["example_set_id"] is None else urls.score(sae.address, index, row["id"])
    return c.ExplanationScore(**{name: row[name] for name in _SCORE}, url=url)


def score_page(
    sae: SAERecord, latent: LatentRecord, record: ScoreRecord, windows: list[WindowRecord], vocabulary: Vocabulary
) -> c.ScorePage:
    rule = None if record.explanation.rule is None else rule_from_json(record.explanation.rule)
    return c.ScorePage(
        sae=sae.slug,
        revision=sae.revision,
        address=sae.address,
        index=latent.index,
        label=latent.label,
        explanation=explanation(sae, latent, record.explanation),
        score=score(sae, latent.index, record.score),
        examples=[example(record, i, window, rule, vocabulary) for i, window in enumerate(windows)],
    )


def example(
    record: ScoreRecord, i: int, window: WindowRecord, rule: Rule | Topic | None, vocabulary: Vocabulary
) -> c.ScoredExample:
    active, predicted = record.kinds[i] == 0, record.predictions[i]
    return c.ScoredExample(
        kind=KINDS[record.kinds[i]],
        active=active,
        activation=record.activations[i],
        predicted=predicted,
        right=None if predicted is None else predicted == active,
        probability=None if record.probabilities is None else record.probabilities[i],
        runs=runs(window, record.peaks[i], rule, vocabulary),
        presented=None if record.presented is None else record.presented[i],
        error=None if record.errors is None else record.errors[i],
        document=window.document,
        sequence=record.sequences[i],
        start=record.starts[i],
    )


def runs(window: WindowRecord, peak: int, rule: Rule | Topic | None, vocabulary: Vocabulary) -> list[c.Run]:
    """The window's text in pieces: neighbouring tokens of which the same is to be said stand in one."""
    ids = np.array(window.token_ids)
    said = np.zeros(len(ids), bool)
    match rule:
        case Rule():
            said = rule.fires(ids)
        case Topic():
            said = np.isin(ids, [one for _, tokens, _ in rule.words for one in tokens])
    out: list[c.Run] = []
    pieces = vocabulary.pieces(window.token_ids)
    for place in range(window.left, len(ids)):
        what = bool(said[place]), place - window.left == peak
        if out and (out[-1].said, out[-1].peak) == what:
            out[-1].text += pieces[place]
        else:
            out.append(c.Run(text=pieces[place], said=what[0], peak=what[1]))
    return out


def sae_scores(records: list[SummaryRecord]) -> c.SAEScores | None:
    """None where nothing of the SAE has been explained."""
    labels = next((one.facts for one in records if one.scorer == "labels"), None)
    if labels is None:
        return None
    methods = [
        c.MethodScores(method=one.method, model=one.model, scorer=one.scorer, **one.facts)
        for one in records
        if one.scorer != "labels"
    ]
    return c.SAEScores(labels=labels, methods=methods)
