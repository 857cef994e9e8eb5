"""``saescope explain --method people``: scores of what people wrote, without a language model."""

from app.cli_runs import given, recorded
from app.settings import Settings


def score_written(
    sae: str, scorers: str, examples: int, seed: int, tokens: int, control: bool, settings: Settings, run: int | None
) -> None:
    """``--method people``."""
    from app.embed.folder import fetched_model
    from app.explain.llm_run import Watch
    from app.explain.people_job import People, score_people
    from app.store.migrate import migrated
    from app.store.revisions import one
    from app.subject.load import choose_device

    wanted = People(sae, tuple(dict.fromkeys(scorers.replace(" ", "").split(","))), examples, seed, tokens, control)
    command = {"sae": sae, "method": "people", "scorers": scorers, "seed": seed, "no_control": not control}
    command = given(command, {"scorers": "embedding", "seed": 0, "no_control": False})
    with migrated(settings) as engine:
        slug = one(engine, sae).slug
        with recorded(engine, "explain", [slug], command, run, keeps=False) as work:
            sentences = None
            if "embedding" in wanted.scorers:
                from app.embed.model import SentenceModel

                work.doing("getting the sentence model")
                sentences = SentenceModel(fetched_model(settings), settings.device)
            done = score_people(
                engine, settings.home, wanted, sentences=sentences, device=choose_device(settings.device).type,
                dtype=settings.dtype, watch=Watch(doing=work.doing, step=work.done),
            )  # fmt: skip
            work.made(done.revision)
            silent = f", {done.silent:,} of features that fire in no test window" if done.silent else ""
            lines = [f"{done.slug}@{done.revision}: {done.scored:,} explanations scored{silent}."]
            for name, (mean, other, count) in done.means.items():
                lines.append(f"{name}: mean {_number(mean)} of {count:,} (other features' {_number(other)}).")
            work.tell(lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
