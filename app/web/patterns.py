"""/patterns: every component in every state, from fixed data; what pictures in tests/ are taken of."""

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from app.web import build
from app.web import contexts as c
from app.web import differences_contexts as d
from app.web.browse_contexts import Bar, BrowseQuery, BrowseRow, LatentPage, LatentTable
from app.web.examples import Look, rows
from app.web.explain_contexts import EarlierText, Explanation, ExplanationScore, MethodScores, SAEScores
from app.web.features import panels
from app.web.inspect_contexts import PromptToken
from app.web.list_contexts import Listed, ListedFeature, ListedRegion, ListedRun, ListPage
from app.web.routes import html
from app.web.run_contexts import SAID, RunResult, RunView

router = APIRouter()

WORDS = [
    "<|im_start|>", "The", " treaty", " was", " signed", " in", " Paris", ",", "\n", "and", " everyone", " who",
    " signed", " it", " wrote", " شكرا", " or", " 谢谢", " and", "", "", "🎉", " beneath", "\t", "the", " second",
    " <", "b", ">", " line", " of", " it", ".",
]  # fmt: skip
ACTS = {4: 9.0, 5: 0.4, 12: 4.1, 14: 1.2, 21: 2.5, 23: 0.9, 29: 0.2}
EPOCH = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def example(interval: str, rank: int, scale: float, peak: int = 4, sequence: int = 0, shift: int = 0) -> c.Example:
    """A context of WORDS, moved on by ``shift`` token ids so that it is not taken for another's duplicate."""
    activations = [0.0] * len(WORDS)
    for place, value in ACTS.items():
        activations[place] = scale * value
    return c.Example(
        interval=interval,
        sign=-1 if scale < 0 else 1,
        rank=rank,
        tokens=WORDS,
        token_ids=[100 * shift + place for place in range(len(WORDS))],
        activations=activations,
        position=peak,
        activation=activations[peak],
        document="Treaties of the nineteenth century",
        sequence=sequence,
        start=0,
    )


def glimpse(scale: float) -> c.Glimpse:
    return c.Glimpse(
        tokens=WORDS[1:15],
        activations=[scale * ACTS.get(place, 0.0) for place in range(1, 15)],
        position=3,
        maximum=9 * abs(scale),
    )


HARVEST = c.Harvest(
    corpus="an example corpus", corpus_sha256="0123456789abcdef" * 4, tokens=400_000, sequences=3_200, documents=103,
    context=128, seconds=61.5, tokens_per_second=6504.1, finished="2026-01-02T03:04:05+00:00",
    subject_dtype="float32", skipped=2, skipped_named=["a.txt (not UTF-8)", "b.txt (empty)"], halved=True,
)  # fmt: skip


def feature(**changes: Any) -> c.FeaturePage:
    page = c.FeaturePage(
        sae="an-sae", revision="0123456789", address="an-sae", index=7, n_latents=4096, label="signed, sign",
        label_source="top-tokens", label_score=None, density=0.00337, fired=1348, counted=400_000, max=9.0, min=0.0,
        mean=0.0228, std=0.446, decoder_norm=1.0, encoder_decoder_cosine=0.746, head_shares=None,
        histogram=c.Histogram(edges=[0.09 * 1.26**i for i in range(21)], counts=[i * (20 - i) for i in range(20)]),
        promoted=[c.TokenLogit(token=w, token_id=i, logit=1.2 - i / 5) for i, w in enumerate((" treaty", "\n", "ed"))],
        suppressed=[c.TokenLogit(token=w, token_id=i, logit=i / 5 - 0.9) for i, w in enumerate((" not", "\\xff", "s"))],
        neighbours=[neighbour(12, 0.61, glimpse(1.0)), neighbour(13, 0.2, None)],
        usage=usage(),
        examples=[
            example("top", 0, 1.0), example("top", 1, 0.9, sequence=1), example("top", 2, 0.8, peak=12, shift=2),
            example("9", 0, 1.0), example("9", 1, 0.95, sequence=3, shift=3),
            example("near", 0, 0.0, sequence=4, shift=4), example("random", 0, 0.0, 9, sequence=5, shift=5),
        ],
        explanations=[explanation()], subject="a-subject", architecture="topk", harvest=HARVEST,
    )  # fmt: skip
    return page.model_copy(update=changes)


