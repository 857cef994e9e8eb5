"""Prompts through a subject and SAEs: several short ones side by side, or a long one in chunks."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from app.live.prompt import Predictions, Reading
from app.sae.base import SAE, Pursuing, Steps
from app.subject.hook_names import hook_point
from app.subject.hooks import HookPoint, read_activations, tap
from app.subject.load import Subject

CHUNK = 512  # tokens of a long prompt that go through the subject at once
LIKELIEST = 5  # next tokens kept a position
LOGITS = 1 << 24  # logits held in fp32 at once: 64 MiB


class Probe(NamedTuple):
    """An SAE and where it stands in a subject."""

    sae: SAE
    reads: list[HookPoint]
    writes: list[HookPoint]

    @classmethod
    def of(cls, sae: SAE, subject: Subject) -> "Probe":
        """
        Raises:
            SubjectUnavailable: the subject has no such place; names what comes near.
        """
        reads, writes = (
            [hook_point(name, subject.model) for name in names] for names in (sae.config.reads, sae.config.writes)
        )
        return cls(sae, reads, writes)


class Chunk(NamedTuple):
    """What ``length`` consecutive positions of a prompt gave: each SAE's reading with places counted within the chunk,
    and the predictions; logprob's first entry is left open (NaN), ``last`` [vocabulary] fp32 are the log-probabilities
    after the last position."""

    length: int
    readings: list[Reading]
    predictions: Predictions | None
    last: Tensor | None


@torch.inference_mode()
def read_batch(
    subject: Subject, rows: Sequence[list[int]], probes: Sequence[Sequence[Probe]], predict: bool
) -> list[Chunk]:
    """Prompts side by side in one forward; ``probes`` are the SAEs each is read with. Nothing after the last hook
    wanted runs, unless the subject's predictions are wanted too."""
    lengths = [len(ids) for ids in rows]
    padded = np.zeros((len(rows), max(lengths)), dtype=np.int64)
    for row, ids in zip(padded, rows, strict=True):
        row[: len(ids)] = ids
    token_ids = torch.from_numpy(padded).to(subject.device)
    attention = None
    if len(rows) > 1:
        attention = (torch.arange(padded.shape[1]) < torch.tensor(lengths)[:, None]).long().to(subject.device)
    points = _points(probe for some in probes for probe in some)
    found, logits = _forward(subject, token_ids, points, predict, attention_mask=attention)
    readings = _readings(subject, rows, found, probes)
    out = []
    for number, ids in enumerate(rows):
        predictions, last = (None, None) if logits is None else predicted(logits[number, : len(ids)], ids)
        out.append(Chunk(len(ids), readings[number], predictions, last))
    return out


def read_long(
    subject: Subject, ids: list[int], probes: Sequence[Probe], predict: bool, chunk: int = CHUNK
) -> Iterator[Chunk]:
    """A prompt in chunks over a cache of keys and values, so that what a chunk needs bounds the memory; between two of
    them the device is free for others."""
    from transformers import DynamicCache

    cache, points = DynamicCache(config=subject.model.config), _points(probes)
    for start in range(0, len(ids), chunk):
        part = ids[start : start + chunk]
        token_ids = torch.tensor([part], device=subject.device)
        with torch.inference_mode():
            found, logits = _forward(subject, token_ids, points, predict, past_key_values=cache)
            predictions, last = (None, None) if logits is None else predicted(logits[0], part)
            yield Chunk(len(part), _readings(subject, [part], found, [probes])[0], predictions, last)


def joined(chunks: Sequence[Chunk], ids: list[int]) -> tuple[list[Reading], Predictions | None]:
    """The chunks of one prompt as one."""
    if len(chunks) == 1:
        return chunks[0].readings, chunks[0].predictions
    starts = np.cumsum([0, *(chunk.length for chunk in chunks)])
    readings = []
    for number in range(len(chunks[0].readings)):
        parts = [chunk.readings[number] for chunk in chunks]
        errors = [part.error for part in parts if part.error is not None]
        steps = None
        if parts[0].steps is not None:
            steps = {
                place + int(start): taken
                for part, start in zip(parts, starts, strict=False)
                for place, taken in (part.steps or {}).items()
            }
        readings.append(
            Reading(
                np.concatenate([part.position + np.int32(start) for part, start in zip(parts, starts, strict=False)]),
                np.concatenate([part.latent for part in parts]),
                np.concatenate([part.value for part in parts]),
                np.concatenate(errors) if len(errors) == len(parts) else None,
                steps,
            )
        )
    told = [chunk.predictions for chunk in chunks if chunk.predictions is not None]
    if len(told) < len(chunks):
        return readings, None
    logprob = np.concatenate([part.logprob for part in told])
    for chunk, start in zip(chunks[:-1], starts[1:], strict=False):
        assert chunk.last is not None
        logprob[start] = float(chunk.last[ids[start]])
    return readings, Predictions(
        logprob,
        np.concatenate([part.entropy for part in told]),
        np.concatenate([part.top_ids for part in told]),
        np.concatenate([part.top_logprobs for part in told]),
    )


