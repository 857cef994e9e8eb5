"""The comparison's book-keeping: what is trained again, what is published, and its table."""

import json

import pytest

from benchmarks.compare_saes import BEGIN, END, RESIDUAL, Kept, publish, wanted, whole
from benchmarks.compare_table import COLUMNS, table


def row(idea, seed, **told):
    known = dict.fromkeys(COLUMNS, 0.5) | {"seconds": 100.0 + 20 * seed, "l0": 32.0 + seed}
    return {"idea": idea, "seed": seed, "state": "finished", "tokens": 999_424, "sae": "/somewhere", **known, **told}


def test_what_is_published_is_whole_and_is_not_made_again(tmp_path):
    (tmp_path / "comparison.md").write_text(f"# Title\n{BEGIN}an old table{END}\nwhat follows\n")
    half = {name: value for name, value in row("vsae", 0).items() if name != "fvu"}
    publish({"topk-4096-s0": row("topk", 0), "vsae-4096-s0": half}, tmp_path)
    told = json.loads((tmp_path / "comparison.json").read_text())
    assert list(told) == ["topk-4096-s0"]
    assert "sae" not in told["topk-4096-s0"]
    text = (tmp_path / "comparison.md").read_text()
    assert text.startswith(f"# Title\n{BEGIN}| idea | seeds | FVU")
    assert text.endswith(f"{END}\nwhat follows\n")
    assert "old table" not in text
    assert "vsae" not in text
    assert whole(tmp_path / "comparison.json", 1_000_000) == told
    assert whole(tmp_path / "comparison.json", 2_000_000) == {}
    assert whole(tmp_path / "none.json", 1_000_000) == {}
    kept = Kept(tmp_path / "home.json", told)
    assert kept.lacking(wanted(["topk"], [0]), "effect_median") == []  # its folder is not here


@pytest.mark.parametrize("text", [None, "# Title", f"# Title\n{BEGIN}a table and no end\nwhat follows"])
def test_a_page_without_a_place_for_the_table_is_left_as_it_is(tmp_path, text):
    page = tmp_path / "comparison.md"
    if text:
        page.write_text(text)
    with pytest.raises(SystemExit, match="no place for the table"):
        publish({"topk-4096-s0": row("topk", 0)}, tmp_path)
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == ([(page.name, text)] if text else [])


def test_what_this_home_lacks_is_done_and_kept(tmp_path):
    plans = wanted(["topk", "gsae", "vsae"], [0, 1])
    assert [(plan.idea, plan.seed) for plan in plans] == [
        ("topk", 0), ("vsae", 0), ("topk", 1), ("vsae", 1), ("gsae", 0), ("gsae", 1),
    ]  # fmt: skip
    kept = Kept(tmp_path / "home.json", {})
    kept.add(plans[0].label, idea="topk", seed=0, state="finished", sae="/a")
    kept.add(plans[1].label, idea="vsae", seed=0, state="failed", sae=None)
    again = Kept(tmp_path / "home.json", {})
    assert [plan.label for plan in again.lacking(plans, "fvu")] == [plans[0].label]
    again.add(plans[0].label, fvu=0.2)
    assert Kept(tmp_path / "home.json", {}).lacking(plans, "fvu") == []


def test_the_table_has_means_and_half_of_the_range():
    known = {"a": row("topk", 0), "b": row("topk", 1, fvu=0.7), "c": row("vsae", 0, state="failed")}
    lines = table(known, RESIDUAL).splitlines()
    assert len(lines) == 3
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells[:4] == ["topk", "2", "0.600 ± 0.100", "32.5 ± 0.5"]
    assert cells[-1] == "110.0 ± 10.0"
    del known["b"]["fvu"]
    assert table(known, RESIDUAL).splitlines()[2].split("|")[3].strip() == "–"
