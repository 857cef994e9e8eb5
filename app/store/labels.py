"""The label rule: a person's explanation if there is one, else the one with the best held-out score, else what the
harvest found."""

from collections.abc import Sequence

from sqlalchemy import Connection, text

LABEL_SCORERS = ("windows", "detection", "fuzzing")  # balanced accuracies on test windows, half of them active

# A scored explanation counts once its interval lies above one half, which is what a coin scores. Of several people's
# the one with the most votes, then the newest.
_RELABEL = text(
    """
    WITH scored AS (
        SELECT explanation_id, avg(headline) AS headline, bool_or(ci_low > 0.5) AS told
        FROM score WHERE sae_id = :sae AND headline IS NOT NULL AND scorer = ANY(:scorers)
        GROUP BY explanation_id
    ), voted AS (
        SELECT explanation_id, sum(value) AS votes FROM explanation_vote WHERE sae_id = :sae GROUP BY explanation_id
    ), best AS (
        SELECT DISTINCT ON (e.latent) e.latent, e.id, e.label, e.method, scored.headline
        FROM explanation e
        LEFT JOIN scored ON scored.explanation_id = e.id
        LEFT JOIN voted ON voted.explanation_id = e.id
        WHERE e.sae_id = :sae AND e.status = 'ok' AND (e.method = 'person' OR scored.told)
            AND (:every OR e.latent = ANY(:latents))
        ORDER BY e.latent, (e.method = 'person') DESC,
            CASE WHEN e.method = 'person' THEN coalesce(voted.votes, 0) END DESC NULLS LAST,
            CASE WHEN e.method <> 'person' THEN scored.headline END DESC NULLS LAST, e.id DESC
    ), wanted AS (
        SELECT l.index, best.id, best.headline,
            coalesce(best.label, l.harvest_label, l.label) AS label,
            coalesce(best.method, l.harvest_label_source, l.label_source) AS source
        FROM latent l LEFT JOIN best ON best.latent = l.index
        WHERE l.sae_id = :sae AND (:every OR l.index = ANY(:latents))
    )
    UPDATE latent l SET label = w.label, label_source = w.source, label_score = w.headline, explanation_id = w.id,
        harvest_label = coalesce(l.harvest_label, l.label),
        harvest_label_source = coalesce(l.harvest_label_source, l.label_source)
    FROM wanted w
    WHERE l.sae_id = :sae AND l.index = w.index
        AND (l.label, l.label_source, l.label_score, l.explanation_id)
            IS DISTINCT FROM (w.label, w.source, w.headline::real, w.id)
    """
)


def relabel(connection: Connection, sae_id: int, latents: Sequence[int] | None = None) -> int:
    """Give the latents (all where none are named) the labels that the rule says; how many changed."""
    given = {"sae": sae_id, "scorers": list(LABEL_SCORERS), "every": latents is None, "latents": list(latents or [])}
    return int(connection.execute(_RELABEL, given).rowcount)
