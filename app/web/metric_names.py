"""The names of an SAE's metrics, in the order in which every page shows them."""

METRICS = {
    "fvu": "FVU", "explained_variance": "Explained variance", "l0": "L0", "cosine": "Cosine",
    "norm_ratio": "Norm ratio", "ce_recovered": "CE recovered", "kl_recovered": "KL recovered",
}  # fmt: skip

BETTER = {
    "fvu": "lower", "explained_variance": "higher", "l0": None, "cosine": "higher", "norm_ratio": "nearest 1",
    "ce_recovered": "higher", "kl_recovered": "higher", "dead": "lower",
}  # fmt: skip


def is_better(best: str | None, value: float, first: float) -> bool | None:
    """Whether ``value`` is better than ``first``; None where they are equal or neither way is better."""
    if best == "nearest 1":
        value, first = -abs(value - 1), -abs(first - 1)
    elif best == "lower":
        value, first = -value, -first
    return None if best is None or value == first else value > first


def measured_over(metric: str) -> str:
    """The metric that says over how many tokens this one is."""
    return "recovery_tokens" if metric.endswith("recovered") else "tokens"
