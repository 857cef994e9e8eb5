"""Rules learned and scored on planted latents; what explainers see; examples, measures and sentences."""

from dataclasses import replace

import numpy as np
import pytest

from app.explain import measure
from app.explain.codes import Sampled
from app.explain.contexts import Contexts
from app.explain.free import RULES, VOCAB, Recipe, Watch, Work
from app.explain.learn import learn, rule_of
from app.explain.match import Matcher
from app.explain.measure import Confusion
from app.explain.rules import Pattern, Rule, Topic, rule_from_json
from app.explain.sample import Chosen, choose
from app.explain.samples import SPLITS, Codes, Grid, Sampler
from app.explain.sentences import Teller, _label
from app.store.explain_sources import ExplainSource, LatentFacts
from app.subject.tokens import Vocabulary

BOS, WORDS, LENGTH, SEQUENCES = 0, 120, 97, 200
VOCABULARY = Vocabulary([b"<s>", *(f" {a}{b}word".encode() for a in "bcdfghjklm" for b in "aeiouyrsnlpt")])
PAIR = (5, 9)
N = 24  # latents


def planted(seed=0):
    """Latents over random text: 0 fires on token 7; 1 on token 9 after 5; 2 after token 11; 3 anywhere, by chance; the
    others on a token each. Every tenth sequence is of the same document as the one before."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, WORDS + 1, (SEQUENCES, LENGTH)).astype(np.int32)
    ids[rng.random(ids.shape) < 0.02] = 7
    for row, column in zip(*np.nonzero(rng.random(ids.shape) < 0.02), strict=True):
        if column + 1 < LENGTH:
            ids[row, column : column + 2] = PAIR
    ids[:, 0] = BOS
    before = np.concatenate([np.full((SEQUENCES, 1), -1), ids[:, :-1]], axis=1)
    fires = [ids == 7, (ids == 9) & (before == 5), before == 11, rng.random(ids.shape) < 0.01]
    fires += [ids == 20 + i for i in range(N - len(fires))]
    latent, place, value = [], [], []
    for i, where in enumerate(fires):
        at = np.flatnonzero(where & (ids != BOS))
        latent.append(np.full(len(at), i))
        place.append(at)
        value.append(rng.uniform(0.5, 10, len(at)))
    latent, place = np.concatenate(latent), np.concatenate(place)
    names = [f"document {number - (number % 10 == 1)}" for number in range(SEQUENCES)]
    chosen = choose(names, np.full(SEQUENCES, LENGTH - 1), 1 << 20, packed=False)
    codes = Codes(
        chosen.sequence, np.arange(SEQUENCES + 1) * LENGTH, chosen.split, chosen.document, ids.reshape(-1),
        (ids != BOS).reshape(-1), np.concatenate([[0], np.cumsum(np.bincount(latent, minlength=N))]),
        place.astype(np.int32), np.concatenate(value).astype(np.float32),
    )  # fmt: skip
    return codes, chosen


def facts(codes):
    maxima = np.zeros((N, 2), np.float32)
    for i in range(N):
        maxima[i, 0] = codes.entries(i).value.max()
    neighbours = (np.arange(N)[:, None] + np.arange(1, 4)) % N
    promoted = np.full((N, 2), -1)
    promoted[:, 0] = np.r_[7, 9, 3, 3, np.arange(20, 20 + N - 4)]  # of 0 and of those after 3 what they fire on
    return LatentFacts(neighbours, maxima, promoted, promoted[:, :0], [("", "")] * N, np.zeros(N, np.int64))


SOURCE = ExplainSource(1, "planted", "0", N, False, "", "", "", 1, "0" * 64, {})


def work(codes, chosen, **recipe):
    sampled = Sampled(codes, chosen, "planted")
    return Work(SOURCE, facts(codes), sampled, Recipe(**recipe), VOCABULARY, [BOS], Watch())


@pytest.fixture(scope="module")
def made():
    job = work(*planted())
    return job, *job.run()


def rule(made, latent, method=RULES):
    row = next(row for row in made[1][method][1] if row.latent == latent)
    return row, rule_from_json(row.rule)


def scores(made, latent, method=RULES):
    scored = made[4][method]
    at = scored.units.index(latent)
    return scored.windows.headline[at], scored.tokens.f1[at], scored


def test_a_latent_that_fires_on_one_token_is_explained_by_it(made):
    row, found = rule(made, 0)
    assert [one.token_ids for one in found.patterns] == [(7,)]
    word = VOCABULARY.text(7).strip()
    assert (row.text, row.label) == (f"fires on “{word}”", word)
    windows, tokens, scored = scores(made, 0)
    assert windows > 0.98
    assert tokens > 0.98
    assert scored.windows.auroc[scored.units.index(0)] > 0.98


def test_what_stands_before_is_found(made):
    _, pair = rule(made, 1)
    assert ((-1, 0), PAIR) in [(one.offsets, one.token_ids) for one in pair.patterns]
    assert scores(made, 1)[1] > 0.95
    _, after = rule(made, 2)
    assert [(one.offsets, one.token_ids) for one in after.patterns] == [((-1,), (11,))]
    assert scores(made, 2)[0] > 0.98


def test_what_cannot_be_told_scores_as_a_coin_does(made):
    windows, tokens, _ = scores(made, 3)
    assert abs(windows - 0.5) < 0.1
    assert tokens < 0.1


def test_other_latents_explanations_score_one_half(made):
    control = scores(made, 0)[2].windows.control
    assert abs(np.nanmean(control) - 0.5) < 0.05


def test_the_vocabulary_is_read_as_it_predicts_and_scored_alike(made):
    row, found = rule(made, 0, VOCAB)
    assert row.parameters["reading"] == "here"
    assert [one.offsets for one in found.patterns] == [(0,)]
    assert scores(made, 0, VOCAB)[0] > 0.98
    assert abs(scores(made, 2, VOCAB)[0] - 0.5) < 0.1
    assert made[3]["here"] + made[3]["next"] == N


def test_the_same_seed_gives_the_same_rows_and_another_other_examples(made):
    again = work(*planted())
    for (method, (_, rows)), (also, (_, others)) in zip(again.run()[0].items(), made[1].items(), strict=True):
        assert method == also
        for one, other in zip(rows, others, strict=True):
            assert (one.text, one.rule, one.parameters) == (other.text, other.rule, other.parameters)
            told = [[(s.scorer, s.counts, str(s.numbers)) for s in x.scores] for x in (one, other)]
            assert told[0] == told[1]
    other = work(*planted(), seed=1)
    other.run()
    assert any(not np.array_equal(other.drawn[u].window, again.drawn[u].window) for u in other.drawn)


def changed(codes, splits, seed=9):
    """The same but for the splits' text and activations, which are shuffled."""
    rng = np.random.default_rng(seed)
    theirs = np.isin(codes.split_of, [SPLITS.index(split) for split in splits])
    ids, place, value = codes.token_ids.copy(), codes.place.copy(), codes.value.copy()
    ids[theirs & codes.counted] = rng.permutation(ids[theirs & codes.counted])
    for latent in range(codes.n_latents):
        rows = slice(codes.indptr[latent], codes.indptr[latent + 1])
        mine = place[rows].copy()
        inside = theirs[mine]
        free = np.flatnonzero(theirs & codes.counted)
        mine[inside] = rng.choice(free, inside.sum(), replace=False)
        order = np.argsort(mine)
        place[rows], value[rows] = mine[order], value[rows][order]
    return replace(codes, token_ids=ids, place=place, value=value)


