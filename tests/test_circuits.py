"""Circuits: prompts, the ranking against counting by hand, a head that is known to matter, and the pages."""

import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from app import cli
from app.circuits import tasks
from app.circuits.ablation import ablate
from app.circuits.dictionary import SILENT, Dictionary
from app.circuits.find import Search, code, find_circuit
from app.circuits.heads import Heads
from app.circuits.prompts import Words, next_token, pairs
from app.circuits.record import get, keep, kept
from app.circuits.scores import apart, counts, roc_auc, shuffled_examples, shuffled_truth, spearman
from app.circuits.tasks import TASKS
from app.errors import BadRequest, SubjectUnfit, UnknownCircuit
from app.main import create_app
from app.web.circuits import level
from tests.conftest import public_folder


@pytest.mark.parametrize("task", TASKS)
def test_prompts_are_of_one_length_a_template_and_their_answers_are_tokens(tiny, task):
    made = pairs(TASKS[task], tiny, 24, seed=0)
    assert len(made) == 24
    lengths = {}
    for positive, negative in made:
        assert positive.ids[0] == negative.ids[0] == tiny.bos_id
        assert lengths.setdefault(positive.template, len(positive.ids)) == len(positive.ids) == len(negative.ids)
        assert list(positive.ids[1:]) == tiny.encode(positive.text)
        assert positive.right
        assert positive.wrong
        assert not set(positive.right) & set(positive.wrong)
        assert positive.text != negative.text
    assert pairs(TASKS[task], tiny, 24, seed=0) == made
    assert pairs(TASKS[task], tiny, 24, seed=1) != made


def test_what_the_right_answers_are(tiny):
    def text(i):
        return tiny.vocabulary.text(i)

    for positive, negative in pairs(TASKS["ioi"], tiny, 16, seed=3):
        (right,), (wrong,) = positive.right, positive.wrong
        assert positive.text.count(text(right)) == 1
        assert positive.text.count(text(wrong)) == 2
        assert negative.text.count(text(wrong)) == 1
        assert text(right) not in negative.text
    for positive, negative in pairs(TASKS["greater-than"], tiny, 16, seed=3):
        since = next(w for w in positive.text.split() if w.isdigit() and len(w) == 4)
        assert {text(i) for i in positive.right} == {str(d) for d in range(int(since[2]) + 1, 10)}
        assert {text(i) for i in positive.wrong} == {str(d) for d in range(int(since[2]))}
        assert f"{since[:2]}01" in negative.text
    for positive, negative in pairs(TASKS["docstring"], tiny, 16, seed=3):
        definition, told = positive.text.split(":", 1)
        arguments = definition.split("self, ")[1].rstrip(")").split(", ")
        assert text(positive.right[0]).strip() == arguments[4]
        assert [a for a in arguments if f" {a}:" in told] == arguments[2:4]
        assert {text(i).strip() for i in positive.wrong} == set(arguments) - {arguments[4]}
        assert text(positive.right[0]).strip() not in negative.text.split()


def test_a_tokenizer_that_cuts_words_is_refused(tiny):
    letters = SimpleNamespace(name="letters", encode=lambda text: [ord(c) for c in text], bos_id=None)
    with pytest.raises(SubjectUnfit, match="Only 0 of the 52 names of this task are one token for letters"):
        pairs(TASKS["ioi"], letters, 5, seed=0)
    uneven = iter([tasks.Drawn(0, "a" * n, "b" * (n + n % 2), ["x"], ["y"]) for n in range(1, 400)])
    with pytest.raises(SubjectUnfit, match="cuts this task's prompts"):
        pairs(lambda words, rng: uneven, letters, 300, seed=0)
    merged = SimpleNamespace(name="m", encode=lambda text: [len(text)], bos_id=None)
    assert next_token(merged, "ab", [2], "c") is None
    assert Words(letters).single(["a"], 0, "letters") == []
    assert next(tasks.ioi(Words(tiny), random.Random(0))).template == 0


def test_counts_by_hand():
    codes = np.array([[1, 5, -1], [2, 5, -1], [3, 5, 4], [1, 5, -1], [1, 6, 4], [9, 7, 4]])
    positive = np.array([True, True, True, False, False, False])
    found = counts(codes, positive)
    assert found.unique.tolist() == [2, 0, 0]  # 2 and 3 of the first; 5 is on a negative example too
    assert found.distinct.tolist() == [4, 3, 2]


