"""Harvests with nothing to measure on, and numbers that are none: every page answers and says so, or the harvest is
refused before anything is saved."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.corpus.document import Document
from app.corpus.sequences import Held, Sequence, cut
from app.errors import CorpusUnavailable, InvalidSAE, SubjectUnavailable
from app.harvest.imports import check
from app.harvest.job import Job, run_job
from app.harvest.labels import shown_token
from app.harvest.reader import Reader
from app.main import create_app
from app.sae.formats import save
from app.sae.jumprelu import JumpReLU
from app.sae.metrics import Reconstruction
from app.store.plain import plain
from tests.conftest import database_beside, random_sae
from tests.families import config, parts


@pytest.fixture(scope="module")
def own(settings):
    return database_beside(settings, "unmeasured")


def special(number):
    """A sequence of nothing but BOS and EOS."""
    return Sequence(np.array([1] + [2] * 30, dtype=np.int32), f"special {number}", number)


def silent():
    """It never fires."""
    _, weights = parts()
    return JumpReLU(config("jumprelu"), **weights, threshold=torch.tensor(1e9))


def overflowing():
    """Its activations are fine; its reconstruction is not."""
    sae = random_sae()
    return replace(sae, W_enc=sae.W_enc * 1e4, W_dec=sae.W_dec * 3e38)


@pytest.fixture(scope="module")
def odd(own, database, harvested, tiny, sequences, tmp_path_factory):
    """Slugs of harvests with something missing."""
    _, parameters, _ = harvested
    unmeasured = Held([special(0), *(s._replace(number=n) for n, s in enumerate(sequences[1:8], 1))])
    same = Held([Sequence(np.array([1] + [260] * 40, dtype=np.int32), "same", 0)])
    nul = Document("nul", "cat\0dog \0 and a NUL\0" * 40)
    made = {
        "unmeasured": (random_sae(), unmeasured),
        "constant": (random_sae(hook="model.embed_tokens:out"), same),
        "silent": (silent(), sequences),
        "overflowing": (overflowing(), sequences),
        "nul": (random_sae(), Held(cut([nul], tiny.encode, bos_id=1, context=64))),
        "plain": (random_sae(), sequences),
    }
    for slug, (sae, corpus) in made.items():
        folder = tmp_path_factory.mktemp(slug)
        save(folder, sae)
        run_job(Job(slug, folder, f"corpus of {slug}", 64, parameters), tiny, corpus, database, own.home)
    return list(made)


@pytest.fixture(scope="module")
def site(own, odd):
    with TestClient(create_app(own)) as client:
        yield client


def whole(answer):
    """The JSON of an answer, in which no number may be NaN or infinite."""

    def refuse(name):
        raise AssertionError(f"{name} in {answer.url}")

    return json.loads(answer.text, parse_constant=refuse)


@pytest.mark.parametrize("slug", ["unmeasured", "constant", "silent", "overflowing", "nul"])
def test_every_page_answers(site, slug):
    sae = f"/saes/{slug}"
    pages = ["/", sae, f"{sae}/og.png", f"{sae}/features", f"{sae}/features.csv", f"{sae}/features.parquet",
             f"/inspect?sae={slug}&text=A+cat", f"/compare?a={slug}&b=plain", f"/compare?a=plain&b={slug}",
             f"/compare?a={slug}/0&b=plain/0", f"/search?q=a&sae={slug}"]  # fmt: skip
    twins = ["/index.json", "/saes.json", f"{sae}.json", f"{sae}/features.json", f"/compare.json?a={slug}&b=plain",
             f"/compare.json?a={slug}/0&b=plain/0", f"/inspect.json?sae={slug}&text=A+cat"]  # fmt: skip
    for index in range(40):
        feature = f"{sae}/features/{index}"
        pages += [feature, f"{feature}/card"]
        twins += [f"{feature}.json", f"{feature}/card.json"]
        pages += [f"{feature}/og.png", f"{feature}/embed"] * (index < 4)
        interval = site.get(f"{feature}.json").json()["examples"][0]["interval"]
        pages.append(f"{feature}/examples/{interval}/0")
    for page in pages:
        answer = site.get(page)
        assert answer.status_code == 200, (page, answer.text)
    for twin in twins:
        answer = site.get(twin)
        assert answer.status_code == 200, (twin, answer.text)
        whole(answer)
    assert site.post("/api/inspect", json={"sae": slug, "text": "A cat"}).status_code == 200


def test_what_was_not_measured_is_null_and_said_to_be(site):
    metrics = whole(site.get("/saes/unmeasured.json"))["metrics"]
    assert metrics.pop("recovery_tokens") > 0
    assert metrics.pop("tokens") == 0
    assert [metrics[name] for name in ("fvu", "explained_variance", "cosine", "norm_ratio", "l0")] == [None] * 5
    assert metrics["ce_recovered"] is not None
    page = site.get("/saes/unmeasured").text
    assert page.count('<td class="num">not measured</td>') == 5
    assert "L0 not measured, FVU not measured." in page  # in the preview of a link
    assert "<dt>FVU</dt><dd>not measured</dd>" in site.get("/").text
    pair = whole(site.get("/compare.json?a=unmeasured&b=plain"))["saes"]["metrics"][0]
    assert (pair["a"], pair["a_note"], pair["delta"], pair["b_note"]) == (None, "not measured", None, None)
    assert '<td class="num">not measured</td>' in site.get("/compare?a=unmeasured&b=plain").text


def test_what_is_not_defined_is_null_and_said_to_be(site):
    pages = [whole(site.get(f"/saes/{slug}.json")) for slug in ("constant", "overflowing")]
    assert pages[0]["density_histogram"] == {"edges": [-0.25, 0.0], "counts": [4]}  # four fire, everywhere
    constant, wide = (page["metrics"] for page in pages)
    assert constant["tokens"] == 40
    assert constant["fvu"] is constant["explained_variance"] is None
    assert constant["l0"] > 0
    assert site.get("/saes/constant").text.count('<td class="num">not defined</td>') == 2
    for name in ("fvu", "cosine", "norm_ratio", "ce_recovered", "kl_recovered", "ce_sae"):
        assert wide[name] is None, name
    assert wide["ce_original"] > 0
    assert "not defined: a cross-entropy overflows" in site.get("/saes/overflowing").text
    notes = {m["name"]: m["a_note"] for m in whole(site.get("/compare.json?a=constant&b=plain"))["saes"]["metrics"]}
    assert (notes["FVU"], notes["L0"]) == ("not defined", None)


def test_contexts_of_latents_that_never_fire_hold_no_value(site):
    for index in (0, 39):
        examples = site.get(f"/saes/silent/features/{index}.json").json()["examples"]
        assert {example["interval"] for example in examples} == {"random"}
        assert not any(any(example["activations"]) for example in examples)


def test_a_nul_in_the_text_is_seen_in_labels_and_tokens(site):
    rows = site.get("/saes/nul/features.json?limit=40").json()["items"]
    labels = [row["label"] for row in rows]
    assert not any("\0" in label for label in labels)
    assert any("\\x00" in label for label in labels)
    index = next(row["index"] for row in rows if "\\x00" in row["label"])
    examples = site.get(f"/saes/nul/features/{index}.json").json()["examples"]
    assert any("\0" in e["tokens"][e["position"]] for e in examples if e["interval"] == "top")


@pytest.mark.parametrize(
    ("token", "shown"),
    [("\0", "\\x00"), (" a\0b", "a\\x00b"), ("\x1b[31m", "\\x1b[31m"), ("\x85x", "x"), ("\t", "(tab)"), ("é", "é")],
)
def test_control_characters_of_labels_are_seen(token, shown):
    assert shown_token(token) == shown


def test_a_corpus_without_a_counted_token_is_refused_and_leaves_nothing(own, database, harvested, tiny):
    _, parameters, folder = harvested
    corpus = Held([special(0), special(1)])
    job = Job("nothing", folder, "text:specials", 64, parameters, checkpoint_seconds=0)
    with pytest.raises(CorpusUnavailable, match=r"^No token of text:specials counts: all 62 are BOS, EOS or padding"):
        run_job(job, tiny, corpus, database, own.home)
    with database.connect() as connection:
        assert not connection.execute(text("SELECT 1 FROM sae WHERE slug = 'nothing'")).all()
        assert not connection.execute(text("SELECT 1 FROM corpus WHERE name = 'text:specials'")).all()
    assert not list((own.home / "work").glob("harvest-nothing-*"))


def test_an_sae_that_overflows_is_refused_at_once_by_name(own, database, harvested, tiny, sequences, tmp_path):
    _, parameters, _ = harvested
    sae = random_sae()
    save(tmp_path / "sae", replace(sae, W_enc=torch.full_like(sae.W_enc, 3e38), b_enc=torch.full((40,), 3e38)))
    job = Job("wide", tmp_path / "sae", "test text", 64, parameters)
    with pytest.raises(InvalidSAE) as caught:
        run_job(job, tiny, sequences, database, own.home)
    says = caught.value.message
    assert says.startswith("wide overflows: latent ")
    assert "); its weights are too large for these activations" in says
    assert "\n" not in says


def test_a_subject_that_overflows_is_blamed_and_not_the_sae(tiny, sequences):
    sae = random_sae()
    handle = tiny.model.model.layers[0].register_forward_hook(
        lambda module, args, out: (out[0] if isinstance(out, tuple) else out) * float("inf")
    )
    try:
        with pytest.raises(SubjectUnavailable, match=r"^tiny computes values that are not finite at model\.layers\.0"):
            Reader(tiny, [sae]).read(0, sequences[:2])
    finally:
        handle.remove()


def test_fvu_of_what_does_not_vary_is_none():
    sae = random_sae()
    for value in (0.1, 3.0, 1e3):  # whose squares fp32 rounds
        measured = Reconstruction(32)
        x = torch.full((50, 32), value)
        acts = sae.encode(x)
        measured.update(x, sae.decode(acts, x), acts)
        assert measured.result()["fvu"] is None
    measured.update(torch.randn(50, 32), torch.zeros(50, 32), acts)
    assert measured.result()["fvu"] > 0


def test_an_import_is_checked_on_text_that_does_not_vary(tiny):
    same = [Sequence(np.array([1] + [260] * 40, dtype=np.int32), "same", 0)]
    found = check(random_sae(hook="model.embed_tokens:out"), tiny, same)
    assert found.fvu is None
    assert found.warnings[0].startswith("FVU is not defined")


def test_what_jsonb_and_text_cannot_hold():
    given = {"a\0": [1.5, float("nan"), (float("-inf"), "x\0y")], "b": {"c": "\ud800!"}, "d": True, "e": None, "f": 3}
    wanted = {"a\\x00": [1.5, None, [None, "x\\x00y"]], "b": {"c": "\ufffd!"}, "d": True, "e": None, "f": 3}
    assert plain(given) == wanted
