"""`saescope eval`: from an SAE to its page, what is not measured twice, what is imported, and what is refused."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.corpus.sequences import Held, cut
from app.evaluate import classes
from app.evaluate.definitions import GROUPS
from app.evaluate.run import STREAMED, Evaluation, Recipe
from app.evaluate.target import Target
from app.harvest.job import Job, resolved, run_job
from app.harvest.reader import Reader
from app.harvest.recovery import recovered
from app.main import create_app
from app.sae.formats import saelens
from app.store.replace import remove
from app.subject.edits import logits_with
from app.subject.hooks import HookPoint, read_activations
from tests.chromium import launched
from tests.conftest import database_beside, public_folder, random_sae
from tests.counting import counted_queries
from tests.families import make
from tests.serving import serving
from tests.test_explain_run import documents

SLUG = "measured"
MEASURED = tuple(name for name in GROUPS if name not in ("bidirectional", "planted"))
CORE = {
    "eval_type_id": "core", "eval_config": {"model_name": "tiny", "context_size": 128, "layers": [1, 2]},
    "eval_id": "x", "datetime_epoch_millis": 1_738_000_000_000,
    "eval_result_metrics": {
        "reconstruction_quality": {"explained_variance": 0.75, "mse": 1}, "misc_metrics": {"freq_over_1_percent": None},
    },
    "eval_result_details": [{"index": 0, "feature_density": 0.5}], "sae_bench_commit_hash": "abc123",
    "sae_lens_id": "blocks.0.hook_resid_post", "sae_lens_release_id": "tiny-release", "sae_lens_version": "6.0",
    "eval_result_unstructured": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def own(settings):
    return database_beside(settings, "evaluating").model_copy(update={"home": public_folder()})


@pytest.fixture(scope="module")
def sae(harvested, database, own, tiny):
    """Its harvest's metrics are of every sequence."""
    folder = own.home / "given" / SLUG
    saelens.write(folder, random_sae(), matrices=torch.float32, metadata={})
    rows = Held(cut(documents(), tiny.encode, bos_id=tiny.bos_id, context=64))
    parameters = replace(harvested[1], reconstruct_every=1)
    return run_job(Job(SLUG, folder, "told text", 64, parameters), tiny, rows, database, own.home)


@pytest.fixture
def site(own, sae):
    with TestClient(create_app(own)) as client:
        yield client


