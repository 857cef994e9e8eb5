"""Linear layers with prepacked weights give what they gave before."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from app.harvest.job import read_sae
from app.live.prompt import Target
from app.live.residents import ARRANGED, Residents, size_of
from app.sae.formats import saelens
from app.subject import prepacked
from app.subject.exact import in_fp32
from app.subject.prepacked import Prepacked, prepack, prepacked_bytes, unpack
from tests.conftest import random_sae

BF16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
DTYPES = [
    torch.float32,
    pytest.param(torch.bfloat16, marks=pytest.mark.skipif(not BF16, reason="no bf16 on this CPU")),
]


LAYERS = {
    "with a bias": lambda: nn.Linear(96, 130),
    "without one": lambda: nn.Linear(96, 130, bias=False),
    "GPT-2's": lambda: Conv1D(130, 96),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", LAYERS)
@torch.no_grad()
def test_products_are_what_they_were(kind, dtype):
    layer = LAYERS[kind]()
    for parameter in layer.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    layer.to(dtype)
    wide = torch.randn(300, 192, generator=torch.Generator().manual_seed(0)).to(dtype)
    inputs = [wide[:n, :96] for n in (0, 1, 2, 17, 300)]  # strided
    inputs += [wide[:12, :96].reshape(3, 4, 96), wide[0, :96], wide.T[96:192, :96]]
    before = [layer(x) for x in inputs]
    assert prepack(layer) == prepacked_bytes(layer) == layer.weight.nbytes
    assert isinstance(layer.forward, Prepacked)
    for x, want in zip(inputs, before, strict=True):
        got = layer(x)
        assert got.shape == want.shape
        assert got.dtype == dtype
        torch.testing.assert_close(got, want, rtol=0, atol=1e-4 if dtype is torch.float32 else 0.3)


def test_gradients_and_other_dtypes_take_the_weight_itself(monkeypatch):
    layer = nn.Linear(8, 8)
    prepack(layer)
    other = torch.ops.mkldnn._reorder_linear_weight(torch.zeros(8, 8), 16)
    monkeypatch.setattr(layer.forward, "_arranged", other)  # whose use shows
    x = torch.ones(2, 8, requires_grad=True)
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.detach().sum(0).expand(2, 8))
    with torch.no_grad(), pytest.raises(RuntimeError, match="dtype"):
        layer(x.double())  # as without
    with torch.no_grad():
        torch.testing.assert_close(layer(x), layer.bias.detach().expand(2, 8))


def test_a_layer_that_is_more_than_a_product_stays_as_it_is():
    class Twice(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model = nn.ModuleDict({"twice": Twice(4, 4), "norm": nn.LayerNorm(4), "embedding": nn.Embedding(4, 4)})
    assert prepack(model) == 0
    assert not any(isinstance(module.forward, Prepacked) for module in model.modules())


def test_a_product_that_is_not_what_it_was_is_not_taken(monkeypatch):
    layer = nn.Linear(4, 4)
    monkeypatch.setattr(Prepacked, "__call__", lambda self, x: self.plain(x) * 1.01)
    assert prepack(layer) == 0
    monkeypatch.undo()
    monkeypatch.setattr(prepacked.platform, "machine", lambda: "arm64")
    assert prepack(layer) == 0
    monkeypatch.undo()
    assert prepack(layer) == 64
    assert prepack(layer) == 0  # it is already


@pytest.mark.parametrize("dtype", DTYPES)
@torch.no_grad()
def test_a_model_says_the_same(tiny, dtype):
    model = copy.deepcopy(tiny.model).to(dtype)
    ids = torch.tensor([[tiny.bos_id, *tiny.encode("The keeper of the light wrote a journal.")]])
    want = model(ids).logits
    with in_fp32(model):
        exact = model(ids).logits
    assert prepack(model) == sum(m.weight.nbytes for m in model.modules() if type(m) is nn.Linear)
    torch.testing.assert_close(model(ids).logits, want, rtol=0, atol=1e-4 if dtype is torch.float32 else 0.1)
    with in_fp32(model):
        again = model(ids).logits
    if dtype is torch.bfloat16:
        assert torch.equal(again, exact)  # it computes with the weights as they are stored
    prepack(model)
    prompt = model.generate(ids, max_new_tokens=4, do_sample=False)
    assert prompt.shape[1] == ids.shape[1] + 4


def test_what_nobody_holds_is_freed_at_once():
    model = nn.Sequential(nn.Linear(4, 4), Conv1D(4, 4))
    assert prepack(model) == 128
    held = [weakref.ref(model[0].forward), weakref.ref(model[1].forward), weakref.ref(model[0].weight)]
    gc.disable()
    try:
        del model
        assert [one() for one in held] == [None] * 3
    finally:
        gc.enable()


def test_unpacked_layers_are_as_they_were():
    model = nn.Sequential(nn.Linear(4, 4), Conv1D(4, 4))
    assert prepack(model) == unpack(model) == 128
    assert unpack(model) == prepacked_bytes(model) == 0
    assert all("forward" not in vars(layer) for layer in model)


def test_prepacked_weights_make_room_for_what_is_asked_for(tiny, tiny_folder, tmp_path):
    sae = random_sae(latents=512)
    saelens.write(tmp_path / "sae", sae, matrices=torch.float32, metadata={})
    target = Target("rev", "tiny", tiny_folder, tmp_path / "sae")
    plain, count = size_of(tiny), (ARRANGED - 1) * size_of(tiny) // size_of(sae) + 1
    arranged = sum(m.weight.nbytes for m in tiny.model.modules() if type(m) is nn.Linear)
    spare = 4096  # files are a little longer than what is in them
    assert spare < arranged
    budget = plain + count * size_of(sae) + spare
    residents = Residents(read_sae, dtype="float32", device="cpu", budget=budget)
    others = [Target(f"rev{i}", "tiny", tiny_folder, tmp_path / "sae") for i in range(count)]
    loaded = residents.lease([target], saes=False)
    assert prepacked_bytes(loaded.subject.model) == arranged
    together = residents.lease(others)
    assert len(together.probes) == len(others)
    assert prepacked_bytes(loaded.subject.model) == 0
    assert residents.nbytes == budget - spare


def test_the_engine_prepacks_what_a_quarter_of_its_budget_holds_and_counts_it(tiny, tiny_folder, tmp_path):
    saelens.write(tmp_path / "sae", random_sae(), matrices=torch.float32, metadata={})
    target = Target("rev", "tiny", tiny_folder, tmp_path / "sae")
    plain = size_of(tiny)
    for budget, packed in ((ARRANGED * plain + 1, True), (ARRANGED * plain - 1, False)):
        residents = Residents(read_sae, dtype="float32", device="cpu", budget=budget)
        subject = residents.lease([target], saes=False).subject
        taken = prepacked_bytes(subject.model)
        assert (taken > plain / 2) == packed
        assert residents.nbytes == size_of(subject) == plain + taken