def test_counts_are_those_of_sets():
    rng = np.random.default_rng(0)
    codes, positive = rng.integers(-1, 12, (40, 9)), rng.random(40) < 0.5
    found = counts(codes, positive)
    for head in range(9):
        on, off = set(codes[positive, head]), set(codes[~positive, head])
        assert found.unique[head] == len(on - off)
        assert found.distinct[head] == len(on | off)


def test_roc_auc_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(1)
    scores, truth = rng.integers(0, 6, 50), rng.random(50) < 0.3
    by_pairs = [(a > b) + 0.5 * (a == b) for a in scores[truth] for b in scores[~truth]]
    assert roc_auc(scores, truth) == pytest.approx(np.mean(by_pairs))
    assert roc_auc(np.array([1, 2, 3]), np.array([False, False, True])) == 1.0
    assert roc_auc(np.array([1, 2]), np.array([True, True])) is None
    assert spearman(np.array([1, 2, 3]), np.array([2.0, 4.0, 9.0])) == pytest.approx(1)
    assert spearman(np.array([1, 2, 3, 4]), np.array([4, 3, 2, 1])) == pytest.approx(-1)
    assert spearman(np.array([1, 1]), np.array([1, 2])) is None


def test_apart_is_the_distance_of_means_over_the_spread():
    x = torch.randn(12, 4, 6, generator=torch.Generator().manual_seed(2))
    x[:6, 1] += 5
    x[:, 2] = 3.0
    x[:6, 3], x[6:, 3] = 1.0, 2.0
    found = apart(x)
    positive, negative = x.double().numpy()[:6], x.double().numpy()[6:]
    for head in (0, 1):
        means = [half[:, head].mean(0) for half in (positive, negative)]
        spread = [
            ((half[:, head] - mean) ** 2).sum(1).mean() for half, mean in zip((positive, negative), means, strict=True)
        ]
        assert found[head] == pytest.approx(np.linalg.norm(means[0] - means[1]) / np.mean(spread) ** 0.5, rel=1e-4)
    assert found[2] == 0  # it never varies
    assert found[0] < found[1] < found[3] < np.inf  # nothing but which half it is


def test_shuffles_are_near_a_half_and_say_what_variety_alone_is_worth():
    rng = np.random.default_rng(2)
    positive = np.arange(40) < 20
    truth = np.arange(60) < 12
    codes = rng.integers(0, 8, (40, 60))
    codes[:20, :12] += 8  # heads of the circuit have codes of their own on positive examples
    found = counts(codes, positive)
    assert roc_auc(found.unique, truth) == 1.0
    chance = shuffled_truth(found.unique, truth, 200, 0)
    assert abs(chance.mean - 0.5) < 0.03
    assert chance.high < 0.75
    # With twice as many codes those heads have more unique ones however the examples are dealt.
    assert shuffled_examples(codes, positive, truth, 50, 0).mean > 0.8
    alike = rng.integers(0, 8, (40, 60))
    assert abs(shuffled_examples(alike, positive, truth, 100, 0).mean - 0.5) < 0.08
    assert shuffled_truth(found.unique, truth & False, 5, 0) is None


def test_a_dictionary_learns_and_its_code_is_the_strongest_latent():
    g = torch.Generator().manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(6, 16, generator=g), dim=1)[torch.arange(60) % 6] * 4
    made = Dictionary(16, 24, 1.0, g)

    def error():
        acts = ((x - made.b_dec) @ made.W_enc.T + made.b_enc).relu()
        return float((acts @ made.W_dec + made.b_dec - x).pow(2).mean()), acts

    before = error()[0]
    made.train(x, 300, 0.001)
    after, acts = error()
    assert after < before / 2
    torch.testing.assert_close(made.W_dec.norm(dim=1), torch.ones(24))
    assert made.codes(x).tolist() == acts.argmax(1).tolist()
    assert len(set(made.codes(x).tolist())) == 6
    made.b_enc -= 100
    assert set(made.codes(x).tolist()) == {SILENT}


def test_heads_write_what_the_projection_writes(tiny):
    heads = Heads(tiny)
    assert (heads.layers, heads.count, heads.d_head, heads.d_model) == (2, 4, 8, 32)
    prompts = [pair.positive for pair in pairs(TASKS["ioi"], tiny, 10, seed=0)]
    written = heads.written(tiny.model, heads.survey(tiny, prompts).means)
    assert written.shape == (10, 8, 32)
    for row in (0, 7):
        seen = []
        module = tiny.model.model.layers[1].self_attn
        handle = module.register_forward_hook(lambda _m, _a, out, seen=seen: seen.append(out[0]))
        tiny.model(torch.tensor([prompts[row].ids]))
        handle.remove()
        torch.testing.assert_close(written[row, 4:].sum(0), seen[0][0, 1:].mean(0), atol=1e-5, rtol=1e-4)


