"""What an endpoint understands, learnt once by asking it."""

from dataclasses import dataclass, replace
from typing import Any, Literal

Form = Literal["schema", "object", "none"]

ANSWERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "answers": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"i": {"type": "integer"}, "active": {"type": "boolean"}},
                "required": ["i", "active"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["answers"],
    "additionalProperties": False,
}
LIKELIEST = 5  # alternatives asked for with log-probabilities


@dataclass(frozen=True)
class Capabilities:
    """``form``: how JSON can be asked for; ``limit``: the name of the parameter that bounds the answer."""

    form: Form = "schema"
    logprobs: bool = True
    limit: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    temperature: bool = True

    def params(
        self, max_tokens: int, *, temperature: float, seed: int | None, schema: dict[str, Any] | None, logprobs: bool
    ) -> dict[str, Any]:
        """A request's parameters beside model and messages."""
        given: dict[str, Any] = {self.limit: max_tokens}
        if self.temperature:
            given["temperature"] = temperature
        if seed is not None:
            given["seed"] = seed
        if logprobs and self.logprobs:
            given |= {"logprobs": True, "top_logprobs": LIKELIEST}
        if schema is not None and self.form == "schema":
            named = {"name": "answers", "strict": True, "schema": schema}
            given["response_format"] = {"type": "json_schema", "json_schema": named}
        elif schema is not None and self.form == "object":
            given["response_format"] = {"type": "json_object"}
        return given

    def without(self, told: str) -> "Capabilities | None":
        """What to try after a refusal that says ``told``: without the parameter it names, else without the first one
        that is left; None where nothing is left to leave out."""
        said = told.lower()
        fewer: list[tuple[tuple[str, ...], Capabilities]] = []
        if self.form == "schema":
            fewer.append((("json_schema", "response_format", "schema"), replace(self, form="object")))
        if self.form == "object":
            fewer.append((("json_object", "response_format", "schema"), replace(self, form="none")))
        if self.logprobs:
            fewer.append((("logprob",), replace(self, logprobs=False)))
        if self.limit == "max_completion_tokens":
            fewer.append((("max_completion_tokens",), replace(self, limit="max_tokens")))
        if self.temperature:
            fewer.append((("temperature",), replace(self, temperature=False)))
        named = [one for names, one in fewer if any(name in said for name in names)]
        return named[0] if named else (fewer[0][1] if fewer else None)

    def learnt(self, logprobs: bool, form_kept: bool) -> "Capabilities":
        """After an answer: log-probabilities that did not come, and a form that was not kept, are not to be had."""
        form: Form = self.form if form_kept else "none"
        return replace(self, logprobs=self.logprobs and logprobs, form=form)
