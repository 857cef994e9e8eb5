"""From a corpus's spec to sequences: what is too short is refused, by name and with the remedy."""

from dataclasses import replace

import pytest

from app.corpus.sources import Skipped
from app.errors import BadRequest, CorpusUnavailable, SaescopeError
from app.harvest.text import Text, sequences


def read(text, subject, home):
    with sequences(text, subject, home, Skipped()) as store:
        return [len(sequence.token_ids) for sequence in store]


def test_a_context_that_no_sequence_fits_is_refused(tiny, tmp_path):
    (tmp_path / "long.txt").write_text("The cat sat on the mat. " * 40)
    text = Text(f"text:{tmp_path / 'long.txt'}", 16)
    with pytest.raises(BadRequest) as caught:
        read(text, tiny, tmp_path)
    assert caught.value.message == "--context is 16; for tiny it is at least 17: BOS, and 16 tokens of text."
    assert set(read(replace(text, context=17), tiny, tmp_path)) == {17}
    assert set(read(replace(text, prepend_bos=False), tiny, tmp_path)) == {16}
    with pytest.raises(BadRequest, match=r"--context is 15; for tiny it is at least 16\.$"):
        read(replace(text, context=15, prepend_bos=False), tiny, tmp_path)


@pytest.mark.parametrize(
    ("pack", "remedy"),
    [(False, "give longer documents, or put short ones together with --pack"), (True, "give more text")],
)
def test_a_corpus_of_short_texts_is_refused_by_name(tiny, tmp_path, pack, remedy):
    (tmp_path / "short.txt").write_text("The cat sat.")
    text = Text(f"text:{tmp_path / 'short.txt'}", 64, pack=pack)
    with pytest.raises(CorpusUnavailable) as caught:
        read(text, tiny, tmp_path)
    assert caught.value.message == f"{text.name} holds no text of 16 tokens; {remedy}."


def test_messages_are_one_line_that_can_be_shown_anywhere():
    told = SaescopeError(f"No /a\nb\x1b[2J\ud800 at {'x' * 5000}/end.", path="x" * 5000)
    assert told.message == f"No /a b\ufffd[2J\ufffd at {'x' * 120}…{'x' * 75}/end."
    assert told.detail["path"] == "x" * 5000