def explanation() -> Explanation:
    known = dict.fromkeys(name for name in ExplanationScore.model_fields)
    rare = known | {
        "id": 2, "scorer": "tokens", "status": "ok", "headline": 0.61, "n_pos": 210, "n_neg": 51_600, "n_failed": 0,
        "precision": 0.74, "recall": 0.52, "f1": 0.61, "auroc": 0.78, "auprc": 0.49,
    }  # fmt: skip
    windows = rare | {
        "id": 1, "scorer": "windows", "headline": 0.84, "n_pos": 50, "n_neg": 50, "ci_low": 0.77, "ci_high": 0.9,
        "control": 0.5, "url": "#",
    }  # fmt: skip
    return Explanation(
        id=1, sign=1, method="token-rules", model=None, author=None, label="signed, sign, a treaty",
        failure=None, text="fires on “signed”, “sign”; at the end of “a treaty”",
        made="2026-01-02T03:04:05+00:00", votes=0,
        how="A rule learned on train documents, with no language model", chosen=False, earlier=[],
        scores=[ExplanationScore(**windows), ExplanationScore(**rare)],
    )  # fmt: skip


def by_a_person() -> Explanation:
    earlier = EarlierText(text="about contracts", author="Ada", made="2026-01-01T03:04:05+00:00")
    changes = {
        "id": 2, "method": "person", "author": "Grace", "text": "treaties, and who signs them", "earlier": [earlier],
        "how": "Written by a person, by Grace", "votes": 2, "chosen": True, "scores": [], "label": "treaties",
    }  # fmt: skip
    return explanation().model_copy(update=changes)


def scores() -> SAEScores:
    shared = dict.fromkeys(("random", "hard", "precision", "recall", "f1", "auroc"), 0.5)
    windows = MethodScores(
        method="token-rules", model="", scorer="windows", explanations=4095, headlines=4058, few=37, unanswered=0,
        quantiles=[0.54, 0.59, 0.67, 0.76, 0.84], counts=[0] * 10 + [300, 700, 900, 800, 700, 400, 158, 60, 30, 10],
        mean=0.678, control=0.5, auprc=0.68, **shared,
    )  # fmt: skip
    none = MethodScores(
        method="llm", model="a-model", scorer="detection", explanations=3, headlines=0, few=0, unanswered=3,
        quantiles=None, counts=[0] * 20, mean=None, control=None, auprc=None, **shared,
    )  # fmt: skip
    return SAEScores(labels={"token-rules": 3400, "top-tokens": 696}, methods=[windows, none])


def neighbour(index: int, cosine: float, shown: c.Glimpse | None) -> c.Neighbour:
    return c.Neighbour(
        index=index, cosine=cosine, label="a label that goes on for longer than its line", url="#", example=shown
    )


def usage(**changes: Any) -> c.Usage:
    shares = [0.0, 0.02, 0.015, 0.012, 0.01, 0.008, 0.004]
    return c.Usage(
        profile=c.Profile(edges=[0, 1, 2, 3, 4, 8, 16], shares=shares, first=0.0, last=0.0054, sequences=3200),
        tokens_by_mean=[c.TopToken(token=" signed", token_id=1, mean=8.2), c.TopToken(token="\n", token_id=2, mean=2)],
        tokens_by_probability=[c.TopToken(token=" sign", token_id=3, probability=0.94, seen=1234)],
        token_counts_exact=False,
        coactive=[c.Coactive(index=9, phi=0.42, together=210, label="treaties", url="#", example=glimpse(-1.0))],
        coactive_exact=False,
        coactive_positions=131_072,
        documents=41,
        top_documents=[c.DocumentFires(document="Treaties of the nineteenth century", fires=210)],
    ).model_copy(update=changes)


def signed() -> c.FeaturePage:
    both = [example("top", 0, 1.0), example("top", 0, -0.8, shift=1), example("9", 0, 0.95), example("9", 0, -0.75)]
    histogram = c.Histogram(
        edges=[-8.0, -4.0, -2.0, -1.0, 1.0, 2.0, 4.0, 8.0, 16.0], counts=[3, 40, 20, 0, 10, 50, 30, 5]
    )
    return feature(min=-7.2, examples=both, histogram=histogram, label_score=0.71, head_shares=[0.05] * 10 + [0.5])


def dead() -> c.FeaturePage:
    empty = usage(coactive=[], tokens_by_mean=[], tokens_by_probability=[], top_documents=[], documents=0)
    return feature(fired=0, density=0.0, max=0.0, mean=0.0, std=0.0, examples=[], neighbours=[], usage=empty)


