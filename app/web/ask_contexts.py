"""What the page shows that waits for an explanation somebody asked a language model for."""

from pydantic import BaseModel

from app.web.explain_contexts import Explanation
from app.web.run_contexts import RunView


class AskedPage(BaseModel):
    """/saes/{sae}/features/{i}/ask and its twin: the newest run that the feature's page started, and what language
    models said last, of each sign. ``model``: the one that can be asked; None where none can."""

    sae: str
    revision: str
    address: str
    index: int
    label: str
    model: str | None
    run: RunView | None
    explanations: list[Explanation]
    error: str | None = None
