"""A subject's tokens, read by a process of its own and remembered."""

import os
import shutil
import sys

import pytest

from app.errors import SubjectUnavailable
from app.subject.load import load_vocabulary
from app.subject.vocabulary import vocabulary_beside


def test_it_is_the_tokenizers_own_and_is_read_once_until_it_changes(monkeypatch, tiny, tiny_folder, tmp_path):
    folder, memory = tmp_path / "subject", tmp_path / "memory"
    shutil.copytree(tiny_folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    assert vocabulary_beside(folder, memory).token_bytes == tiny.vocabulary.token_bytes
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert vocabulary_beside(folder, memory).token_bytes == tiny.vocabulary.token_bytes
    os.utime(folder / "tokenizer.json", ns=(1, 1))
    with pytest.raises(SubjectUnavailable, match="process of its own"):
        vocabulary_beside(folder, memory)
    os.utime(folder / "tokenizer.json", ns=(2, 2))
    monkeypatch.undo()
    next(memory.iterdir()).write_text("{")
    assert vocabulary_beside(folder, memory).token_bytes == tiny.vocabulary.token_bytes
    (memory / "a file").touch()
    assert vocabulary_beside(folder, memory / "a file").token_bytes == tiny.vocabulary.token_bytes


def test_a_process_reads_it_once_until_it_changes(tiny, tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "subject", ignore=shutil.ignore_patterns("*.safetensors"))
    first = load_vocabulary(tmp_path / "subject")
    assert first.token_bytes == tiny.vocabulary.token_bytes
    assert load_vocabulary(tmp_path / "subject") is first
    file = tmp_path / "subject" / "tokenizer.json"
    os.utime(file, ns=(1, 1))
    again = load_vocabulary(tmp_path / "subject")
    assert again is not first
    assert again.token_bytes == first.token_bytes
    file.unlink()
    with pytest.raises(SubjectUnavailable):
        load_vocabulary(tmp_path / "subject")


@pytest.mark.parametrize("what", ["missing", "empty"])
def test_where_there_is_none_it_says_what_transformers_says(tmp_path, what):
    folder = tmp_path / what
    if what == "empty":
        folder.mkdir()
    with pytest.raises(SubjectUnavailable, match=r"The tokenizer at .* could not be loaded"):
        vocabulary_beside(folder, tmp_path / "memory")
    assert not (tmp_path / "memory").exists()