def test_gpt2s_heads_are_read_too(gpt2):
    heads = Heads(SimpleNamespace(model=gpt2, name="gpt2"))
    assert (heads.layers, heads.count, heads.d_head) == (2, 4, 8)
    assert heads.weight(gpt2, 1) is not None
    torch.testing.assert_close(heads.weight(gpt2, 0), gpt2.transformer.h[0].attn.c_proj.weight.float())
    odd = torch.nn.Linear(2, 2)
    odd.config = SimpleNamespace(num_attention_heads=4)
    with pytest.raises(SubjectUnfit, match="not where they are known to be"):
        Heads(SimpleNamespace(model=odd, name="odd"))


LAYER, HEAD = 1, 2


@pytest.fixture(scope="module")
def rigged(tiny):
    """The tiny subject with one head that alone tells answers apart: others write nothing in their layers, so that all
    that the last token learns of the text comes through it."""
    import copy

    model = copy.deepcopy(tiny.model)
    for number, block in enumerate(model.model.layers):
        block.mlp.down_proj.weight.mul_(0.02)
        for head in range(4):
            mine = (number, head) == (LAYER, HEAD)
            block.self_attn.o_proj.weight[:, head * 8 : head * 8 + 8] *= 60 if mine else 0.02
    return SimpleNamespace(
        **{name: getattr(tiny, name) for name in ("encode", "bos_id", "device", "dtype", "path", "vocabulary")},
        special_ids=tiny.special_ids, model=model, name="rigged",
    )  # fmt: skip


def test_ablation_is_a_forward_with_the_heads_output_replaced(rigged):
    heads = Heads(rigged)
    made = pairs(TASKS["ioi"], rigged, 24, seed=0)
    negatives = [pair.negative for pair in made]
    prompts = [made[n].positive for n in (0, 3, 5)]
    told, found = ablate(rigged, heads, prompts, heads.survey(rigged, negatives).by_template)
    assert all("forward" not in vars(block) for block in rigged.model.model.layers)
    point = rigged.model.model.layers[LAYER].self_attn.o_proj

    def difference(prompt, reference=None):
        def replace(_module, args):
            z = args[0].clone()
            z[0, 1:, HEAD * 8 : HEAD * 8 + 8] = reference[1:, HEAD * 8 : HEAD * 8 + 8]
            return (z,)

        handle = None if reference is None else point.register_forward_pre_hook(replace)
        logits = rigged.model(torch.tensor([prompt.ids])).logits[0, -1]
        if handle is not None:
            handle.remove()
        return float(logits[prompt.right[0]] - logits[prompt.wrong[0]])

    lost = []
    for prompt in prompts:
        seen = []
        handle = point.register_forward_pre_hook(lambda _m, args, seen=seen: seen.append(args[0][0]))
        for other in (n for n in negatives if n.template == prompt.template):
            rigged.model(torch.tensor([other.ids]))
        handle.remove()
        lost.append(difference(prompt) - difference(prompt, torch.stack(seen).mean(0)))
    assert float(found[LAYER, HEAD]) == pytest.approx(np.mean(lost), rel=1e-3, abs=1e-5)
    torch.testing.assert_close(told.difference, torch.tensor([difference(p) for p in prompts]), atol=1e-4, rtol=1e-4)
    assert told.best.tolist() == [difference(p) > 0 for p in prompts]


@pytest.fixture(scope="module")
def found(rigged):
    return find_circuit(rigged, Search("ioi", examples=40, latents=64, steps=60, l1=0.001, ablated_on=8))


def test_the_one_head_that_matters_is_found_by_ablation_and_by_codes(found):
    effect = np.abs(np.array(found.effect))
    assert np.unravel_index(effect.argmax(), effect.shape) == (LAYER, HEAD)
    assert np.sort(effect.ravel())[-2] < effect.max() / 5
    unique = np.array(found.unique)
    assert np.unravel_index(unique.argmax(), unique.shape) == (LAYER, HEAD)
    assert np.sort(unique.ravel())[-2] <= 1  # the others write next to nothing, which has one code
    assert (np.array(found.distinct) >= unique).all()
    truth = effect > found.threshold * abs(found.ablated_difference)
    assert found.in_circuit == truth.sum()
    assert found.auc == roc_auc(unique.ravel(), truth.ravel())
    assert found.auc_apart == roc_auc(np.array(found.apart).ravel(), truth.ravel())