def rules_of(codes, chosen):
    job = work(codes, chosen)
    learned = learn(job.contexts, job.sampler, VOCABULARY.text, lambda _: None)
    return [rule_of(job.contexts, learned, unit) for unit in range(N)]


def test_no_test_document_is_shown_to_an_explainer():
    codes, chosen = planted()
    mine = rules_of(codes, chosen)
    assert rules_of(changed(codes, ["test"]), chosen) == mine
    assert rules_of(changed(codes, ["train"]), chosen) != mine  # and the test can tell


def test_no_document_is_in_two_splits():
    _, chosen = planted()
    for document in np.unique(chosen.document):
        assert len(set(chosen.split[chosen.document == document])) == 1
    assert set(chosen.split) == {0, 1, 2}
    shares = np.bincount(chosen.split) / len(chosen.split)
    assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.05)


def test_a_smaller_sample_has_the_same_documents_in_the_same_splits():
    names, counted = [f"d{i // 3}" for i in range(120)], np.full(120, 50)
    whole, part = (choose(names, counted, tokens, packed=False) for tokens in (10_000, 2_000))
    assert part.sequence.size * 50 <= 2_000
    known = dict(zip(whole.sequence.tolist(), whole.split.tolist(), strict=True))
    assert all(known[s] == split for s, split in zip(part.sequence.tolist(), part.split.tolist(), strict=True))


