"""A subject's tokens, read by a process of its own and remembered."""

import os
import shutil
import sys

import pytest

from app.errors import SubjectUnavailable
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


@pytest.mark.parametrize("what", ["missing", "empty"])
def test_where_there_is_none_it_says_what_transformers_says(tmp_path, what):
    folder = tmp_path / what
    if what == "empty":
        folder.mkdir()
    with pytest.raises(SubjectUnavailable, match=r"The tokenizer at .* could not be loaded"):
        vocabulary_beside(folder, tmp_path / "memory")
    assert not (tmp_path / "memory").exists()
