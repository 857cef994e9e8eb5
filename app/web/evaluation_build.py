"""Rows of evaluations to page contexts."""

from collections.abc import Sequence

from app import urls
from app.evaluate.definitions import GROUPS
from app.store.evaluations import EvaluationRecord
from app.store.queries import SAERecord
from app.web import evaluation_contexts as c

SHOWN = 5  # metrics of an imported evaluation on the SAE's page


def title(record: EvaluationRecord) -> str:
    group = None if record.source else GROUPS.get(record.group)
    return group.title if group else record.group


def metrics(record: EvaluationRecord, names: tuple[str, ...]) -> list[c.EvaluatedMetric]:
    """Those of ``names`` that were measured, in this order."""
    group = None if record.source else GROUPS.get(record.group)
    known = group.metrics if group else {}
    return [
        c.EvaluatedMetric(
            name=name,
            title=known[name].title if name in known else name,
            value=record.values[name],
            better=known[name].better if name in known else "",
            how=known[name].how if name in known else "",
        )
        for name in names
        if name in record.values
    ]


def every(record: EvaluationRecord) -> tuple[str, ...]:
    """Its metrics: in the order they are told of, then what is told of nowhere."""
    group = None if record.source else GROUPS.get(record.group)
    return tuple(dict.fromkeys([*(group.metrics if group else ()), *sorted(record.values)]))


def foremost(records: Sequence[EvaluationRecord]) -> list[EvaluationRecord]:
    """The newest of each group and of each kind of imported file: measured ones first, as they are told of."""
    newest: dict[tuple[bool, str], EvaluationRecord] = {}
    for record in records:
        newest.setdefault((record.source is not None, record.group), record)
    order = list(GROUPS)
    return sorted(
        newest.values(),
        key=lambda r: (r.source is not None, order.index(r.group) if r.group in order else len(order), r.group),
    )


def summaries(sae: SAERecord, records: Sequence[EvaluationRecord]) -> list[c.EvaluationSummary]:
    return [
        c.EvaluationSummary(
            group=record.group,
            title=title(record),
            source=record.source,
            version=record.version,
            corpus=record.corpus,
            tokens=record.tokens,
            made=record.made.isoformat(timespec="seconds"),
            metrics=metrics(
                record,
                every(record)[:SHOWN] if record.source or record.group not in GROUPS else GROUPS[record.group].headline,
            ),
            url=urls.evaluation(sae.address, record.id),
        )
        for record in foremost(records)
    ]


def evaluated(record: EvaluationRecord) -> c.Evaluated:
    group = None if record.source else GROUPS.get(record.group)
    return c.Evaluated(
        id=record.id,
        group=record.group,
        title=title(record),
        about=group.about if group else "",
        source=record.source,
        version=record.version,
        corpus=record.corpus,
        tokens=record.tokens,
        seed=record.seed,
        seconds=record.seconds,
        made=record.made.isoformat(timespec="seconds"),
        parameters=record.parameters,
        metrics=metrics(record, every(record)),
        tables=record.details.get("tables", []),
        bars=record.details.get("bars", []),
        lines=record.details.get("lines", []),
        points=record.details.get("points", []),
    )


def page(sae: SAERecord, records: list[EvaluationRecord]) -> c.EvaluationsPage:
    """records: the newest first."""
    first = foremost(records)
    return c.EvaluationsPage(
        sae=sae.slug,
        revision=sae.revision,
        address=sae.address,
        evaluations=[evaluated(one) for one in first],
        earlier=[evaluated(one) for one in records if one not in first],
    )