def test_packed_documents_and_very_few_are_kept_apart_by_blocks():
    few = choose(["one"] * 160, np.full(160, 50), 8_000, packed=False)
    assert few.kept_apart == "blocks"
    assert set(few.split) == {0, 1, 2}
    names = [f"d{(i + 2) // 5}" for i in range(160)]
    packed = choose(names, np.full(160, 50), 8_000, packed=True)
    taken = set(packed.sequence.tolist())
    split = dict(zip(packed.sequence.tolist(), packed.split.tolist(), strict=True))
    for i in range(1, 160):  # a document that goes on from one block to the next is in one of them alone
        if i in taken and i - 1 in taken and split[i] != split[i - 1]:
            assert names[i] != names[i - 1]


def test_examples_are_half_active_and_what_is_not_is_silent():
    codes, _ = planted()
    sampler = Sampler(codes, facts(codes).neighbours, facts(codes).maxima)
    for latent in (0, 2, 3):
        drawn, windows = sampler.draw(latent), sampler.windows(latent)
        assert len(set(drawn.window.tolist())) == len(windows)
        active = [one for one in windows if one.active]
        silent = [one for one in windows if not one.active]
        assert 0 < len(silent) <= len(active) <= 50
        assert all(one.activations.any() for one in active)
        assert not any(one.activations.any() for one in silent)
        assert {one.split for one in windows} == {"test"}
        assert all(one.interval is not None for one in active)
        held = codes.token_ids.reshape(SEQUENCES, LENGTH)
        for one in windows:
            assert np.array_equal(one.token_ids, held[one.sequence, one.start : one.start + len(one.token_ids)])
        kinds = {one.kind for one in silent}
        assert {"random", "neighbour"} <= kinds
    same = [one for one in sampler.windows(1) if one.kind == "same_token"]
    assert same
    assert all(9 in one.token_ids for one in same)


def test_a_windows_place_tells_nothing_of_its_kind():
    """The best guess from a window's place in its sequence is no better than chance."""
    codes, _ = planted()
    sampler = Sampler(codes, facts(codes).neighbours, facts(codes).maxima)
    right, total = 0.0, 0
    for latent in range(3, N):
        windows = sampler.windows(latent)
        fits, checks = windows[::2], windows[1::2]
        active_at = {p: np.mean([w.active for w in fits if w.start == p] or [0.5]) for p in {w.start for w in windows}}
        right += sum((active_at[w.start] > 0.5) == w.active for w in checks)
        total += len(checks)
    assert abs(right / total - 0.5) < 0.1


def test_the_grid_leaves_no_window_across_sequences():
    codes, _ = planted()
    grid = Grid(codes)
    assert (codes.row[grid.begin] == codes.row[grid.end - 1]).all()
    assert (grid.end - grid.begin).min() >= 8
    assert np.array_equal(grid.of[grid.begin], np.arange(len(grid)))


def test_the_index_finds_what_the_rule_finds_on_the_text(made):
    job = made[0]
    codes = job.codes
    learned = learn(job.contexts, job.sampler, VOCABULARY.text, lambda _: None)
    matcher = Matcher(job.contexts, job.sampler.grid, "test")
    places = job.contexts.place[matcher.positions]
    for unit in range(N):
        found = rule_of(job.contexts, learned, unit)
        if not isinstance(found, Rule):
            continue
        hits = matcher.once(learned.hits(matcher, unit))
        said = np.zeros(len(codes.token_ids), bool)
        probability = np.zeros(len(codes.token_ids))
        for row in range(len(codes.sequence)):
            text = slice(codes.begin[row], codes.begin[row + 1])
            said[text] = found.fires(codes.token_ids[text])
            probability[text] = found.probability(codes.token_ids[text])
        assert sorted(places[hits.at].tolist()) == np.flatnonzero(said & codes.counted & (codes.split_of == 2)).tolist()
        assert hits.p == pytest.approx(probability[places[hits.at]], abs=1e-6)


