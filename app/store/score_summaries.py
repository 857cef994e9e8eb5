"""How an SAE's scores are distributed, by method and scorer, kept so that a page need not look at every latent."""

from sqlalchemy import Connection, delete, text

from app.store import tables as t

BINS = 20  # of headlines, over 0 to 1

_SUMMARISE = text(
    """
    INSERT INTO score_summary (sae_id, method, model, scorer, facts)
    SELECT :sae, e.method, coalesce(e.model, ''), s.scorer, jsonb_build_object(
        'explanations', count(*), 'headlines', count(s.headline),
        'few', count(*) FILTER (WHERE s.status = 'few'), 'unanswered', count(*) FILTER (WHERE s.status = 'unanswered'),
        'quantiles', to_jsonb(percentile_cont(ARRAY[0.1, 0.25, 0.5, 0.75, 0.9]) WITHIN GROUP (ORDER BY s.headline)),
        'mean', avg(s.headline), 'control', avg(s.control), 'auprc', avg(s.auprc), 'auroc', avg(s.auroc),
        'random', avg(s.balanced_accuracy_random), 'hard', avg(s.balanced_accuracy_hard),
        'precision', avg(s.precision), 'recall', avg(s.recall), 'f1', avg(s.f1), 'counts', to_jsonb(ARRAY[{bins}])
    )
    FROM score s JOIN explanation e ON e.sae_id = s.sae_id AND e.id = s.explanation_id
    WHERE s.sae_id = :sae GROUP BY e.method, coalesce(e.model, ''), s.scorer
    """.format(
        bins=", ".join(
            f"count(*) FILTER (WHERE width_bucket(s.headline, 0, 1.000001, {BINS}) = {i + 1})" for i in range(BINS)
        )
    )
)

_LABELS = text(
    """
    INSERT INTO score_summary (sae_id, method, model, scorer, facts)
    SELECT :sae, '', '', 'labels', jsonb_object_agg(source, n) FROM (
        SELECT label_source AS source, count(*) AS n FROM latent WHERE sae_id = :sae GROUP BY label_source
    ) AS counted HAVING count(*) > 0
    """
)


def summarise(connection: Connection, sae_id: int) -> None:
    """Make the SAE's summaries anew."""
    connection.execute(text("DELETE FROM score_summary WHERE sae_id = :sae"), {"sae": sae_id})
    connection.execute(_SUMMARISE, {"sae": sae_id})
    count_labels(connection, sae_id)


def count_labels(connection: Connection, sae_id: int) -> None:
    """Count the SAE's labels by source anew, and let pages that show it go stale."""
    connection.execute(text("UPDATE sae SET edition = edition + 1 WHERE id = :sae"), {"sae": sae_id})
    c = t.score_summary.c
    connection.execute(delete(t.score_summary).where(c.sae_id == sae_id, c.scorer == "labels"))
    connection.execute(_LABELS, {"sae": sae_id})