def predicted(logits: Tensor, ids: list[int]) -> tuple[Predictions, Tensor]:
    """logits: [positions, vocabulary] of any float dtype -> what they say of ``ids``, in fp32; and the last position's
    log-probabilities."""
    n = len(ids)
    logprob = np.full(n, np.nan, dtype=np.float32)
    entropy = np.empty(n, dtype=np.float32)
    top = min(LIKELIEST, logits.shape[1])
    top_ids, top_logprobs = np.empty((n, top), dtype=np.int32), np.empty((n, top), dtype=np.float32)
    following = torch.tensor([*ids[1:], 0], device=logits.device)
    rows = max(1, LOGITS // logits.shape[1])
    told = logits[:0].float()
    for start in range(0, n, rows):
        part = slice(start, min(start + rows, n))
        told = torch.log_softmax(logits[part].float(), dim=1)
        entropy[part] = -(told.exp() * told).nan_to_num(0.0).sum(1).cpu().numpy()
        best = told.topk(top, dim=1)
        top_ids[part], top_logprobs[part] = best.indices.cpu().numpy(), best.values.cpu().numpy()
        next_one = told.gather(1, following[part, None])[:, 0].cpu().numpy()
        last = min(part.stop, n - 1)
        logprob[start + 1 : last + 1] = next_one[: last - start]
    return Predictions(logprob, entropy, top_ids, top_logprobs), told[-1].clone()


def _points(probes: Any) -> list[HookPoint]:
    return list(dict.fromkeys(point for probe in probes for point in (*probe.reads, *probe.writes)))


def _forward(
    subject: Subject, token_ids: Tensor, points: list[HookPoint], predict: bool, **given: Any
) -> tuple[dict[HookPoint, Tensor], Tensor | None]:
    if not predict:
        mask = given.pop("attention_mask", None)
        return read_activations(subject.model, token_ids, points, mask, **given), None
    found: dict[HookPoint, Tensor] = {}
    handles = [tap(subject.model, point, partial(found.__setitem__, point)) for point in points]
    try:
        told = subject.model(input_ids=token_ids, use_cache="past_key_values" in given, **given)
    finally:
        for handle in handles:
            handle.remove()
    return found, told.logits


def _readings(
    subject: Subject, rows: Sequence[list[int]], found: dict[HookPoint, Tensor], probes: Sequence[Sequence[Probe]]
) -> list[list[Reading]]:
    """found: [rows, positions, d] each. An SAE encodes the positions of all the rows that are read with it at once."""
    places = [np.flatnonzero(~np.isin(ids, subject.special_ids)) for ids in rows]
    out: list[list[Reading]] = [[] for _ in rows]
    made: dict[int, dict[int, Reading]] = {}
    for number, some in enumerate(probes):
        for probe in some:
            if id(probe.sae) not in made:
                mine = [n for n, others in enumerate(probes) if any(other.sae is probe.sae for other in others)]
                told = _read(subject, probe, found, mine, [places[n] for n in mine], [len(rows[n]) for n in mine])
                made[id(probe.sae)] = dict(zip(mine, told, strict=True))
            out[number].append(made[id(probe.sae)][number])
    return out


def _read(
    subject: Subject, probe: Probe, found: dict[HookPoint, Tensor], rows: list[int], places: list[Any],
    lengths: list[int],
) -> list[Reading]:  # fmt: skip
    """places: [kept] int64 of each of ``rows``, whose positions are ``lengths``."""
    sae, reads, writes = probe
    at = np.concatenate(places)
    row = torch.from_numpy(np.repeat(rows, [len(one) for one in places])).to(subject.device)
    kept = torch.from_numpy(at).to(subject.device)
    x = torch.cat([found[point][row, kept] for point in reads], dim=1)
    acts = sae.encode(x)
    missed = None
    if writes:
        y = x if reads == writes else torch.cat([found[point][row, kept] for point in writes], dim=1)
        off = (y.float() - sae.decode(acts, x)).norm(dim=1) / y.float().norm(dim=1).clamp_min(1e-30)
        missed = off.cpu().numpy()
    steps = sae.pursue(x) if isinstance(sae, Pursuing) else None
    position, latent = acts.position.cpu().numpy(), acts.latent.cpu().numpy().astype(np.int32)
    value, ends = acts.value.cpu().numpy(), np.cumsum([0, *(len(one) for one in places)])
    cuts = np.searchsorted(position, ends)
    out = []
    for n, length in enumerate(lengths):
        first, last = ends[n], ends[n + 1]
        mine = slice(cuts[n], cuts[n + 1])
        error = None
        if missed is not None:
            error = np.full(length, np.nan, dtype=np.float32)
            error[places[n]] = missed[first:last]
        taken = None if steps is None else _steps(places[n].tolist(), Steps(*(part[first:last] for part in steps)))
        there = places[n][position[mine] - first].astype(np.int32)
        out.append(Reading(there, latent[mine].copy(), value[mine].copy(), error, taken))
    return out


def _steps(places: list[int], steps: Steps) -> dict[int, list[tuple[int, float]]]:
    rows = zip(places, steps.latent.tolist(), steps.residual.tolist(), strict=True)
    return {
        place: [(latent, norm) for latent, norm in zip(latents, norms, strict=True) if latent >= 0]
        for place, latents, norms in rows
    }
