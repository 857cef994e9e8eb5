"""The names of an SAE's metrics, in the order in which every page shows them."""

METRICS = {
    "fvu": "FVU", "explained_variance": "Explained variance", "l0": "L0", "cosine": "Cosine",
    "norm_ratio": "Norm ratio", "ce_recovered": "CE recovered", "kl_recovered": "KL recovered",
}  # fmt: skip


def measured_over(metric: str) -> str:
    """The metric that says over how many tokens this one is."""
    return "recovery_tokens" if metric.endswith("recovered") else "tokens"
