"""What the forms of jobs other than harvests hold, and how a run of any kind is called."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

JobKind = Literal["explain", "map", "embed"]
Method = Literal["free", "rules", "vocab", "llm", "llm-contrastive", "people"]
Layout = Literal["umap", "tsne", "pca"]
On = Literal["decoder", "encoder", "coactivation"]
NAMES = {"umap": "UMAP", "tsne": "t-SNE", "pca": "PCA"}
FREE = {
    "free": "Explanations by rules and vocabulary",
    "rules": "Explanations by rules",
    "vocab": "Explanations by vocabulary",
    "people": "Scores of what people wrote",
}


class JobForm(BaseModel):
    """A form as it was typed, of the kind ``job``."""

    job: str = ""
    sae: str = ""
    method: str = "free"
    latents: str = ""
    model: str = ""
    scorers: str = "detection,fuzzing"
    max_usd: str = ""
    price_in: str = ""
    price_out: str = ""
    layout: str = "umap"
    on: str = "decoder"


class JobBody(BaseModel):
    """POST /api/jobs. ``sae`` is a harvested SAE, ``name`` or ``name@revision``; without it, the newest revision of
    every one is embedded. Of ``explain`` are ``method``, ``latents`` (``0-99,512``), ``scorers``, ``model``,
    ``max_usd`` and the prices, USD for a million tokens; of ``map`` are ``layout`` and ``on``. The endpoint and its key
    are the server's settings."""

    model_config = ConfigDict(extra="forbid")

    job: JobKind
    sae: str | None = None
    method: Method = "free"
    latents: str | None = None
    model: str | None = None
    scorers: str = "detection,fuzzing"
    max_usd: float | None = Field(default=None, ge=0)
    price_in: float | None = Field(default=None, ge=0)
    price_out: float | None = Field(default=None, ge=0)
    layout: Layout = "umap"
    on: On = "decoder"


class JobsForm(BaseModel):
    """What there is to choose from, and the form that was refused, if one was. ``model``: the language model that pages
    may ask; ``local``: it is on this machine."""

    saes: list[str]
    model: str | None
    local: bool
    form: JobForm
    error: str | None = None


def called(kind: str, command: dict[str, Any]) -> str:
    """What a run does, in a few words."""
    match kind:
        case "harvest":
            return "Harvest"
        case "embed":
            return "Search by meaning"
        case "map":
            method, on = command.get("method", "umap"), command.get("on", "decoder")
            return f"Map by {NAMES.get(method, method)} of the {'co-activation' if on == 'coactivation' else on}"
    method = command.get("method", "free")
    if method in FREE:
        return FREE[method]
    model = f" by {command['model']}" if command.get("model") else " by a language model"
    contrast = ", with counterexamples" if method == "llm-contrastive" else ""
    return f"Explanations{model}{contrast}{_of(command.get('latents'))}"


def _of(latents: str | None) -> str:
    if not latents:
        return ", of all features"
    return f", of feature {latents}" if latents.isdecimal() else f", of features {latents}"
