"""What a training step costs over the products of matrices that it cannot do without.

    python -m benchmarks.train [--threads 1] [--latents 4096] [--d 576] [--batch 2048] [--ideas topk,...] [--home DIR]

The bare step is a dense SAE's: x W_enc, f W_dec, and three products for the gradients of f, W_dec and W_enc, in the
same precision. Both are timed in turn, on the same machine and moments, and the middle of the ratios is told. With
--home, where the demo has run, so is what reading the activations takes beside either: the subject's forward of as many
tokens, in sequences of 256, to the demo's layer. A run pays it once, however many SAEs are trained on what was read.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from app.demo.run import SAE_FOLDER, SUBJECT, prepare_subject
from app.harvest.job import read_sae
from app.subject.hooks import HookPoint, read_activations
from app.subject.load import choose_dtype, load_subject
from app.train.idea import Batch, Shape
from app.train.ideas import IDEAS

CONTEXT = 256


def bare(x: torch.Tensor, W_enc: torch.Tensor, W_dec: torch.Tensor, dtype: torch.dtype) -> Callable[[], None]:
    """The five products, in ``dtype``."""
    x, W_enc, W_dec = x.to(dtype), W_enc.to(dtype), W_dec.to(dtype)

    def step() -> None:
        f = x @ W_enc
        error = f @ W_dec
        of_f = error @ W_dec.T
        f.T @ error
        x.T @ of_f

    return step


def trained(name: str, batch: Batch, shape: Shape, dtype: torch.dtype) -> Callable[[], None]:
    """A whole step of training: loss, gradients, Adam, and what follows."""
    made = IDEAS[name](shape, IDEAS[name].Options(), torch.Generator().manual_seed(0))
    adam = torch.optim.Adam(made.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            loss = made.loss(batch)
        loss.total.backward()
        made.before_step()
        adam.step()
        adam.zero_grad()
        made.normalise()
        made.after_step(batch, loss)

    return step


def forward(home: Path, tokens: int) -> Callable[[], None]:
    """The demo's subject up to the layer its SAE reads."""
    subject = load_subject(prepare_subject(home), SUBJECT, dtype="auto", device="cpu")
    ids = torch.randint(1000, 40_000, (tokens // CONTEXT, CONTEXT), generator=torch.Generator().manual_seed(0))
    hook = HookPoint.parse(read_sae(SAE_FOLDER).config.reads[0])

    def step() -> None:
        read_activations(subject.model, ids, [hook])

    return step


def seconds(step: Callable[[], None]) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("threads", 1), ("latents", 4096), ("d", 576), ("batch", 2048), ("rounds", 7)):
        arguments.add_argument(f"--{name}", type=int, default=default)
    arguments.add_argument("--ideas", default=",".join(name for name in IDEAS if name != "attention-output"))
    arguments.add_argument("--precision", default="auto")
    arguments.add_argument("--home", type=Path)
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    dtype = choose_dtype(given.precision, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    shape = Shape(given.d, given.d, given.latents)
    x = torch.randn(given.batch, given.d, generator=generator)
    batch = Batch(
        x=x, y=x, variance=(x - x.mean(0)).pow(2).sum(), size=len(x), step=0, steps=100,
        dead=torch.zeros(given.latents, dtype=torch.bool), gradient=torch.randn(x.shape, generator=generator),
    )  # fmt: skip
    W = torch.nn.functional.normalize(torch.randn(given.latents, given.d, generator=generator), dim=1)
    floor = bare(x, W.T.contiguous(), W, dtype)
    print(f"{given.latents:,} x {given.d}, batch {given.batch:,}, {dtype}, {given.threads} thread(s)")
    read = forward(given.home, given.batch) if given.home else lambda: None
    print("| idea | tokens/s | of the bare products' | of the forward and them |\n|---|---|---|---|")
    for name in given.ideas.split(","):
        step = trained(name, batch, shape, dtype)
        for _ in range(2):
            seconds(step), seconds(floor), seconds(read)
        times = [(seconds(step), seconds(floor), seconds(read)) for _ in range(given.rounds)]
        ratio = statistics.median(least / took for took, least, _ in times)
        whole = statistics.median((first + least) / (first + took) for took, least, first in times)
        rate = given.batch / statistics.median(took for took, _, _ in times)
        print(f"| {name} | {rate:,.0f} | {ratio:.2f} | {f'{whole:.2f}' if given.home else '–'} |", flush=True)


if __name__ == "__main__":
    main()