def test_areas_under_curves_by_hand():
    # scores .9 (active), .5 (one active, one not), .1 (not): wins 2 * 1 of the last, 1 + .5 of the tie
    found = measure.ranked(np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False]))
    assert found.auroc == pytest.approx((2 + 1.5) / 4)
    assert found.auprc == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert np.isnan(measure.ranked(np.array([1.0]), np.array([True])).auroc)


def test_measures_of_a_confusion_by_hand():
    c = Confusion(np.array([30, 0]), np.array([10, 0]), np.array([40, 50]), np.array([20, 0]))
    assert measure.balanced_accuracy(c)[0] == pytest.approx((0.6 + 0.8) / 2)
    assert np.isnan(measure.balanced_accuracy(c)[1])
    precision, recall, f1 = measure.precision_recall_f1(c)
    assert (precision[0], recall[0], f1[0]) == pytest.approx((0.75, 0.6, 2 / 3))
    assert np.isnan([precision[1], recall[1], f1[1]]).all()
    low, high = measure.interval(c, np.random.default_rng(0))
    assert low[0] == pytest.approx(0.7 - 1.96 * np.sqrt(0.24 / 50 + 0.16 / 50) / 2, abs=0.015)
    assert high[0] == pytest.approx(0.7 + 1.96 * np.sqrt(0.24 / 50 + 0.16 / 50) / 2, abs=0.015)
    assert np.isnan([low[1], high[1]]).all()


def test_there_is_no_headline_of_few_examples_or_of_few_answers():
    assert measure.headline_status(50, 50, 0) == "ok"
    assert measure.headline_status(50, 50, 10) == "ok"
    assert measure.headline_status(50, 50, 11) == "unanswered"
    assert measure.headline_status(9, 50, 0) == "few"


def test_rules_run_on_text_and_come_back_from_json():
    text = np.array([1, 4, 5, 4, 6, 5])
    both = Rule((Pattern((-1, 0), (4, 5), 0.9), Pattern((1,), (6,), 0.4)), 0.1)
    assert both.fires(text).tolist() == [False, False, True, True, False, False]
    assert both.probability(text) == pytest.approx([0.1, 0.1, 0.9, 0.4, 0.1, 0.1])
    assert Rule((Pattern((-1,), (-1,), 1.0),), 0.0).fires(text).tolist() == [True] + [False] * 5
    assert rule_from_json(both.to_json()) == both
    topic = Topic((("film", (4, 9), 1.0), ("actor", (8,), 0.5)), 1.0, 0.7, 0.01)
    assert topic.fires(text).all()
    assert not topic.fires(np.array([8, 1])).any()
    assert topic.probability(np.array([8, 9])) == pytest.approx([0.7, 0.7])
    assert rule_from_json(topic.to_json()) == topic
    with pytest.raises(ValueError, match="a rule's kind is patterns or topic, not 'x'"):
        rule_from_json({"kind": "x"})


TOKENS = ["<s>", " and", " or", " And", " United", " States", " Nations", "ing", " of", "\n", " orth", "odox", "\\x"]


def test_rules_in_words():
    teller = Teller(lambda i: TOKENS[i] if i >= 0 else "", [0])

    def told(*patterns):
        words = teller.patterns([Pattern(offsets, ids, 0.5) for offsets, ids in patterns])
        return words.text, words.label

    assert told(((0,), (1,)), ((0,), (2,)), ((0,), (3,))) == ("fires on “and”, “or”", "and, or")
    assert told(((-1, 0), (4, 5)), ((-1, 0), (4, 6))) == (
        "fires after “United”: “States”, “Nations”", "United States, United Nations",
    )  # fmt: skip
    assert told(((-1, 0), (10, 11)), ((0,), (7,))) == ("fires on “-ing”; at the end of “orthodox”", "orthodox, -ing")
    assert told(((-1,), (8,))) == ("fires on what comes after “of”", "after of")
    assert told(((-2, 0), (4, 8))) == ("fires on the last word of “United … of”", "United … of")
    assert told(((-1,), (0,)), ((-1, 0), (0, 1))) == (
        "fires at the start of a text; at the start of a text, on “and”", "start of a text",
    )  # fmt: skip
    assert told(((0,), (9,)), ((0,), (12,)))[1] == "(line break)"
    for lead, label in (({3, 7}, "-ing, and, orthodox"), ({11}, "orthodox, and, -ing"), ({9}, "and, orthodox, -ing")):
        patterns = [Pattern((0,), (1,), 0.9), Pattern((-1, 0), (10, 11), 0.9), Pattern((0,), (7,), 0.9)]
        words = teller.patterns(patterns, lead)
        assert (words.label, words.text) == (label, teller.patterns(patterns).text)
    topic = Topic((("film", (4,), 1.0), ("actor", (8,), 0.5)), 1.0, 0.7, 0.01)
    assert tuple(teller.topic(topic)) == ("fires in passages with “film”, “actor”", "passages with film, actor")
    assert tuple(teller.promoted([1, 3, 2], "next")) == ("promotes “and”, “or”; fires before them", "promotes and, or")