@pytest.fixture(scope="module")
def little():
    """The classes of a short text."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classes, "LEAST", {"train": 30, "test": 10})
        yield


def rows(database, query, **values):
    with database.connect() as connection:
        return connection.execute(text(query), values).all()


@pytest.fixture
def measured(database, sae, command, little):
    out, err, status = command("eval", SLUG, "--tokens", "100000")
    assert status == 0, err
    return out


def test_every_group_is_measured_and_kept(database, sae, measured):
    told = {line.partition(":")[0]: line for line in measured.splitlines()}
    assert list(told) == [name for name in GROUPS if name != "planted"]
    assert told["bidirectional"] == "bidirectional: not measured, since its latents have one sign."
    kept = {
        row.group: row for row in rows(database, "SELECT * FROM evaluation WHERE \"group\" <> 'planted' ORDER BY id")
    }
    assert set(kept) == set(MEASURED)
    for name, row in kept.items():
        assert set(row.values) <= set(GROUPS[name].metrics), name
        assert set(GROUPS[name].headline) <= set(row.values), name
        assert row.corpus == "told text"
        assert row.seconds >= 0
    (harvest,) = rows(database, "SELECT metrics, tokens, dead FROM harvest JOIN sae ON sae.id = sae_id WHERE slug = :s",
                      s=SLUG)  # fmt: skip
    core = kept["core"].values
    for name in ("fvu", "explained_variance", "l0", "cosine", "norm_ratio"):
        assert core[name] == pytest.approx(harvest.metrics[name], rel=1e-6), name
    assert kept["core"].tokens == harvest.tokens
    assert core["dead_share"] == harvest.dead / 40
    shares = [v for row in kept.values() for n, v in row.values.items() if v is not None and "recovered" not in n
              and GROUPS[row.group].metrics[n].better and not n.startswith(("ce_", "tpp_"))]  # fmt: skip
    assert all(-1e-9 <= value <= 64 for value in shares)


def test_what_is_written_is_not_measured_again(database, sae, measured, command, monkeypatch):
    before = rows(database, "SELECT id, key FROM evaluation ORDER BY id")

    def never(*_):
        raise AssertionError("read again")

    monkeypatch.setattr(Reader, "read", never)
    out, err, status = command("eval", SLUG, "--tokens", "100000", "--metrics", ",".join(MEASURED))
    assert status == 0, err
    assert out.count("measured before with the same parameters.") == len(MEASURED)
    assert rows(database, "SELECT id, key FROM evaluation ORDER BY id") == before


def test_a_run_that_was_cut_short_keeps_what_it_had_and_does_the_rest(database, sae, command, monkeypatch, little):
    real = Evaluation._alone

    def cut_short(self, group):
        raise KeyboardInterrupt

    asked = ("eval", SLUG, "--tokens", "1500", "--metrics", "core,zf,robustness")
    monkeypatch.setattr(Evaluation, "_alone", cut_short)
    _, err, status = command(*asked)
    assert status == 130
    assert "The same command carries on from here." in err
    monkeypatch.setattr(Evaluation, "_alone", real)
    out, _, status = command(*asked)
    assert status == 0
    assert [("before" in line) for line in out.splitlines()] == [True, True, False]


def test_mean_ablation_and_l1_by_hand(tiny, sequences):
    sae, point, chosen = make("topk"), HookPoint.parse("model.layers.0:out"), sequences[:3]
    every, ce = [], {"mean": 0.0, "original": 0.0, "sae": 0.0}
    for s in chosen:
        ids = torch.from_numpy(s.token_ids).long()[None]
        every.append(read_activations(tiny.model, ids, [point])[point][0, 1:])
    mean = torch.cat(every).mean(0)
    tokens = 0
    for s, x in zip(chosen, every, strict=True):
        ids = torch.from_numpy(s.token_ids).long()[None]
        mask = torch.ones_like(ids, dtype=torch.bool)
        mask[0, 0] = False
        for name, value in {"mean": mean.expand_as(x), "original": x, "sae": sae.decode(sae.encode(x), x)}.items():
            put = torch.zeros(1, ids.shape[1], 32)
            put[0, 1:] = value
            logits = logits_with(tiny.model, ids, None, {point: put}, mask)
            ce[name] += float(torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="sum"))
        tokens += ids.shape[1] - 1
    got = recovered(tiny, sae, chosen, 3, mean)
    assert got["recovery_tokens"] == tokens
    for name, total in ce.items():
        assert got[f"ce_{name}"] == pytest.approx(total / tokens, rel=1e-5)
    wanted = (ce["mean"] - ce["sae"]) / (ce["mean"] - ce["original"])
    assert got["ce_recovered_mean"] == pytest.approx(wanted, rel=1e-3)


def test_the_pages_show_it_and_change_with_it(site, database, sae, measured, command):
    page = site.get(f"/saes/{SLUG}")
    assert f'/saes/{SLUG}/evaluations"' in page.text
    shown = site.get(f"/saes/{SLUG}.json").json()["evaluations"]
    assert [one["group"] for one in shown] == list(MEASURED)
    assert shown[0]["metrics"][0]["title"] == "FVU"
    with counted_queries(site) as statements:
        assert site.get(f"/saes/{SLUG}").status_code == 200
    assert len(statements) <= 9
    answer = site.get(f"/saes/{SLUG}/evaluations")
    twin = site.get(f"/saes/{SLUG}/evaluations.json").json()
    for one in twin["evaluations"]:
        assert f'id="e{one["id"]}"' in answer.text
        assert all(metric["how"] for metric in one["metrics"]), one["group"]
    assert next(one["group"] for one in twin["evaluations"] if one["points"]) == "zf"
    assert "<circle" in answer.text
    assert "style=" not in answer.text
    tags = [site.get(f"/saes/{SLUG}{end}").headers["etag"] for end in ("", "/evaluations")]
    assert site.get(f"/saes/{SLUG}/evaluations", headers={"if-none-match": tags[1]}).status_code == 304
    assert command("eval", SLUG, "--tokens", "1200", "--seed", "3", "--metrics", "zf")[2] == 0
    assert [site.get(f"/saes/{SLUG}{end}").headers["etag"] for end in ("", "/evaluations")] != tags
    twin = site.get(f"/saes/{SLUG}/evaluations.json").json()
    assert {one["group"]: one["seed"] for one in twin["evaluations"]}["zf"] == 3
    assert "zf" in {one["group"] for one in twin["earlier"]}


def test_its_page_fits_a_phone_and_axe_finds_nothing(own, sae, measured):
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    with serving(create_app(own)) as base, sync_playwright() as playwright:
        browser = launched(playwright)
        viewport = {"width": 380, "height": 800}
        for path, scheme in ((f"/saes/{SLUG}/evaluations", "light"), (f"/saes/{SLUG}/evaluations", "dark"),
                             (f"/saes/{SLUG}", "light")):  # fmt: skip
            page = browser.new_page(base_url=base, color_scheme=scheme, bypass_csp=True, viewport=viewport)
            page.goto(path)
            assert page.evaluate("document.documentElement.scrollWidth") <= 380
            assert [(v["id"], v["nodes"][0]["html"]) for v in Axe().run(page).response["violations"]] == []
        browser.close()


def written(folder, **changes):
    file = folder / "result.json"
    file.write_text(json.dumps({name: value for name, value in (CORE | changes).items() if value != "left out"}))
    return file


def test_an_saebench_result_is_shown_as_imported(site, database, sae, command, tmp_path):
    file = written(tmp_path)
    out, err, status = command("eval", SLUG, "--import", str(file))
    assert (out, status) == ("result.json: core, 3 metrics of SAEBench abc123.\n", 0), err
    assert command("eval", SLUG, "--import", str(file))[0].endswith("it was there already.\n")
    one = site.get(f"/saes/{SLUG}/evaluations.json").json()["evaluations"][-1]
    assert (one["source"], one["version"], one["tokens"]) == ("result.json", "SAEBench abc123", None)
    values = {metric["name"]: metric["value"] for metric in one["metrics"]}
    assert values["reconstruction_quality.explained_variance"] == 0.75
    assert values["misc_metrics.freq_over_1_percent"] is None
    assert one["tables"][0]["rows"] == [[0, 0.5]]
    assert one["parameters"]["measured"].startswith("2025-01-27")
    page = site.get(f"/saes/{SLUG}/evaluations").text
    assert "<strong>Imported</strong> from <code>result.json</code>, made by SAEBench abc123 on 2025-01-27" in page
    assert "imported" in site.get(f"/saes/{SLUG}").text


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"eval_type_id": "left out"}, "no eval_type_id"),
        ({"eval_type_id": "<script>"}, "no eval_type_id"),
        ({"eval_result_metrics": {}}, "no eval_result_metrics"),
        ({"eval_result_metrics": {"a": {"b": "1"}}}, 'a.b is "1", no number'),
        ({"eval_result_metrics": {"a": {"b": True}}}, "a.b is true, no number"),
        ({"eval_result_metrics": {"a": {"b": float("nan")}}}, "holds NaN"),
        ({"eval_result_metrics": {"a": {"b": float("inf")}}}, "holds Infinity"),
        ({"eval_result_metrics": {"a": {"b": 10**400}}}, "beyond 1e300"),
        ({"eval_result_metrics": {"a": [1]}}, "no object of numbers"),
        ({"eval_result_metrics": {"a": {f"m{i}": 1 for i in range(501)}}}, "501 metrics"),
        ({"eval_config": [[[[[[[[[[1]]]]]]]]]]}, "deeper than 8"),
        ({"eval_config": "x"}, "eval_config is no object"),
        ({"eval_result_details": {"a": 1}}, "no list of objects"),
        ({"datetime_epoch_millis": -1}, "no time"),
        ({"sae_lens_id": 3}, "sae_lens_id is no text"),
    ],
)
def test_results_that_are_none_are_refused(database, sae, command, tmp_path, changes, says):
    count = rows(database, "SELECT count(*) FROM evaluation")
    good = tmp_path / "good.json"
    good.write_text(json.dumps(CORE | {"eval_id": str(changes)}))
    _, err, status = command("eval", SLUG, "--import", str(good), "--import", str(written(tmp_path, **changes)))
    assert status == 1
    assert re.fullmatch(r"saescope: result\.json is no SAEBench result: [^\n]*\.\n", err)
    assert says in err
    assert rows(database, "SELECT count(*) FROM evaluation") == count  # nor is the good one kept


@pytest.mark.parametrize(
    ("content", "says"),
    [("[" * 100_000, "nested too deep"), ("not JSON", "no JSON"), ("[1]", "no JSON object"), ("\xff\xfe", "no JSON")],
)
def test_files_that_are_no_json_are_refused(sae, command, tmp_path, content, says):
    file = tmp_path / "bad.json"
    file.write_text(content, encoding="latin-1")
    _, err, status = command("eval", SLUG, "--import", str(file))
    assert (status, err.count("\n")) == (1, 1)
    assert says in err
    assert command("eval", SLUG, "--import", str(tmp_path / "none.json"))[1].startswith("saescope: There is no file")


def test_an_sae_that_was_not_harvested_needs_a_text(database, own, sae, command, tmp_path, tiny_folder, little):
    folder = tmp_path / "apart"
    saelens.write(folder, make("abstopk"), matrices=torch.float32, metadata={})
    _, err, status = command("eval", str(folder), "--model", str(tiny_folder), "--metrics", "core")
    assert (status, "give one by --corpus" in err) == (1, True)
    book = tmp_path / "book.txt"
    book.write_text("The river runs through Paris to the warm sea. " * 150)
    truth = make("abstopk").W_dec[:8].numpy()
    np.save(tmp_path / "truth.npy", truth)
    out, err, status = command(
        "eval", str(folder), "--model", str(tiny_folder), "--corpus", f"text:{book}", "--metrics",
        "bidirectional,planted,autointerp,probing", "--dictionary", str(tmp_path / "truth.npy"), "--tokens", "1000",
    )  # fmt: skip
    assert status == 0, err
    assert "planted: Mean max cosine 1; Recovered 1." in out
    assert "autointerp: not measured, since it is of a harvest and its text." in out
    assert "probing: not measured, since the text is of 1 documents" in out
    assert out.startswith("bidirectional: Different")
    np.save(tmp_path / "truth.npy", truth[:, :5])
    _, err, status = command("eval", SLUG, "--dictionary", str(tmp_path / "truth.npy"))
    assert (status, "wanted rows of 32" in err) == (1, True)


def test_unknown_metrics_are_refused_by_name(sae, command):
    _, err, status = command("eval", SLUG, "--metrics", "core,nope")
    assert status == 1
    assert err == f"saescope: There is no metric 'nope'; there are: {', '.join(GROUPS)}.\n"


def test_evaluations_go_with_the_last_harvest_of_the_weights(database, own, sae, measured, tiny, harvested):
    rows_ = Held(cut(list(documents())[:9], tiny.encode, bos_id=tiny.bos_id, context=64))
    folder = own.home / "given" / SLUG
    again = run_job(Job(SLUG, folder, "other text", 64, harvested[1]), tiny, rows_, database, own.home)
    (weights,) = {row.sha256 for row in rows(database, "SELECT sha256 FROM sae WHERE slug = :s", s=SLUG)}
    remove(database, own.home, SLUG, again)
    assert rows(database, "SELECT id FROM evaluation WHERE weights = :w", w=weights)
    remove(database, own.home, SLUG)
    assert not rows(database, "SELECT id FROM evaluation WHERE weights = :w", w=weights)


@pytest.mark.parametrize(
    ("family", "without"),
    [
        ("relu-layer-norm", {"pursuit", "bidirectional"}),
        ("abstopk", set()),
        ("gated", {"bidirectional"}),
        ("matching-pursuit", {"bidirectional"}),
        ("skip-transcoder", {"zf", "pursuit", "bidirectional"}),
        ("crosscoder", {"zf", "pursuit", "bidirectional"}),
        ("clt", {"zf", "tpp", "pursuit", "bidirectional"}),
        ("attention-output", {"bidirectional"}),
    ],
)
def test_families_are_measured_by_what_has_a_meaning_for_them(tiny, sequences, little, family, without):
    sae = resolved(make(family), tiny)
    rows_ = [row._replace(document=f"d{number}") for number, row in enumerate(sequences)]
    target = Target("x", sae, tiny, "", "", "", None, False, "text", rows_, "", Path())
    done = {
        one.group: one for one, _ in Evaluation(target, Recipe(("core",), 1000, recovery=2), None)._pass(list(STREAMED))
    }
    assert {name for name, one in done.items() if one.outcome is None} == without
    for name, one in done.items():
        if one.outcome is not None:
            for metric in GROUPS[name].headline:
                value = one.outcome.values.get(metric, 0.0)
                assert value is None or math.isfinite(value), (name, metric)
    assert done["core"].outcome.values["fvu"] > 0
