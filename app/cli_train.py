"""The command that trains SAEs."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from app.cli_train_progress import shown
from app.errors import BadRequest
from app.settings import load_settings

if TYPE_CHECKING:
    from app.corpus.sequences import Sequence
    from app.subject.load import Subject
    from app.train.run import Plan, Recipe


def train(
    model: Annotated[Path, typer.Option(help="The subject: a Hugging Face folder.")],
    corpus: Annotated[list[str], typer.Option(help="A corpus, SPEC or SPEC@TOKENS; may be given several times.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the SAE, or for one folder each; default: the runs' own.")
    ] = None,
    idea: Annotated[list[str], typer.Option(help="What to train; several share one stream of activations.")] = ["topk"],  # noqa: B006
    seed: Annotated[list[int], typer.Option(help="Seed of the weights; several train every idea as often.")] = [0],  # noqa: B006
    hook: Annotated[str, typer.Option(help="Where the SAE reads.")] = "model.layers.9:out",
    writes: Annotated[str | None, typer.Option(help="What a transcoder predicts, e.g. model.layers.9.mlp:out.")] = None,
    latents: Annotated[int, typer.Option(min=2, help="Number of latents.")] = 4096,
    k: Annotated[int | None, typer.Option(min=1, help="Active latents a token, for ideas that have a k.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE, an option of an idea (docs/training.md).")
    ] = None,
    sweep: Annotated[Path | None, typer.Option(help="A TOML file of runs, in place of --idea and --seed.")] = None,
    tokens: Annotated[int | None, typer.Option(min=16, help="At most this many tokens of text.")] = None,
    context: Annotated[int, typer.Option(min=16, help="Tokens in a sequence.")] = 128,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the text.")] = 2,
    batch: Annotated[int, typer.Option(min=1, help="Tokens a step.")] = 2048,
    lr: Annotated[float, typer.Option(min=0, max=1, help="Peak learning rate.")] = 8e-4,
    order: Annotated[
        Literal["mixed", "sequential"], typer.Option(help="Of the tokens; sequential: document by document.")
    ] = "mixed",
    chat: Annotated[bool, typer.Option("--chat", help="Plain documents as messages in the chat template.")] = False,
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"], typer.Option(help="Of matrix products; auto: by the hardware.")
    ] = "auto",
    tag: Annotated[str, typer.Option(help="Added to the runs' names.")] = "",
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Stop after that long; the same command goes on.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be trained, and what it takes.")] = False,
    drop: Annotated[bool, typer.Option("--drop-activations", help="Remove the activations when all is done.")] = False,
    name: Annotated[str | None, typer.Option(help="The subject's name in the config.")] = None,
    home: Annotated[Path | None, typer.Option(help="Folder for activations, runs and SAEs.")] = None,
) -> None:
    """Train SAEs on a subject's activations, several on one stream; a killed run carries on when started again."""
    from app.subject.load import choose_dtype, load_subject
    from app.train import plans as wanted
    from app.train.run import Recipe
    from app.train.stream import check, resolved
    from app.train.text import limited, read

    settings = load_settings(home=home)
    given = {"k": str(k)} if k is not None else {}
    for one in option or []:
        key, found, value = one.partition("=")
        if not found or key in given:
            raise BadRequest(f"--set {one}: give NAME=VALUE, each name once.", option=one)
        given[key] = value
    if sweep is not None and (given or idea != ["topk"] or seed != [0]):
        raise BadRequest("--sweep says what to train; leave out --idea, --seed, --k and --set.")
    asked = wanted.sweep(sweep, latents) if sweep is not None else wanted.plans(idea, seed, latents, given)
    for spec in corpus:
        limited(spec)
    if out is not None and out.exists() and not out.is_dir():
        raise BadRequest(f"{out} is a file; --out is a folder.", path=str(out))
    subject = load_subject(model, name or model.resolve().name, settings.dtype, settings.device)
    halved = precision == "bfloat16" or (
        precision == "auto" and "bfloat16" in str(choose_dtype("auto", subject.device))
    )
    recipe = Recipe(
        hook_point=hook, writes=writes, epochs=epochs, batch=batch, lr=lr, context=context, order=order,
        precision="bfloat16" if halved else "float32",
    )  # fmt: skip
    recipe = resolved(recipe, subject)
    check(recipe, asked, subject)
    sequences = read(corpus, subject, settings.home / "packages", context, tokens=tokens, chat=chat)
    told = [f"{spec} (chats)" if chat else spec for spec in corpus]
    if dry_run:
        _estimate(subject, sequences, recipe, asked, settings.home, tag)
    else:
        _train(subject, sequences, recipe, asked, settings.home, told, tag, out, minutes, drop=drop)


def _train(
    subject: "Subject", sequences: "list[Sequence]", recipe: "Recipe", plans: "list[Plan]", home: Path,
    corpus: list[str], tag: str, out: Path | None, minutes: float | None, *, drop: bool,
) -> None:  # fmt: skip
    from app.harvest.interrupt import Interrupt
    from app.train.stream import Stopped, Watch, dropped, train
    from app.train.world import joined

    until = time.monotonic() + 60 * minutes if minutes is not None else None
    with joined() as world, Interrupt() as interrupt:
        first = world.rank == 0

        def stopping() -> bool:
            return interrupt.asked or (until is not None and time.monotonic() > until)

        try:
            with shown() as to:
                told = Watch(to.gathered, to.stepped, to.ended, stopping) if first else Watch(stopping=stopping)
                made = train(
                    subject, sequences, recipe, plans, home, corpus=corpus, tag=tag, out=out, watch=told, world=world
                )
        except Stopped:
            if not interrupt.asked and first:
                typer.echo("The time is up; the same command carries on from here.", err=True)
            return
        if drop and first:
            dropped(home, subject, sequences)
    failed = [facts for facts in made if facts.state == "failed"]
    if first:
        for facts in made:
            if facts.state == "finished":
                typer.echo(f"The SAE is in {facts.sae}.")
    if failed:
        raise BadRequest(f"{failed[0].name} was not trained to its end. {failed[0].message}", run=failed[0].name)


def _estimate(
    subject: "Subject", sequences: "list[Sequence]", recipe: "Recipe", plans: "list[Plan]", home: Path, tag: str
) -> None:
    import shutil

    from app.train.estimate import estimate
    from app.train.stream import run_name

    found = estimate(subject, sequences, recipe, plans, home)
    at = next(folder for folder in (home, *home.parents) if folder.exists())
    typer.echo(f"{found.tokens:,} tokens, {found.steps:,} steps of {recipe.batch:,}, {recipe.precision}.")
    typer.echo(
        f"Activations of {found.places} place{'s' * (found.places > 1)}: {found.activations / 1e9:.2f} GB; "
        f"checkpoints: {found.checkpoints / 1e9:.2f} GB; free at {at}: {shutil.disk_usage(at).free / 1e9:.1f} GB."
    )
    for plan in plans:
        typer.echo(run_name(subject.name, recipe, plan, tag))
