"""Forwards that are asked for the last token's logits."""

import pytest
import torch

from app.live.generate import likeliest
from app.subject.last import last


@pytest.fixture
def given(tiny):
    """What the unembedding is given from now on."""
    seen = []
    output = tiny.model.get_output_embeddings()
    handle = output.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    yield seen
    handle.remove()


@pytest.mark.parametrize("rows", [1, 3])
def test_they_are_those_of_a_whole_forward_without_a_view_that_the_unembedding_is_copied_for(tiny, given, rows):
    ids = torch.randint(0, 40, (rows, 9), generator=torch.Generator().manual_seed(rows))
    with torch.inference_mode():
        every = tiny.model(input_ids=ids, use_cache=False).logits
        found = tiny.model(input_ids=ids, use_cache=False, logits_to_keep=last(ids)).logits
    assert torch.equal(last(ids), torch.tensor([8]))
    assert found.shape == (rows, 1, every.shape[-1])
    assert found[:, 0] == pytest.approx(every[:, -1], rel=1e-5, abs=1e-5)
    assert [one.is_contiguous() for one in given] == [True, True]


def test_the_likeliest_token_is_found_without_such_a_view(tiny, given):
    ids = [1, 5, 7, 9]
    token = likeliest(tiny.model, ids)
    assert [one.is_contiguous() for one in given] == [True]
    with torch.inference_mode():
        assert token == int(tiny.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
