"""The command that looks for a task's circuit."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli_progress import staged
from app.errors import SubjectUnavailable
from app.settings import load_settings

if TYPE_CHECKING:
    from app.circuits.record import CircuitRun


def circuit(
    subject: Annotated[str, typer.Argument(help="A model: its folder, or the name of one in the home's models.")],
    task: Annotated[str, typer.Option(help="ioi, greater-than or docstring.")],
    examples: Annotated[int, typer.Option(help="Positive prompts, and as many negative ones, that give codes.")] = 250,
    learn_from: Annotated[int, typer.Option(help="Prompts of both kinds that the SAE is trained on.")] = 10,
    latents: Annotated[int, typer.Option(min=2, max=100_000, help="Latents of the SAE.")] = 200,
    l1: Annotated[float, typer.Option(min=0, help="Weight of the SAE's L1 penalty.")] = 0.02,
    ablate_on: Annotated[int, typer.Option(help="Positive prompts on which every head is ablated.")] = 16,
    threshold: Annotated[
        float, typer.Option(min=0, help="Share of the logit difference beyond which a head is in the circuit.")
    ] = 0.05,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of prompts, SAE and shuffles.")] = 0,
    home: Annotated[Path | None, typer.Option(help="Folder for the database, models and SAEs.")] = None,
) -> None:
    """Rank a model's attention heads by a small SAE's codes of them in a task, against ablating each; see /circuits."""
    from app.circuits.find import Search, Watch, find_circuit
    from app.circuits.record import keep
    from app.subject.load import load_subject

    settings = load_settings(home=home)
    search = Search(task, examples, learn_from, latents, l1=l1, seed=seed, ablated_on=ablate_on, threshold=threshold)
    search.check()
    folder = next((path for path in (settings.home / "models" / subject, Path(subject)) if path.is_dir()), None)
    if folder is None:
        raise SubjectUnavailable(f"There is no model folder {subject}, nor one of that name in {settings.home}/models.")
    with staged() as shown:
        shown.doing("Loading the model")
        loaded = load_subject(folder, folder.resolve().name, settings.dtype, settings.device)
        run = find_circuit(loaded, search, settings.home / "hashes.json", Watch(shown.doing, shown.done))
        keep(settings.home, run)
    for line in told(run):
        typer.echo(line)


def told(run: "CircuitRun") -> list[str]:
    """What was found, in sentences."""
    heads = sum(len(row) for row in run.unique)
    lines = [
        f"{run.subject} completes {run.accuracy:.1%} of {run.examples} prompts; mean logit difference "
        f"{run.difference:.2f}, on negative ones {run.negative_difference:.2f}.",
        f"{run.in_circuit} of {heads} heads are in the circuit: ablating each changes that by more than "
        f"{run.threshold:.0%}.",
    ]
    if run.auc is None or run.shuffled_truth is None or run.shuffled_examples is None:
        lines.append("So there is nothing to tell apart, and no ROC AUC; try another --threshold.")
    else:
        lines.append(
            f"ROC AUC {run.auc:.3f}; without an SAE, by the distance of means, {run.auc_apart:.3f}; with an untrained "
            f"SAE {run.auc_untrained:.3f}, with shuffled examples {run.shuffled_examples.mean:.3f}, with a shuffled "
            f"circuit {run.shuffled_truth.mean:.3f} (95% of them below {run.shuffled_truth.high:.3f})."
        )
    return [*lines, f"Saved as {run.name}; it is shown at /circuits/{run.name}."]
