"""Decoder rows read from an SAE's files in the home by numpy, without the rest of them and without torch."""

import json
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.errors import DecoderUnavailable

Floats = npt.NDArray[np.float32]
_FILES = ("sae_weights.safetensors", "sae.safetensors")  # SAELens's name, and saescope's own
_KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class Decoder:
    """W_dec: [n_latents, d], mapped from disk; nothing is read before a row is asked for."""

    def __init__(self, folder: Path, n_latents: int) -> None:
        """
        Raises:
            DecoderUnavailable: there is no file, or none with W_dec as one matrix of n_latents rows.
        """
        file = next((folder / name for name in _FILES if (folder / name).is_file()), None)
        if file is None:
            raise DecoderUnavailable(f"The SAE's files are gone from {folder}; harvest it again to compare decoders.")
        try:
            kind, shape, offset = _find(file, "W_dec")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DecoderUnavailable(f"{file} holds no W_dec that can be read: {error}.") from None
        if len(shape) != 2 or shape[0] != n_latents:
            raise DecoderUnavailable(f"W_dec in {file} is {shape}; wanted one row for each of {n_latents:,} latents.")
        self.d = shape[1]
        self._raw: npt.NDArray[Any] = np.memmap(file, np.dtype(_KINDS[kind]), "r", offset, shape)
        self._bfloat16 = kind == "BF16"

    def rows(self, start: int, stop: int) -> Floats:
        """[stop - start, d]"""
        raw = self._raw[start:stop]
        if self._bfloat16:  # the upper half of an fp32
            return (raw.astype(np.uint32) << 16).view(np.float32)
        return raw.astype(np.float32)


def _find(file: Path, name: str) -> tuple[str, tuple[int, ...], int]:
    """dtype, shape and place of a tensor: a safetensors file is a length, a JSON header of that length, then data."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > min(size, 100 << 20):
            raise ValueError("its header is longer than the file")
        header = json.loads(stream.read(length))
    if name not in header:
        raise ValueError(f"there is no {name}")
    kind, shape = header[name]["dtype"], tuple(int(n) for n in header[name]["shape"])
    start, end = header[name]["data_offsets"]
    if kind not in _KINDS:
        raise ValueError(f"its dtype is {kind}")
    if end - start != prod(shape) * np.dtype(_KINDS[kind]).itemsize or 8 + length + end > size:
        raise ValueError("its shape does not fit its bytes")
    return kind, shape, 8 + length + start
