"""What other tools' files tell of features, in one form: SAEDashboard's batches and Neuronpedia's exports.

SAEDashboard (neuronpedia runner): ``batch-*.json``, each an object with ``features``, every one with its
``activations``. Neuronpedia: a folder with ``features/`` and ``activations/``, JSON lines, gzipped or not, and
``source.jsonl``; https://github.com/jbloomAus/SAEDashboard, sae_dashboard/neuronpedia.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from app.bounded_json import Batch, lines, refuse

TOP = -1  # where a bin begins, and what it contains, that is no interval but the strongest contexts
MOST_TOKENS = 4096  # of a context
LARGEST = 3e38  # of an activation


class Context(NamedTuple):
    """A context of a latent, told by ``where``: its tokens as text, an activation each. top: among its strongest, not
    drawn from an interval."""

    where: str
    latent: int
    tokens: list[str]
    values: list[float]
    top: bool


class Feature(NamedTuple):
    """density: the share of tokens it fires on; None where the file does not say."""

    latent: int
    density: float | None
    maximum: float


@dataclass
class Files:
    """A folder of either tool. What ``features`` finds out: tokens, the number that the densities are over."""

    tool: str
    folder: Path
    batches: list[Path]
    activations: list[Path] = field(default_factory=list)
    explanations: Path | None = None
    tokens: int | None = None
    dataset: str = ""

    def features(self) -> Iterator[Feature]:
        """Every feature, each once.

        Raises:
            BadRequest: something does not fit; names file, feature and field.
        """
        seen: set[int] = set()
        for one in self._features():
            if one.latent in seen:
                refuse(self.folder, f"holds feature {one.latent} twice.")
            seen.add(one.latent)
            yield one

    def _features(self) -> Iterator[Feature]:
        for path in self.batches:
            if self.tool == "SAEDashboard":
                for given in Batch(path, "features").elements():
                    latent = _index(path, given, "feature_index")
                    self._counted(path, latent, given, "n_prompts_total", "n_tokens_in_prompt", "dataset")
                    yield Feature(latent, _share(path, latent, given), 0.0)
            else:
                for _, given in lines(path):
                    latent = _index(path, given, "index")
                    said = _number(path, f"feature {latent}", given, "maxActApprox")
                    yield Feature(latent, _share(path, latent, given), said or 0.0)

    def contexts(self) -> Iterator[Context]:
        for path in self.batches if self.tool == "SAEDashboard" else self.activations:
            if self.tool == "SAEDashboard":
                for given in Batch(path, "features").elements():
                    latent = _index(path, given, "feature_index")
                    told = given.get("activations")
                    if not isinstance(told, list):
                        refuse(path, f"has no activations of feature {latent}.")
                    for number, one in enumerate(told):
                        where = f"activation {number} of feature {latent}"
                        yield _context(path, where, latent, one, ("bin_min", "bin_contains"))
            else:
                for number, one in lines(path):
                    latent = _index(path, one, "index")
                    yield _context(path, f"line {number}", latent, one, ("binMin", "binContains"))

    def _counted(self, path: Path, latent: int, given: dict[str, Any], prompts: str, length: str, dataset: str) -> None:
        counts = [given.get(name) for name in (prompts, length)]
        if all(isinstance(count, int) and not isinstance(count, bool) and 0 < count < 1 << 40 for count in counts):
            tokens = int(counts[0]) * int(counts[1])  # type: ignore[arg-type]
            if self.tokens not in (None, tokens):
                refuse(path, f"counts {tokens:,} tokens at feature {latent}, and {self.tokens:,} elsewhere.")
            self.tokens = tokens
        if isinstance(given.get(dataset), str):
            self.dataset = given[dataset][:200]


def found(folder: Path) -> Files:
    """What the folder holds.

    Raises:
        BadRequest: files of neither tool.
    """
    if not folder.is_dir():
        refuse(folder, "is no folder; give the one that SAEDashboard or Neuronpedia's export wrote.")
    batches = _numbered(folder, "batch-*.json")
    if batches:
        return Files("SAEDashboard", folder, batches)
    features, activations = ([*_numbered(folder / name, "*.jsonl"), *_numbered(folder / name, "*.jsonl.gz")]
                             for name in ("features", "activations"))  # fmt: skip
    if not features or not activations:
        refuse(folder, "holds neither SAEDashboard's batch-*.json nor Neuronpedia's features and activations.")
    explained = folder / "explanations"
    files = Files("Neuronpedia", folder, features, activations, explained if explained.is_dir() else None)
    source = folder / "source.jsonl"
    if source.is_file():
        for _, given in lines(source):
            if isinstance(given, dict):
                files._counted(source, 0, given, "num_prompts", "num_tokens_in_prompt", "dataset")
    return files


def _numbered(folder: Path, pattern: str) -> list[Path]:
    """In the order of their numbers; links that lead out of the folder are none of it."""
    root = folder.resolve()
    inside = (path for path in folder.glob(pattern) if path.is_file() and path.resolve().is_relative_to(root))
    return sorted(inside, key=lambda path: (len(path.name), path.name))


def _index(path: Path, given: Any, name: str) -> int:
    value = given.get(name) if isinstance(given, dict) else None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 31:
        refuse(path, f"holds something whose {name} is {str(value)[:40]!r}; a feature's number was expected.")
    return value


def _number(path: Path, where: str, given: dict[str, Any], name: str) -> float | None:
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > LARGEST:
        refuse(path, f"holds {str(value)[:40]!r} as {name} of {where}; a number was expected.")
    return float(value)


def _share(path: Path, latent: int, given: dict[str, Any]) -> float | None:
    value = _number(path, f"feature {latent}", given, "frac_nonzero")
    if value is not None and not 0 <= value <= 1:
        refuse(path, f"holds {value:g} as frac_nonzero of feature {latent}; a share lies between 0 and 1.")
    return value


def _context(path: Path, where: str, latent: int, given: Any, bins: tuple[str, str]) -> Context:
    if not isinstance(given, dict):
        refuse(path, f"holds no object at {where}.")
    tokens, values = given.get("tokens"), given.get("values")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        refuse(path, f"has no tokens at {where}: a list of texts was expected.")
    if not isinstance(values, list) or not all(type(x) in (int, float) and abs(x) <= LARGEST for x in values):
        refuse(path, f"has no values at {where}: a list of finite numbers was expected.")
    if len(tokens) != len(values) or not 0 < len(tokens) <= MOST_TOKENS:
        refuse(path, f"has {len(tokens):,} tokens and {len(values):,} values at {where}; there are as many of either, "
                     f"1 to {MOST_TOKENS:,}.")  # fmt: skip
    begin, share = (_number(path, where, given, name) for name in bins)
    top = begin is None or (begin == TOP and share in (None, TOP))
    return Context(where, latent, tokens, [float(x) for x in values], top)