def table(**query: str) -> LatentTable:
    """The feature table: with rows, with none, or with a filter that does not fit."""
    asked = BrowseQuery(sort="density", **query)
    empty = bool(query)
    labels = ("signed, sign", "a label that is long enough to need a second line on a narrow screen")
    items = [
        BrowseRow(
            index=i,
            label=label,
            label_source="top-tokens",
            density=0.01 / (i + 1),
            max=9.5,
            min=-i,
            url=f"#{i}",
            label_score=0.71 if i else None,
            tokens=[" sign", "\n"],
            matches=["fires on"] if i else [],
        )
        for i, label in enumerate(labels)
    ]
    bars = [
        Bar(low=1e-5 * 10**i, high=1e-4 * 10**i, count=(4, 310, 90, 7)[i], chosen=i == 1, url="#", fragment="#")
        for i in range(4)
    ]
    page = LatentPage(
        items=[] if empty else items, next=None if empty else "next", found=0 if empty else 1000, found_exact=empty,
        tokens=[],
    )  # fmt: skip
    return LatentTable(
        sae="an-sae", address="an-sae", signed=True, place="sae", query=asked, given=asked.given(),
        ordered=asked.ordered(), sort="density", order="desc", cursor=None if empty else "here",
        sources=["top-tokens", "vocab-projection"], density_bars=bars, score_bars=[], page=page,
        error="'much' is no number; write a share such as 0.01 or 1%." if "density_min" in query else None,
    )  # fmt: skip


def result(**changes: Any) -> RunResult:
    none = RunResult(
        sae="an-sae", revision=None, url=None, gone=None, already=False, fvu=None, l0=None, measured=[], metrics=None
    )
    return none.model_copy(update=changes)


def run(state: str, **changes: Any) -> RunView:
    made = RunView(
        id=3, kind="harvest", called="Harvest", part=None, whole=None,
        state="running", said=SAID["running"], already=False, saes=[result()], corpus="pkg:brown",
        tokens=250_000, total=1_000_000, stage=None, resumed=0, tokens_per_second=6500.0, seconds=38.0,
        seconds_left=115.0, duration=None, message=None, notes=[], skipped=0, skipped_named=[], command={},
        command_line="saescope harvest", created=EPOCH, started=EPOCH, beat=EPOCH, finished=None, refresh=True,
        stoppable=True, resumable=False, forgettable=False, url="#",
    )  # fmt: skip
    return made.model_copy(update={"state": state, "said": SAID[state], **changes})


def runs() -> list[RunView]:
    lost = "Nothing was heard of it for 3 minutes: its process has died. Resume carries on from its checkpoint."
    return [
        run("running"),
        run("running", id=4, total=None, seconds_left=None, resumed=120_000),
        run("running", id=5, tokens=1_000_000, stage="measuring loss recovered", seconds_left=None),
        run("stopping", id=6, stoppable=False),
        run("lost", id=7, message=lost, refresh=False, resumable=True, forgettable=True, seconds_left=None, skipped=2),
        run("done", id=8, saes=[result(fvu=0.15), result(sae="another-sae", fvu=0.2)], corpus="text:books/of/the/sea"),
    ]


def tested(*, fires: bool) -> c.FeatureTest:
    shown = example("top", 0, 1.1 if fires else 0.0)
    return c.FeatureTest(
        text="The treaty was signed in Paris", tokens=shown.tokens, activations=shown.activations,
        strongest=shown.activation, position=4 if fires else None, share=1.1 if fires else 0.0,
    )  # fmt: skip


def prompt(*words: str) -> d.ReadPrompt:
    tokens = [PromptToken(text=word, token_id=n, counted=n > 0) for n, word in enumerate(("<s>", *words))]
    return d.ReadPrompt(text="".join(words), chat=False, run=None, tokens=tokens)


def on(*values: float) -> d.LatentOn:
    row = [(place, value) for place, value in enumerate(values) if value]
    position, strongest = max(row, key=lambda one: abs(one[1])) if row else (None, 0.0)
    return d.LatentOn(activation=strongest, share=strongest / 9, position=position, activations=row)


def two_prompts() -> tuple[d.TwoPromptsResult, list[d.DifferentLatent]]:
    columns = [
        d.AlignedColumn(kind=kind, first=first, second=second)
        for kind, first, second in (
            ("equal", 0, 0), ("equal", 1, 1), ("replaced", 2, 2), ("only_second", None, 3), ("equal", 3, 4),
            ("replaced", 4, 5), ("only_first", 5, None),
        )
    ]  # fmt: skip
    made = d.TwoPromptsResult(
        subject="a-model", first=prompt("Paris", " is", " big", "\n", "er"),
        second=prompt("Paris", " was", " very", " big", "…"), columns=columns, at=2, saes=[], milliseconds=1, batch=2,
    )  # fmt: skip
    common: dict[str, Any] = {
        "label": "Paris", "label_source": "top-tokens", "density": 0.003, "max": 9.0, "url": "#", "pin": "an-sae/7",
    }  # fmt: skip
    latents = [
        d.DifferentLatent(index=7, difference=0.4, first=on(0, 8, 2), second=on(), **common),
        d.DifferentLatent(index=8, difference=-1.1, first=on(0, 3), second=on(0, -7, 0, 9), **common),
    ]
    return made, latents


