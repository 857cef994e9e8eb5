"""What `saescope eval` measures, each against a second, naive computation on small tensors."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from app.corpus.sequences import Sequence
from app.evaluate import classes, probing
from app.evaluate.absorption import absorbed, main_latents
from app.evaluate.bidirectional import compared
from app.evaluate.classes import CLASSES, held_out
from app.evaluate.independence import LEAST, cosines, together
from app.evaluate.outcome import NotApplicable, quantiles
from app.evaluate.perturb import perturbed
from app.evaluate.planted import nearest
from app.evaluate.probe import fit, separation
from app.evaluate.pursuit import Pursuit
from app.evaluate.robustness import Reading, jaccard, turned
from app.evaluate.tpp import effects, without
from app.evaluate.zf import ZF, bound, norms, summary
from app.harvest.coactivation import ExactPairs
from app.sae.acts import Acts
from tests.families import make


def acts_of(dense):
    position, latent = dense.nonzero(as_tuple=True)
    return Acts(position, latent, dense[position, latent], len(dense))


def sparse(rows, n, share, seed=0, signed=False):
    g = torch.Generator().manual_seed(seed)
    values = torch.rand(rows, n, generator=g) + 0.1
    if signed:
        values *= torch.where(torch.rand(rows, n, generator=g) < 0.5, -1.0, 1.0)
    return values * (torch.rand(rows, n, generator=g) < share)


def test_quantiles_are_numpys():
    values = torch.rand(101, generator=torch.Generator().manual_seed(3))
    found = quantiles(values, {"a": 0.1, "b": 0.5, "c": 0.99})
    assert list(found.values()) == pytest.approx(np.quantile(values.double().numpy(), [0.1, 0.5, 0.99]))
    assert quantiles(values[:0], {"a": 0.1}) == {"a": None}


@pytest.mark.parametrize("signed", [False, True])
def test_decoder_cosines_pair_by_pair(monkeypatch, signed):
    monkeypatch.setattr("app.evaluate.independence.BLOCK", 40)  # several blocks of rows
    W = torch.randn(13, 5, generator=torch.Generator().manual_seed(1)) * torch.rand(13, 1)
    W[4] = 0
    found = cosines(W, torch.arange(13), signed=signed)
    wanted, pairs = [], []
    for i in set(range(13)) - {4}:
        row = [float(W[i] @ W[j] / W[i].norm() / W[j].norm()) for j in set(range(13)) - {4, i}]
        pairs += row
        wanted.append(max(map(abs, row)) if signed else max(row))
    assert found.nearest.tolist() == pytest.approx(wanted, abs=1e-5)
    assert (found.total, found.pairs) == (pytest.approx(sum(map(abs, pairs)), rel=1e-5), 12 * 11)
    assert found.squares == pytest.approx(sum(c * c for c in pairs), rel=1e-5)


def test_opposite_rows_are_near_in_signed_saes_alone():
    W = torch.tensor([[2.0, 0.0], [-1.0, 0.0]])
    assert cosines(W, torch.arange(2), signed=False).nearest.tolist() == [-1, -1]
    assert cosines(W, torch.arange(2), signed=True).nearest.tolist() == [1, 1]


def test_phi_of_all_pairs_is_their_correlation():
    dense = sparse(400, 12, 0.3)
    dense[:, 3] = 0
    dense[: LEAST - 1, 3] = 1.0  # too seldom to count
    dense[:, 7] = dense[:, 6] * 2  # fire together always
    pairs = ExactPairs(12)
    pairs.add(acts_of(dense[:150]))
    pairs.add(acts_of(dense[150:]))
    values, near = together(pairs)
    often = [i for i in range(12) if i != 3]
    matrix = np.corrcoef((dense[:, often] != 0).numpy().T.astype(float))
    upper = np.abs(matrix[np.triu_indices(11, 1)])
    assert values["phi_mean_abs"] == pytest.approx(upper.mean(), abs=1e-9)
    assert values["phi_abs_median"] == pytest.approx(np.quantile(upper, 0.5, method="inverted_cdf"), abs=1e-4)
    assert (values["phi_latents"], values["phi_tokens"]) == (11, 400)
    np.fill_diagonal(matrix, -2)
    assert near.tolist() == pytest.approx(matrix.max(1), abs=1e-6)
    assert near.max() == pytest.approx(1)


def test_lengths_and_epsilon_token_by_token():
    dense = sparse(30, 9, 0.4, signed=True)
    W, b = torch.randn(9, 6, generator=torch.Generator().manual_seed(2)) * 2, torch.full((6,), 0.3)
    z = torch.randn(30, 6, generator=torch.Generator().manual_seed(4)) * 3
    found = norms(z, acts_of(dense), W, b, W.norm(dim=1))
    rows = torch.cat([W, b[None]])
    unit = rows / rows.norm(dim=1, keepdim=True)
    for i in range(30):
        f = [float(dense[i, j] * W[j].norm()) for j in range(9)] + [float(b.norm())]
        assert float(found.f[i]) == pytest.approx(math.sqrt(sum(v * v for v in f)), rel=1e-5)
        assert float(found.f1[i]) == pytest.approx(sum(map(abs, f)), rel=1e-5)
        assert float(found.z_hat[i]) == pytest.approx(float((dense[i] @ W + b).norm()), rel=1e-4)
        active = [j for j in range(10) if f[j] != 0]
        if (
            len(active) > 1
        ):  # what the bound promises: some pair of the active rows is at least that far from orthogonal
            most = max(abs(float(unit[j] @ unit[k])) for j in active for k in active if j < k)
            gap = abs(float(found.z_hat[i]) ** 2 - sum(v * v for v in f))
            by_hand = gap / sum(abs(f[j] * f[k]) for j in active for k in active if j != k)
            assert float(bound(found.z_hat, found.f, found.f1)[i]) == pytest.approx(by_hand, rel=1e-3)
            assert by_hand <= most + 1e-5
    values = summary(found)
    ratio = (found.f / found.z).double()
    assert values["zf_ratio"] == pytest.approx(float(ratio.mean()))
    assert values["over_activated"] == pytest.approx(float((found.f > found.z).double().mean()))
    inside = ((found.z / found.f).double() ** 2 - 1).abs() <= 0.25
    assert values["within_quarter"] == pytest.approx(float(inside.double().mean()))


def test_the_bias_is_left_out_of_the_centred_lengths():
    sae = make("topk")
    x = torch.randn(30, 32, generator=torch.Generator().manual_seed(5)) + 2
    acts = sae.encode(x)
    one = ZF(sae, 0)
    one.update(SimpleNamespace(acts=acts), x, x)
    values = one.result().values
    f = (acts.dense(40) * sae.W_dec.norm(dim=1)).norm(dim=1).double()
    assert values["centred_ratio"] == pytest.approx(float((f / (x - sae.b_dec).norm(dim=1).double()).mean()), rel=1e-4)
    whole = (f**2 + float(sae.b_dec.norm()) ** 2).sqrt()
    assert values["zf_ratio"] == pytest.approx(float((whole / x.norm(dim=1).double()).mean()), rel=1e-4)


def test_orthogonal_rows_need_no_epsilon():
    dense = sparse(20, 6, 0.8)
    found = norms(dense @ torch.eye(6), acts_of(dense), torch.eye(6), torch.zeros(6), torch.ones(6))
    assert torch.allclose(found.z, found.f)
    assert summary(found)["epsilon_lbo"] == pytest.approx(0, abs=1e-6)
    one = torch.zeros(1, 6)
    one[0, 2] = 3.0  # a single weight says nothing of two rows
    assert norms(one, acts_of(one), torch.eye(6), torch.zeros(6), torch.ones(6)).f.tolist() == [3.0]
    assert bound(torch.tensor([3.0]), torch.tensor([3.0]), torch.tensor([3.0])).isnan().all()


def test_faults_are_as_many_as_asked_for():
    text = "The capital of France lies on the river Seine, where the museums are. " * 10
    words = text.split()
    spoilt = perturbed(text, "typos", 0.25, 1).split()
    long = [i for i, word in enumerate(words) if len(word.strip(",.")) >= 4]
    changed = [i for i in range(len(words)) if words[i] != spoilt[i]]
    assert set(changed) <= set(long)
    assert len(changed) == round(0.25 * len(long))
    assert perturbed(text, "case", 0.5, 1).swapcase() != perturbed(text, "case", 0.5, 2).swapcase()
    assert perturbed(text, "case", 0.5, 1).lower() == text.lower()
    assert perturbed(text, "case", 1.0, 1).count("fRANCE") == 10
    assert perturbed(text, "whitespace", 0.5, 1).count("  ") == round(0.5 * text.count(" "))
    for fault in ("typos", "case", "whitespace"):
        assert perturbed(text, fault, 0.0, 1) == text
        assert perturbed(text, fault, 0.5, 1) == perturbed(text, fault, 0.5, 1)


def test_jaccard_is_of_sets():
    n, g = 7, torch.Generator().manual_seed(0)
    sets = [[set(torch.randperm(n, generator=g)[:4].tolist()) for _ in range(3)] for _ in range(2)]
    a, b = (
        Reading(torch.tensor(sorted(t * n + i for t, one in enumerate(each) for i in one)), torch.zeros(3, 2), 3, 9)
        for each in sets
    )
    assert jaccard(a, b, n).tolist() == pytest.approx([len(x & y) / len(x | y) for x, y in zip(*sets, strict=True)])
    moved = turned(a, n)
    assert {int(c) % n for c in moved.cells if c < n} == sets[0][1]
    assert {int(c) % n for c in moved.cells if c >= 2 * n} == sets[0][0]


def test_logistic_regression_is_scikit_learns():
    sklearn = pytest.importorskip("sklearn.linear_model")
    g = torch.Generator().manual_seed(5)
    x = torch.randn(300, 6, generator=g) * torch.tensor([1.0, 5, 0.1, 1, 1, 0]) + 2
    y = x[:, 0] + x[:, 1] / 5 + torch.randn(300, generator=g) > 3.2
    probe = fit(x, y, l2=2.0)
    z = ((x - x.mean(0)) / x.std(0, correction=0).clamp_min(1e-9)).double().numpy()
    z[:, 5] = 0
    model = sklearn.LogisticRegression(C=0.5, class_weight="balanced", tol=1e-10, max_iter=5000).fit(z, y.numpy())
    assert probe.logits(x).numpy() == pytest.approx(model.decision_function(z), abs=1e-4)
    assert probe.w[5] == 0
    wanted = (x[y].mean(0) - x[~y].mean(0)) / x.std(0, correction=0)
    assert separation(x, y)[:5].tolist() == pytest.approx(wanted[:5].tolist(), rel=1e-4)
    assert separation(x, y)[5] == 0


def test_a_class_that_one_latent_tells_is_found_with_one():
    y = torch.arange(200) % 2 == 0
    dense = sparse(200, 30, 0.2, seed=7)
    dense[:, 11] = 2.0 * y
    found = probing.by_k(dense[:140], y[:140], dense[140:], y[140:])
    assert found == [1.0] * len(probing.KS)
    dense[:, 11] = 0
    assert probing.by_k(dense[:140], y[:140], dense[140:], y[140:])[0] < 0.75


def labelled(name, text):
    pieces = text.split("|")
    return CLASSES[name](pieces, [hash(piece) for piece in pieces])


def test_classes_are_as_the_text_tells():
    assert labelled("capital", "The| cat|,| sat|123| In") == [1, 0, -1, 0, -1, 1]
    assert labelled("number", "a|19|b2| ,") == [0, 1, 1, 0]
    assert labelled("continues", "The| ca|terp|illar|,| s") == [-1, 0, 1, 1, -1, 0]
    assert labelled("parentheses", "a| (|b|(|c|)|d|)| e|(|f\n|g") == [0, -1, 1, -1, 1, -1, 1, -1, 0, -1, 1, 0]
    assert labelled("quotation", 'a| "|b|"|c') == [0, -1, 1, -1, 0]
    assert labelled("repeated", " word| the| word| other| the") == [0, -1, 1, 0, -1]
    assert labelled("ends", "a| b|.| c|?") == [0, 1, 0, 1, -1]


def test_documents_for_testing_are_none_for_learning():
    names = [f"d{i % 12}" for i in range(120)]
    test = held_out(names)
    assert 0.1 < test.mean() <= 0.3
    assert not {n for n, t in zip(names, test, strict=True) if t} & {
        n for n, t in zip(names, test, strict=True) if not t
    }
    with pytest.raises(NotApplicable, match="4 documents"):
        held_out(["a", "b", "c", "d"] * 9)


def test_drawn_tokens_are_balanced_and_of_their_class(tiny, monkeypatch):
    monkeypatch.setattr(classes, "LEAST", {"train": 20, "test": 8})
    text = 'The {} cat (which sat {} on 12 mats) said "hello there {} friend". Every cat and dog sat near the mat. '
    rows = [
        Sequence(np.array([1, *tiny.encode((text * 3).format(*["one", "two", "red"] * 3))], np.int32), f"d{i}")
        for i in range(10)
    ]
    data = classes.Data(tiny, rows, 0)
    assert {"capital", "parentheses"} <= set(data.names)
    for (name, part), (place, y) in data.parts.items():
        assert 2 * int(y.sum()) == len(y) == len(set(place.tolist())), (name, part)
    test = held_out([row.document for row in rows])
    at = (data._row >= 0).nonzero()[:, 0]
    row = torch.searchsorted(data._begin, at, right=True) - 1
    for (_, part), (place, _) in data.parts.items():
        assert (torch.from_numpy(test)[row[place]] == (part == "test")).all()


def test_effects_and_ablation_by_hand():
    sae = make("topk")
    x = torch.randn(40, 32, generator=torch.Generator().manual_seed(9))
    acts, y = sae.encode(x), torch.arange(40) % 3 == 0
    dense = acts.dense(40)
    probe = SimpleNamespace(w=torch.randn(32, generator=torch.Generator().manual_seed(1)).double())
    found = effects(dense, y, sae.W_dec, probe, signed=False)
    for i in (0, 7, 31):
        apart = max(0.0, float(dense[y, i].mean() - dense[~y, i].mean()))
        assert float(found[i]) == pytest.approx(apart * float(sae.W_dec[i].double() @ probe.w), rel=1e-4, abs=1e-9)
    gone = torch.tensor([int(dense.sum(0).argmax()), 3])
    spoilt = without(sae, acts, x, x, gone)
    assert torch.allclose(spoilt, x - dense[:, gone] @ sae.W_dec[gone], atol=1e-5)


def test_absorption_word_by_word():
    """Latent 0 is the letter's; 1 points along the probe and absorbs; 2 is across it."""
    W_dec = torch.tensor([[2.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    x = torch.tensor([[2.0, 0.0], [2.0, 1.0], [2.0, 1.0], [2.0, 1.0], [-1.0, 0.0], [10.0, 0.0]])
    acts = torch.tensor([
        [1.0, 0.0, 0.0],  # the letter's latent brings all: 2 of 2
        [0.0, 2.0, 0.5],  # it is silent, and latent 1 brings 1.2 of 2
        [0.5, 2.0, 0.0],  # it brings 1, latent 1 would bring 1.2, of which 1 is missing
        [0.0, 0.5, 3.0],  # it is silent, but latent 1 brings 0.3 of 2 alone
        [0.0, 2.0, 0.0],  # the probe's projection is below 0
        [0.0, 2.0, 0.0],  # 1.2 of 10 is less than 0.4
    ])  # fmt: skip
    found = absorbed(x, acts, W_dec, torch.tensor([3.0, 0.0]), torch.tensor([0]))
    assert found.full.tolist() == [False, True, False, False, False, False]
    assert found.fraction.tolist() == pytest.approx([0, 1, 0.5, 0, 0, 0])


def test_a_letters_latents_are_those_that_help():
    y = torch.arange(200) % 4 == 0
    acts = sparse(200, 20, 0.05, seed=3)
    acts[:, 5] = (y & (torch.arange(200) < 120)).float()
    acts[:, 9] = (y & (torch.arange(200) >= 120)).float()
    assert main_latents(acts, y).tolist() == [5, 9]
    acts[:, 5] = y.float()
    assert main_latents(acts, y).tolist() == [5]


def test_pursuit_of_a_signed_sae_takes_directions_either_way():
    from dataclasses import replace

    made = make("abstopk")
    d = made.W_dec.shape[1]
    sae = replace(made, W_dec=torch.cat([torch.eye(d), torch.zeros(len(made.W_dec) - d, d)]), b_dec=torch.zeros(d))
    x = torch.randn(50, d, generator=torch.Generator().manual_seed(0))
    pursuit = Pursuit(sae, 50)
    pursuit.update(SimpleNamespace(), x, x)
    left = x.abs().sort(dim=1, descending=True).values[:, 8:].pow(2).sum() / (x - x.mean(0)).pow(2).sum()
    assert pursuit.result().values["pursuit_fvu_8"] == pytest.approx(float(left), rel=1e-4)


def test_pursuit_of_orthogonal_rows_takes_the_largest_first():
    g = torch.Generator().manual_seed(0)
    sae = make("matching-pursuit-signed")
    eye = torch.eye(32)
    from dataclasses import replace

    sae = replace(sae, W_dec=torch.cat([eye, torch.zeros(1, 32)]), b_dec=torch.full((32,), 0.5))
    x = torch.randn(50, 32, generator=g).abs() + 0.5  # of a signed SAE the greatest projection is taken, not |it|
    pursuit = Pursuit(sae, 50)
    pursuit.update(SimpleNamespace(), x, x)
    found = pursuit.result()
    left = (x - 0.5).sort(dim=1, descending=True).values
    total = float((x - x.mean(0)).pow(2).sum())
    assert found.values["pursuit_fvu_8"] == pytest.approx(float(left[:, 8:].pow(2).sum()) / total, rel=1e-4)
    assert found.values["pursuit_fvu_32"] == pytest.approx(0, abs=1e-6)
    half = left.pow(2).flip(1).cumsum(1).flip(1).sqrt() / left.norm(dim=1, keepdim=True)  # before each step
    steps = torch.cat([half[:, 1:], torch.zeros(50, 1)], 1).le(0.5).double().argmax(1) + 1
    assert found.details["tables"][0]["rows"][0][1:3] == [1.0, pytest.approx(float(steps.double().mean()))]


def test_signs_are_compared_latent_by_latent():
    g = torch.Generator().manual_seed(0)
    n, vocabulary, m = 3, 20, 900
    latent = torch.randint(0, n, (m,), generator=g)
    kind = torch.randint(0, 4, (m,), generator=g)
    token = torch.randint(0, 5, (m,), generator=g)
    token[(latent == 1) & (kind >= 2)] += 10  # latent 1's signs are of other tokens
    kind[latent == 2] %= 2  # latent 2 is never negative
    values = compared(latent * vocabulary + token, kind, n, vocabulary)

    def profile(i, kinds):
        mine = (latent == i) & torch.isin(kind, torch.tensor(kinds))
        return torch.bincount(token[mine], minlength=vocabulary).double()

    def cosine(a, b):
        return float(torch.nn.functional.cosine_similarity(a, b, dim=0))

    across = [cosine(profile(i, [0, 1]), profile(i, [2, 3])) for i in (0, 1)]
    within = [
        math.sqrt(cosine(profile(i, [0]), profile(i, [1])) * cosine(profile(i, [2]), profile(i, [3]))) for i in (0, 1)
    ]
    assert values == {
        "two_signs": pytest.approx(2 / 3), "different_signs": 0.5, "sign_cosine": pytest.approx(sum(across) / 2),
        "half_cosine": pytest.approx(sum(within) / 2), "signed_latents": 2,
    }  # fmt: skip


def test_planted_features_are_matched_by_cosine():
    g = torch.Generator().manual_seed(0)
    truth, W = torch.randn(6, 8, generator=g), torch.randn(9, 8, generator=g)
    W[2], W[5] = 3 * truth[1], -truth[4]
    for signed in (False, True):
        found = nearest(truth, W, signed=signed)
        for i in range(6):
            each = [float(truth[i] @ row / truth[i].norm() / row.norm()) for row in W]
            assert float(found[i]) == pytest.approx(max(map(abs, each)) if signed else max(each), abs=1e-5)
        assert float(found[1]) == pytest.approx(1, abs=1e-6)
        assert (float(found[4]) > 0.99) == signed
