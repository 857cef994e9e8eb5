"""Linear layers whose weights lie as oneDNN's products want them.

torch has a weight rearranged for every product on a CPU, which for a few rows takes longer than the product itself:
"weight prepacking" in oneDNN's terms makes that arrangement once, and keeps it beside the weight.
"""

import platform
from typing import Any

import torch
from torch import Tensor, nn

ROWS = 16  # of the products that the arrangement is chosen for; it is good for others too
_DTYPES = (torch.float32, torch.bfloat16)
_NEAR = {torch.float32: 1e-4, torch.bfloat16: 3e-2}  # of the largest entry: rounding of sums in another order


class Prepacked:
    """The forward of a linear layer from an arranged copy of its weight, where no gradient is asked for and the input
    is of the weight's dtype; else as it was."""

    def __init__(self, module: nn.Module, weight: Tensor) -> None:
        """weight: [out, in], contiguous.

        Raises:
            AttributeError, RuntimeError: this torch or this CPU has no such product.
        """
        # Not the module or a method of it: what a module holds and what holds the module is freed late, or never.
        self._weight: Tensor = module.weight  # type: ignore[assignment]
        self._linear = type(module) is nn.Linear
        self.bias: Tensor | None = module.bias  # type: ignore[assignment]
        self.dtype = weight.dtype
        self.nbytes = weight.nbytes
        self._arranged: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)

    def __call__(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or x.dtype != self.dtype or x.device.type != "cpu" or not x.numel():
            return self.plain(x)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._arranged, self.bias, "none", [], "")
        return out

    def plain(self, x: Tensor) -> Tensor:
        """By the weight itself."""
        if self._linear:
            return nn.functional.linear(x, self._weight, self.bias)
        assert self.bias is not None
        rows = x.reshape(-1, x.shape[-1])
        return torch.addmm(self.bias, rows, self._weight).view(*x.shape[:-1], self._weight.shape[1])


@torch.no_grad()
def prepack(model: nn.Module) -> int:
    """Keep arranged copies of the weights of ``model``'s linear layers, which take as many bytes as the weights: told
    is how many. None where the model is not on an x86 CPU in fp32 or bf16, or a product is not what it was."""
    if not torch.backends.mkldnn.is_available() or platform.machine().lower() not in ("x86_64", "amd64"):
        return 0
    taken = 0
    for module in model.modules():
        weight = _weight(module)
        if weight is None or weight.device.type != "cpu" or weight.dtype not in _DTYPES:
            continue
        try:
            made = Prepacked(module, weight)
            same = _same(made, weight.shape[1])
        except (AttributeError, NotImplementedError, RuntimeError):
            break
        if not same:
            break
        module.forward = made
        taken += made.nbytes
    return taken


def prepacked_bytes(model: nn.Module) -> int:
    """What ``prepack`` has taken."""
    return sum(module.forward.nbytes for module in model.modules() if isinstance(module.forward, Prepacked))


def unpack(model: nn.Module) -> int:
    """Undo ``prepack``: told is how many bytes that gives back."""
    given = 0
    for module in model.modules():
        if isinstance(module.forward, Prepacked):
            given += module.forward.nbytes
            del module.forward  # of this module; its class's is there again
    return given


def _weight(module: Any) -> Tensor | None:
    """[out, in] of a layer that is a product and nothing else; None for others, and where it is prepacked already."""
    if isinstance(module.forward, Prepacked):
        return None
    if type(module) is nn.Linear:
        return module.weight.detach().contiguous()
    if type(module).__name__ == "Conv1D" and hasattr(module, "nf"):  # GPT-2's, [in, out]
        weight: Tensor = module.weight.detach().T.contiguous()
        return weight
    return None


def _same(made: Prepacked, width: int) -> bool:
    x = torch.randn(2, width, generator=torch.Generator().manual_seed(0)).to(made.dtype)
    want, got = made.plain(x).float(), made(x).float()
    return bool((want - got).abs().max() <= _NEAR[made.dtype] * want.abs().max())
