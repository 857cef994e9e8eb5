"""Loading a subject: a causal language model and its tokenizer from a local folder."""

import logging
import threading
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from app.errors import SubjectUnavailable
from app.subject.tokens import Vocabulary
from app.subject.vocabulary import states

# transformers imports its parts lazily, and two threads doing so at once can find it half imported.
loading = threading.RLock()


@dataclass(frozen=True, eq=False)
class Subject:
    """The model under study. ``name`` is what pages call it; ``path`` is the folder it came from."""

    name: str
    path: Path
    model: nn.Module
    tokenizer: Any
    device: torch.device
    dtype: torch.dtype

    @property
    def d_model(self) -> int:
        return int(self.model.config.hidden_size)  # type: ignore[union-attr, arg-type]

    @property
    def max_context(self) -> int:
        """The longest sequence the subject reads, in tokens."""
        return int(getattr(self.model.config, "max_position_embeddings", 0) or 1 << 30)

    @property
    def n_layers(self) -> int:
        return int(self.model.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]

    @property
    def n_parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary.of(self.tokenizer)

    @property
    def n_tokens(self) -> int:
        """How many token ids there are: the embedding's rows, which may be more than the tokenizer names."""
        return max(int(self.model.get_input_embeddings().weight.shape[0]), len(self.tokenizer))  # type: ignore[operator]

    @property
    def bos_id(self) -> int | None:
        """The id put before every sequence: BOS, or EOS where a tokenizer has no BOS of its own."""
        for value in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if value is not None:
                return int(value)
        return None

    @property
    def separator_id(self) -> int | None:
        """The id between packed documents: EOS, or BOS where there is none."""
        for value in (self.tokenizer.eos_token_id, self.tokenizer.bos_token_id):
            if value is not None:
                return int(value)
        return None

    @property
    def special_ids(self) -> list[int]:
        """Ids left out of statistics: BOS, EOS, PAD."""
        return special_ids(self.tokenizer)

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text`` without special tokens."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def unembedding(self) -> Tensor:
        """The map from the residual stream to logits, final norm's gain folded in: [d_model, vocabulary] fp32.

        Exact up to the norm's per-token scale, which no single direction determines; for LayerNorm the mean is
        projected out as the norm does.
        """
        model: Any = self.model
        W_U: Tensor = model.get_output_embeddings().weight.detach().float().T
        norm = final_norm(model)
        if norm is None:
            return W_U
        folded: Tensor = gain_of(norm)[:, None] * W_U
        if isinstance(norm, nn.LayerNorm):
            folded = folded - folded.mean(0, keepdim=True)
        return folded


def special_ids(t: Any) -> list[int]:
    """BOS, EOS and PAD of the tokenizer ``t``."""
    return sorted({int(i) for i in (t.bos_token_id, t.eos_token_id, t.pad_token_id) if i is not None})


def gain_of(norm: Any) -> Tensor:
    """What a norm multiplies by: [d] fp32."""
    gain: Tensor = norm.weight.detach().float()
    return gain + 1 if type(norm).__name__.startswith("Gemma") else gain  # Gemma's RMSNorm multiplies by (1 + weight)


def final_norm(model: Any) -> Any | None:
    """The norm between the residual stream and the unembedding."""
    base = getattr(model, model.base_model_prefix, model)
    for name in ("norm", "ln_f", "final_layer_norm", "final_layernorm"):
        if (norm := getattr(base, name, None)) is not None and getattr(norm, "weight", None) is not None:
            return norm
    return None


def choose_device(wanted: str) -> torch.device:
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise SubjectUnavailable("SAESCOPE_DEVICE is cuda but there is no CUDA device here; use cpu or auto.")
    return torch.device(wanted)


def choose_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """``auto`` is bf16 on GPUs and on CPUs that multiply bf16 in hardware (AMX or AVX512-BF16), else fp32."""
    if wanted != "auto":
        dtype: torch.dtype = getattr(torch, wanted)
        return dtype
    if device.type == "cuda":
        return torch.bfloat16
    flags = _cpu_flags()
    return torch.bfloat16 if flags & {"amx_bf16", "avx512_bf16"} else torch.float32


def _cpu_flags() -> set[str]:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                return set(line.split())
    except OSError:
        pass
    return set()


def load_subject(path: Path, name: str, dtype: str = "auto", device: str = "auto") -> Subject:
    """Load the model and tokenizer in ``path`` (a Hugging Face folder; nothing is downloaded).

    Raises:
        SubjectUnavailable: the folder is missing or does not hold a causal language model.
    """
    try:
        there = (path / "config.json").is_file()
    except OSError as error:  # a name too long, a folder that may not be entered
        raise SubjectUnavailable(f"The model at {path} cannot be read: {error.strerror}.", path=str(path)) from None
    if not there:
        raise SubjectUnavailable(
            f"No model at {path}: config.json is missing; run 'saescope demo' or give a Hugging Face folder.",
            path=str(path),
        )
    with loading:
        return _load(path, name, dtype, device)


def _load(path: Path, name: str, dtype: str, device: str) -> Subject:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    where = choose_device(device)
    kind = choose_dtype(dtype, where)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(path, dtype=kind, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise SubjectUnavailable(
            f"The model at {path} could not be loaded: {str(error).splitlines()[0]}", path=str(path)
        ) from error
    model.eval().requires_grad_(False).to(where)
    return Subject(name=name, path=path, model=model, tokenizer=tokenizer, device=where, dtype=kind)


def load_vocabulary(path: Path) -> Vocabulary:
    """The tokens of the subject in ``path``, without its weights. Read once, until a file there changes.

    Raises:
        SubjectUnavailable: there is no tokenizer in ``path``.
    """
    return _vocabulary(path.resolve(), states(path) if path.is_dir() else ())


@lru_cache(maxsize=4)
def _vocabulary(path: Path, files: tuple[tuple[str, int, int], ...]) -> Vocabulary:
    """``files`` are what lies there: with others it is another vocabulary."""
    return Vocabulary.of(load_tokenizer(path))


def load_tokenizer(path: Path) -> Any:
    """
    Raises:
        SubjectUnavailable: there is none in ``path``.
    """
    with loading:
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(path, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise SubjectUnavailable(
                f"The tokenizer at {path} could not be loaded: {str(error).splitlines()[0]}", path=str(path)
            ) from error
