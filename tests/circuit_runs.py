"""A search for a circuit as it would be kept."""

from datetime import UTC, datetime

from app.circuits.record import CircuitPrompt, CircuitRun, CircuitSpread


def a_run(**changes):
    spread = CircuitSpread(mean=0.5, std=0.1, high=0.7)
    values = {
        "name": "ioi-tiny-0-abcdef", "task": "ioi", "subject": "tiny", "subject_sha256": "0" * 64, "dtype": "float32",
        "made": datetime(2026, 11, 22, tzinfo=UTC), "seconds": 61.0, "examples": 10, "learned_from": 10, "latents": 200,
        "steps": 500, "l1": 0.02, "seed": 0, "ablated_on": 8, "threshold": 0.05, "difference": 2.0,
        "ablated_difference": 2.1, "negative_difference": 0.1, "accuracy": 0.9, "silent": 0.4,
        "unique": [[0, 3], [1, 9]], "distinct": [[4, 8], [3, 12]], "untrained": [[1, 1], [1, 2]],
        "apart": [[0.1, 0.9], [0.3, 0.2]],
        "effect": [[0.0, 0.5], [-0.01, -1.2]], "in_circuit": 2, "auc": 1.0, "auc_normalised": 0.75,
        "auc_untrained": 0.5, "auc_apart": 0.75, "spearman": 0.8, "shuffled_truth": spread, "shuffled_examples": spread,
        "prompts": [CircuitPrompt(positive="A\\n    b", negative="C", right=[" b"])],
    }  # fmt: skip
    return CircuitRun(**{**values, **changes})
