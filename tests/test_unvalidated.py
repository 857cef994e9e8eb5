"""Models made without validation are those that pydantic makes."""

from app.web import patterns
from app.web.contexts import Example
from app.web.unvalidated import unvalidated


def test_a_model_made_without_validation_is_like_any_other():
    values = patterns.example("top", 0, 1.0).model_dump()
    made, usual = unvalidated(Example, **values), Example.model_construct(**values)
    assert made == usual == Example(**values)
    assert made.model_fields_set == usual.model_fields_set
    assert made.model_dump_json() == usual.model_dump_json()
    assert made.model_copy(update={"rank": 3}).rank == 3
