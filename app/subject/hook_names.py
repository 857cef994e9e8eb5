"""Other libraries' names of places in a model, as hook points of the subject at hand.

TransformerLens's ``blocks.L.hook_*`` names are mapped by what the subject's blocks are made of. On Gemma 2 and 3
hook_mlp_out and hook_attn_out are the outputs after the post-sublayer norms. ``ln2.hook_normalized`` is x / rms
without the gain, a value no module outputs: its side is ``unit``.
"""

import difflib
import re

from torch import nn

from app.errors import SubjectUnavailable
from app.subject.hooks import HookPoint

_STACKS = ("model.layers", "transformer.h", "gpt_neox.layers", "model.language_model.layers", "model.decoder.layers")
_SITES = ("resid_pre", "resid_mid", "resid_post", "mlp_in", "mlp_out", "attn_out", "attn.hook_z", "mlp.hook_post",
          "ln1.hook_normalized", "ln2.hook_normalized")  # fmt: skip


def stack_of(model: nn.Module) -> str | None:
    """The path of the subject's list of blocks."""
    for path in _STACKS:
        try:
            if len(list(model.get_submodule(path).children())):
                return path
        except AttributeError:
            continue
    return None


def hook_point(name: str, model: nn.Module) -> HookPoint:
    """The hook point ``name`` means in ``model``: ``module.path:side``, a TransformerLens name, or a bare module
    path (its output), with or without the model's own prefix.

    Raises:
        SubjectUnavailable: the subject has no such place; names what comes near.
    """
    if found := re.fullmatch(r"blocks\.(\d+)\.(?:hook_)?(.+)", name):
        return _transformer_lens(name, int(found[1]), found[2], model)
    text = name if re.search(r":(in|out|unit)$", name) else f"{name}:out"
    point = HookPoint.parse(text)
    prefix = getattr(model, "base_model_prefix", "") or ""
    for path in (point.module, f"{prefix}.{point.module}".lstrip(".")):
        try:
            model.get_submodule(path)
        except AttributeError:
            continue
        return HookPoint(path, point.side)
    known = [path for path, _ in model.named_modules() if path]
    near = difflib.get_close_matches(point.module, known, n=6, cutoff=0.5) or known[:6]
    raise SubjectUnavailable(
        f"The subject has no module {point.module!r}; near it are: {', '.join(near)}.", hook_point=name, near=near
    )


def _transformer_lens(name: str, layer: int, site: str, model: nn.Module) -> HookPoint:
    stack = stack_of(model)
    blocks = list(model.get_submodule(stack).children()) if stack else []
    if stack is None or layer >= len(blocks):
        told = f"its blocks are 0 to {len(blocks) - 1}" if blocks else "its blocks are not where they are known to be"
        raise SubjectUnavailable(f"The subject has no {name!r}; {told}.", hook_point=name)
    path, block = f"{stack}.{layer}", blocks[layer]
    children = dict(block.named_children())

    def child(*names: str) -> str | None:
        return next((f"{path}.{n}" for n in names if n in children), None)

    gemma = "post_feedforward_layernorm" in children and "pre_feedforward_layernorm" in children
    attention = child("self_attn", "attn", "attention")
    before_mlp = child("pre_feedforward_layernorm") or child("post_attention_layernorm", "ln_2", "final_layer_norm")
    projection = attention and _projection(model, attention)
    where: dict[str, tuple[str | None, str]] = {
        "resid_pre": (path, "in"),
        "resid_post": (path, "out"),
        "resid_mid": (before_mlp, "in"),
        "mlp_in": (before_mlp, "in"),
        "mlp_out": (child("post_feedforward_layernorm") if gemma else child("mlp"), "out"),
        "attn_out": (child("post_attention_layernorm") if gemma else attention, "out"),
        "attn.hook_z": (projection, "in"),
        "mlp.hook_post": (_down(model, child("mlp")), "in"),
        "ln1.hook_normalized": (child("input_layernorm", "ln_1"), "unit"),
        "ln2.hook_normalized": (before_mlp, "unit"),
    }
    module, side = where.get(site, (None, ""))
    if module is None:
        known = ", ".join(f"blocks.{layer}.{'' if '.' in s else 'hook_'}{s}" for s in _SITES if where[s][0])
        raise SubjectUnavailable(f"The subject has no {name!r}; it has: {known}.", hook_point=name)
    return HookPoint.parse(f"{module}:{side}")


def _projection(model: nn.Module, attention: str) -> str | None:
    names = {n for n, _ in model.get_submodule(attention).named_children()}
    return next((f"{attention}.{n}" for n in ("o_proj", "c_proj", "dense", "out_proj") if n in names), None)


def _down(model: nn.Module, mlp: str | None) -> str | None:
    names = {n for n, _ in model.get_submodule(mlp).named_children()} if mlp else set()
    return next((f"{mlp}.{n}" for n in ("down_proj", "c_proj", "dense_4h_to_h", "fc2") if n in names), None)