def note(text: str) -> c.Note:
    return c.Note(
        id=1, text=text, author="A reader", visibility="team", made=EPOCH, sae="an-sae", revision="fedcba9876"
    )


def listed() -> ListPage:
    """A list of every kind of item, here and gone."""
    shown = ListedFeature(
        sae="an-sae", revision="0123456789", index=7, label="signed, sign", label_source="top-tokens", label_score=0.71,
        density=0.00337, max=9.0, min=0.0, example=glimpse(1.0),
    )  # fmt: skip
    run = ListedRun(
        run="abc",
        subject="a-subject",
        text="The treaty\nwas signed",
        length=500,
        saes=["an-sae@0123456789"],
        made=EPOCH,
    )
    region = ListedRegion(
        sae="an-sae", revision="0123456789", map="m1", level=0, region=3, method="umap", on="decoder", name="treaties",
        terms=["treaty", "signed"], size=120,
    )  # fmt: skip
    common: dict[str, Any] = {
        "added": EPOCH,
        "gone": None,
        "newer": None,
        "newer_says": None,
        "tags": [],
        "comment": "",
    }
    gone = {"gone": "an-sae@fedcba9876 is not here.", "newer": "#", "newer_says": "it may be another feature"}
    items = [
        Listed(id=1, kind="feature", reference="an-sae@0123456789/7", label="signed, sign", url="#1", feature=shown,
               **common | {"comment": "What it is about.\n\nAnd more.", "tags": ["law", "verbs"]}),
        Listed(id=2, kind="run", reference="run/abc", label="The treaty", url="#2", run=run, **common),
        Listed(id=3, kind="region", reference="an-sae@0123456789/map/m1/0/3", label="treaties", url="#3", region=region,
               **common),
        Listed(id=4, kind="feature", reference="an-sae@fedcba9876/8", label="what it was", url=None, **common | gone),
    ]  # fmt: skip
    return ListPage(
        name="a-list", title="A list", description="", tags=["law"], author="", visibility="team", made=EPOCH,
        changed=EPOCH, count=4, url="#", items=items, next=None, cursor=None, share=None,
    )  # fmt: skip


def apart(page: c.FeaturePage, prefix: str, look: Look) -> dict[str, Any]:
    """What the template shows of a feature, its sections' ids told apart from those of others on this page."""
    shown = panels(page, look)
    shown["rows"] = [
        [section._replace(anchor=f"{prefix}-{section.anchor}") for section in row] for row in rows(build.groups(page))
    ]
    return shown


@router.get("/patterns", response_class=HTMLResponse, include_in_schema=False)
async def patterns(request: Request) -> Response:
    views = [
        ("snippet", Look()),
        ("stacked", Look(view="stacked")),
        ("full", Look(view="full")),
        ("full-row-glyphs", Look(view="full", norm="row", space="glyphs")),
    ]
    return html(
        "patterns.html",
        request,
        plain=panels(feature(), Look()),
        views=[(name, apart(feature(), name, look)) for name, look in views],
        signed=apart(signed(), "signed", Look()),
        dead=apart(dead(), "dead", Look()),
        fires=feature(test=tested(fires=True)),
        silent=feature(test=tested(fires=False), index=8),
        unembedded=feature(promoted=[], suppressed=[]),
        pinned=feature(address="an-sae@0123456789", label_source="vocab-projection", label_score=0.71),
        two=two_prompts(),
        table=table(),
        empty_table=table(q="no such"),
        refused_table=table(density_min="much"),
        runs=runs(),
        explained=feature(explanations=[explanation(), by_a_person()]),
        scores=scores(),
        listed=listed(),
        noted=feature(note=note("One paragraph, and /saes/an-sae/features/9.\n\nAnother <b>one</b>.")),
        error=c.ErrorPage(
            status=404,
            title="Not found",
            back="#",
            code="latent_out_of_range",
            message="an-sae has no feature 5000; its features are 0 to 4095.",
        ),
    )
