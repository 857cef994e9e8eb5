"""Names of SAEs and subjects, as the command and the form take them."""

import pytest

from app.errors import BadRequest, InvalidSAE, UnknownSAE
from app.harvest.names import Harvested, Known, Named, imported


@pytest.fixture
def known(tmp_path):
    """``a`` harvested twice, the second time from other weights; ``b`` imported and harvested; ``c`` imported."""
    for folder in ("saes/a1", "saes/a2", "saes/b1", "imports/b", "imports/c", "imports/unfinished", "models/m"):
        (tmp_path / folder).mkdir(parents=True)
    for slug in "bc":
        (tmp_path / "imports" / slug / "origin.json").write_text("{}")
    model = tmp_path / "models" / "m"
    harvested = [("a", "2222222222", "a2"), ("b", "3333333333", "b1"), ("a", "1111111111", "a1"), ("d", "4", "gone")]
    rows = [Harvested(slug, revision, tmp_path / "saes" / folder, model) for slug, revision, folder in harvested]
    return Known(rows, imported(tmp_path), {"m": model})


def test_a_name_is_an_import_else_the_newest_revision_else_a_path(known, tmp_path, monkeypatch):
    model = tmp_path / "models" / "m"
    assert known.sae("a") == Named(tmp_path / "saes" / "a2", "a", model)
    assert known.sae("a@1111111111") == Named(tmp_path / "saes" / "a1", "a", model)
    assert known.sae("b") == Named(tmp_path / "imports" / "b", "b", model)
    assert known.sae("b@3333333333") == Named(tmp_path / "saes" / "b1", "b", model)
    assert known.sae("c") == Named(tmp_path / "imports" / "c", "c", None)
    assert known.sae(str(tmp_path / "saes")) == Named(tmp_path / "saes")
    monkeypatch.chdir(tmp_path / "saes")
    assert known.sae("a1").folder.samefile(tmp_path / "saes" / "a1")
    assert known.slugs == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("a@0", UnknownSAE, "a has no revision '0' here; there are: 2222222222, 1111111111."),
        ("unfinished", InvalidSAE, r"No SAE folder at unfinished and no SAE .* \(there are: a, b, c, d\)\."),
        ("d", InvalidSAE, "The files of d@4 are not at .*gone any more; give a folder with them."),
        ("~nobody-there/x", BadRequest, "'~nobody-there/x' cannot be looked up"),
        ("x" * 5000, BadRequest, "File name too long"),
    ],
)
def test_what_names_nothing_is_refused_with_what_there_is(known, name, kind, says):
    with pytest.raises(kind, match=says):
        known.sae(name)


def test_a_subject_is_named_or_the_one_all_saes_were_harvested_with(known, tmp_path):
    model, other = tmp_path / "models" / "m", tmp_path / "models" / "other"
    assert known.model("m", []) == model
    assert known.model(str(other), [model]) == other
    assert known.model(None, [model, model]) == model
    for saes, says in (([None], "No subject is known for it: .* or one of m"), ([model, other], "several subjects")):
        with pytest.raises(BadRequest, match=says):
            known.model("", saes)