@pytest.mark.parametrize(
    ("names", "label"),
    [
        (["may", "probably", "may be", "might", "could"], "may, probably, might"),
        (["so", "therefore", "so that", "thus"], "so, therefore, thus"),
        (["and", "-and", "&"], "and, “&”"),
        ([", and", ", or", "), and"], "“, and”, “, or”, “), and”"),
        (["river", "rivers", "lake", "flow", "flowing", "sea"], "river, lake, flow"),
        (["(line break)", "(", "("], "(line break), “(”"),
        (["non", "non-", "no"], "non, no"),
        (["bee", "been", "beer"], "bee, been, beer"),
        ([], ""),
    ],
)
def test_a_label_says_nothing_twice_and_quotes_what_is_no_word(names, label):
    assert _label(names) == label


def test_topics_are_found_where_words_tell_more_than_tokens():
    """A latent that fires somewhere in windows that hold two of six words."""
    codes, chosen = planted(3)
    grid = Grid(codes)
    ids, ids_of = codes.token_ids.copy(), [40, 41, 42, 43, 44, 45]
    often = np.isin(ids, ids_of) & (np.random.default_rng(1).random(len(ids)) < 0.67)
    ids[often] = np.random.default_rng(2).integers(50, WORDS, often.sum())
    codes = replace(codes, token_ids=ids)
    held = [len(set(ids[a:b].tolist()) & set(ids_of)) for a, b in zip(grid.begin, grid.end, strict=True)]
    on = np.flatnonzero(np.array(held) >= 2).tolist()
    rng = np.random.default_rng(0)
    place = np.sort([
        int(rng.choice(np.flatnonzero(codes.counted[grid.begin[w] : grid.end[w]]) + grid.begin[w])) for w in sorted(on)
    ])  # fmt: skip
    keep = codes.indptr[N - 1]
    codes = replace(
        codes, place=np.r_[codes.place[:keep], place].astype(np.int32),
        value=np.r_[codes.value[:keep], np.ones(len(place))].astype(np.float32),
        indptr=np.r_[codes.indptr[:-1], keep + len(place)],
    )  # fmt: skip
    job = work(codes, chosen)
    learned = learn(job.contexts, job.sampler, VOCABULARY.text, lambda _: None)
    found = rule_of(job.contexts, learned, N - 1)
    assert isinstance(found, Topic)
    assert len({token for _, ids, _ in found.words[:6] for token in ids} & set(ids_of)) >= 5


def test_chosen_is_ascending():
    assert isinstance(choose(["a"] * 40, np.full(40, 20), 400, packed=False), Chosen)
    assert (np.diff(choose(["a"] * 40, np.full(40, 20), 400, packed=False).sequence) > 0).all()


def test_contexts_of_a_signed_sae_have_a_unit_for_each_sign():
    codes, _ = planted()
    value = codes.value.copy()
    value[codes.indptr[0] : codes.indptr[1] : 2] *= -1
    contexts = Contexts(replace(codes, value=value), signed=True)
    assert contexts.n_units == 2 * N
    fired = sum(contexts.fired(split) for split in SPLITS)
    n = int(codes.indptr[1])
    assert fired[:4].tolist() == [n // 2, n - n // 2, int(codes.indptr[2]) - n, 0]
