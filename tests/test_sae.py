"""TopK numerics and the SAELens folder format."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.errors import HarvestRunning, InvalidSAE, PortInUse
from app.harvest.job import read_sae
from app.harvest.names import default_slug
from app.sae.acts import from_rows
from app.sae.base import SAEFormatError
from app.sae.formats import saelens
from app.sae.metrics import Reconstruction
from app.store.bulk import harvest_lock
from tests.conftest import edit_config, random_sae


def test_topk_by_hand():
    from dataclasses import replace

    sae = random_sae(d=2, latents=3, k=2)
    sae = replace(
        sae, W_enc=torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.0, 1.0]]), b_enc=torch.tensor([0.0, 0.5, 0.0]),
        W_dec=torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]]), b_dec=torch.tensor([1.0, 0.0]),
    )  # fmt: skip
    x = torch.tensor([[4.0, 1.0], [0.0, -3.0]])
    acts = sae.encode(x)
    # x - b_dec: [3, 1] -> pre-acts [3, 1.5, -2]; [-1, -3] -> [-1, -2.5, -2], so nothing is active there
    assert acts.dense(3).tolist() == [[3.0, 1.5, 0.0], [0.0, 0.0, 0.0]]
    assert sae.decode(acts, x).tolist() == [[4.0, 1.5], [1.0, 0.0]]


@pytest.mark.parametrize(("inclusive", "active"), [(False, [False, True]), (True, [True, True])])
def test_a_pre_activation_at_its_threshold_fires_only_where_the_format_says_so(inclusive, active):
    from app.sae.jumprelu import JumpReLU

    sae = JumpReLU(
        random_sae(d=2, latents=2, k=1).config, torch.eye(2), torch.zeros(2), torch.eye(2), torch.zeros(2),
        threshold=torch.tensor([0.5, 0.25]), inclusive=inclusive,
    )  # fmt: skip
    assert (sae.encode(torch.tensor([[0.5, 0.5]])).dense(2) != 0).tolist() == [active]


def test_acts_are_sorted_and_hold_no_zeros():
    acts = from_rows(torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[5, 1, 3]]))
    assert acts.latent.tolist() == [3, 5]
    assert acts.value.tolist() == [2.0, 1.0]


def test_fvu_by_hand_over_two_batches():
    x = torch.tensor([[1.0, 0.0], [3.0, 0.0], [5.0, 6.0]])
    x_hat = torch.tensor([[1.0, 1.0], [3.0, 0.0], [5.0, 4.0]])
    acts = from_rows(torch.ones(3, 1), torch.zeros(3, 1, dtype=torch.int64))
    whole, left, right = Reconstruction(2), Reconstruction(2), Reconstruction(2)
    whole.update(x, x_hat, acts)
    left.update(x[:1], x_hat[:1], acts._replace(n_positions=1, value=acts.value[:1]))
    right.update(x[1:], x_hat[1:], acts._replace(n_positions=2, value=acts.value[1:]))
    left.merge(right)
    assert whole.result()["fvu"] == pytest.approx(5 / 32)  # error 1 + 4; variance 8 + 24
    assert left.result()["fvu"] == pytest.approx(5 / 32)
    assert whole.result()["l0"] == 1


def test_what_is_written_is_read_back(tmp_path):
    sae = random_sae()
    saelens.write(tmp_path, sae, matrices=torch.float32, metadata={})
    again = read_sae(tmp_path)
    x = torch.randn(5, 32)
    assert torch.equal(again.encode(x).dense(40), sae.encode(x).dense(40))
    assert again.config.reads == ("model.layers.0:out",)
    assert default_slug(again) == "tiny-l0-topk-40"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"architecture": "vae"}, "architecture 'vae'"),
        ({"k": 0}, "k 0"),
        ({"k": 99}, "k 99, more than the 40 latents"),
        ({"d_sae": "many"}, "d_sae 'many'"),
        ({"d_sae": 41}, "Tensor 'W_enc'"),
        ({"normalize_activations": "covariance_whitening"}, "covariance_whitening"),
        ({"metadata": {"sae_lens_version": "6.0.0"}}, "no hook_name"),
        ({"soft_threshold": 0.5}, "not known here: soft_threshold"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_by_name(sae_folder, change, says):
    edit_config(sae_folder, **change)
    with pytest.raises(InvalidSAE) as refusal:
        read_sae(sae_folder)
    assert says in refusal.value.message


def test_files_that_are_missing_or_broken_are_refused_by_name(tmp_path, sae_folder):
    with pytest.raises(InvalidSAE, match="No SAE folder"):
        read_sae(tmp_path / "nowhere")
    weights = sae_folder / saelens.WEIGHTS
    tensors = load_file(weights)
    save_file({**tensors, "b_dec": torch.zeros(31)}, weights)
    with pytest.raises(InvalidSAE, match=r"'b_dec' .* shape \[31\]; wanted \[32\]"):
        read_sae(sae_folder)
    save_file({name: t for name, t in tensors.items() if name != "b_enc"}, weights)
    with pytest.raises(InvalidSAE, match="no tensor 'b_enc'"):
        read_sae(sae_folder)
    weights.write_bytes(b"junk")
    with pytest.raises(InvalidSAE, match="not a whole safetensors file"):
        read_sae(sae_folder)
    (sae_folder / "cfg.json").write_text("{")
    with pytest.raises(InvalidSAE, match="is not JSON"):
        read_sae(sae_folder)


def test_a_second_harvest_of_the_same_sae_is_refused(engine):
    with (
        harvest_lock(engine, "busy"),
        pytest.raises(HarvestRunning, match="already running"),
        harvest_lock(engine, "busy"),
    ):
        pass
    with harvest_lock(engine, "busy"):
        pass


def test_a_port_in_use_is_refused_by_number():
    import socket

    from app.cli import check_port
    from app.settings import Settings

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=str(port)):
            check_port(Settings(port=port))


def test_a_refusal_is_one_line_whatever_a_name_holds():
    assert str(SAEFormatError("a key\nof\ttwo \x1b[1mlines")) == "a key of two  [1mlines"
