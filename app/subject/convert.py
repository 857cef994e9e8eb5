"""One-time conversion of a GGUF file into a Hugging Face folder with bf16 safetensors."""

import contextlib
import io
import shutil
from pathlib import Path

from app.errors import SubjectUnavailable


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Dequantise ``gguf`` and write config, tokenizer and bf16 weights to ``folder``, all or nothing.

    Q4_1 blocks dequantise to values that bf16 rounds once more; the rounding is below the quantisation step.
    """
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _quieten()
    # From 5.20 on transformers keeps GGUF weights packed, and a packed model cannot be saved, unless told.
    config = getattr(transformers, "GgufConfig", None)
    unpack = {} if config is None else {"quantization_config": config(dequantize=True)}
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar knows no switch
            model = AutoModelForCausalLM.from_pretrained(
                gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, **unpack
            )
        tokenizer.save_pretrained(partial)
        model.save_pretrained(partial)
    except (OSError, ValueError, KeyError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise SubjectUnavailable(
            f"{gguf.name} could not be converted: {str(error).splitlines()[0]}", path=str(gguf)
        ) from error
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _quieten() -> None:
    import logging

    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
