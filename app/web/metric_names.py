"""The names of an SAE's metrics, in the order in which every page shows them."""

METRICS = {
    "fvu": "FVU", "explained_variance": "Explained variance", "l0": "L0", "cosine": "Cosine",
    "norm_ratio": "Norm ratio", "ce_recovered": "CE recovered", "kl_recovered": "KL recovered",
}  # fmt: skip
