"""Bodies that the API's reference shows and the tests send."""

from fastapi.openapi.models import Example

from app.web.api_examples import DEMO

SHARE: dict[str, Example] = {
    "feature": {"summary": "A feature, for a week", "value": {"address": f"/saes/{DEMO}/features/830", "days": 7}}
}
