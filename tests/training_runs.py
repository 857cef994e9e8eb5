"""A training run under way, as its files have it."""

import shutil

from app.train import record

NAME = "tiny-l0-out-topk-64-s0"


def written(home):
    """Its facts and three lines of log, as training writes them."""
    folder = record.folder_of(home, NAME)
    shutil.rmtree(folder, ignore_errors=True)
    facts = record.Facts(
        name=NAME, idea="topk", about="Gao et al. 2024", options={"k": 8}, seed=0, n_latents=64, subject="tiny",
        reads="model.layers.0:out", writes="model.layers.0:out", corpus=["pkg:brown@1000 (chats)"], tokens=900,
        steps=40, recipe={"epochs": 2, "batch": 128, "lr": 0.001, "context": 64, "order": "mixed",
                          "precision": "float32"}, identity="x", sae=str(folder / "sae"),
    )  # fmt: skip
    record.save_facts(folder, facts)
    for step, fvu in ((10, 0.9), (20, 0.5), (30, 0.25)):
        record.add_line(folder, record.Line(step, step * 128, fvu + 0.1, fvu, 8.0, 16, 1e-3, 5000.0, {"aux": 0.5}))
    return facts