def test_the_same_seed_gives_the_same_codes_and_learning_changes_them():
    x = torch.randn(20, 3, 8, generator=torch.Generator().manual_seed(0))
    search = Search("ioi", examples=10, learned_from=4, latents=12, steps=40)
    once, again = code(x, search), code(x, search)
    assert (once.codes == again.codes).all()
    assert (once.codes != once.untrained).any()


@pytest.mark.parametrize(
    ("search", "says"),
    [
        (Search("sums"), "There is no task 'sums'; there are: ioi, greater-than, docstring."),
        (Search("ioi", examples=3), "3 examples are too few: give 5 or more"),
        (Search("ioi", examples=8, learned_from=20), "8 examples are too few: give 10 or more"),
        (Search("ioi", learned_from=3), "an even number of prompts, 2 or more, not 3"),
        (Search("ioi", ablated_on=0), "Ablation needs 1 prompt or more, not 0."),
    ],
)
def test_searches_that_make_no_sense_are_refused(search, says):
    with pytest.raises(BadRequest, match=says.replace("(", r"\(")):
        search.check()


@pytest.fixture(scope="module")
def shelf(found):
    shelf = public_folder()
    keep(shelf, found)
    keep(shelf, found.model_copy(update={"name": "none-found", "auc": None, "in_circuit": 0, "accuracy": 0.1}))
    (shelf / "circuits" / "broken.json").write_text("{")
    return shelf


@pytest.fixture(scope="module")
def client(settings, shelf):
    with TestClient(create_app(settings.model_copy(update={"home": shelf}))) as client:
        yield client


def test_runs_are_kept_whole(shelf, found):
    runs, bad = kept(shelf)
    assert {run.name for run in runs} == {found.name, "none-found"}
    assert bad == ["broken.json"]
    assert get(shelf, found.name) == found
    assert not list((shelf / "circuits").glob("*.partial"))
    assert kept(shelf / "nowhere") == ([], [])
    for name, says in (
        ("nothing", "There is no circuit"),
        ("../x", "There is no circuit"),
        ("broken", "cannot be read"),
    ):
        with pytest.raises(UnknownCircuit, match=says):
            get(shelf, name)


def test_the_pages_show_the_grid_its_worth_and_the_prompts(client, found):
    listed = client.get("/circuits")
    assert listed.status_code == 200
    assert "cannot be read: broken.json" in listed.text
    assert f'href="/circuits/{found.name}"' in listed.text
    page = client.get(f"/circuits/{found.name}").text
    assert page.count('<th scope="row">') > 2 * 2
    assert page.count(", in the circuit") == 2 * found.in_circuit
    assert found.prompts[0].positive in page
    told = client.get(f"/circuits/{found.name}.json").json()
    assert told["run"]["unique"] == found.unique
    assert told["top"][0]["layer"] == LAYER
    assert told["top"][0]["head"] == HEAD
    assert [h["unique"] for h in told["top"]] == sorted((h["unique"] for h in told["top"]), reverse=True)
    assert sum(h["share"] for h in told["top"]) == pytest.approx(1)
    none = client.get("/circuits/none-found").text
    assert "no head is in the circuit" in none
    assert "hardly does this task" in none
    for path in ("/circuits/nothing", "/circuits/broken"):
        assert client.get(path).status_code == 404
        assert json.loads(client.get(f"{path}.json").text)["code"] == "circuit_unknown"


def test_colours_are_tenths_of_the_greatest():
    assert [level(v, 2.0) for v in (2.0, 1.0, 0.05, -2.0, 9.0)] == ["a10", "a5", "", "n10", "a10"]
    assert level(1.0, 0.0) == ""


def test_the_command_keeps_a_run_and_refuses_in_a_sentence(tiny_folder, monkeypatch):
    home = public_folder()
    monkeypatch.setenv("SAESCOPE_DTYPE", "float32")
    asked = ["circuit", str(tiny_folder), "--home", str(home), "--task"]
    small = ["--examples", "5", "--learn-from", "4", "--latents", "8", "--ablate-on", "2"]
    done = CliRunner().invoke(cli.app, [*asked, "greater-than", *small])
    assert done.exit_code == 0, done.output
    (run,), _ = kept(home)
    assert (run.task, run.subject, run.examples) == ("greater-than", "tiny", 5)
    assert f"it is shown at /circuits/{run.name}" in done.output
    refused = CliRunner().invoke(cli.app, [*asked, "sums"])
    assert "There is no task 'sums'" in str(refused.exception)
    refused = CliRunner().invoke(cli.app, ["circuit", "nowhere", "--task", "ioi", "--home", str(home)])
    assert "There is no model folder nowhere" in str(refused.exception)
