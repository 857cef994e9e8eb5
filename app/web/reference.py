"""The API reference page, read from the OpenAPI schema, so that no script from elsewhere is needed to show it."""

from typing import Any

from app.web.contexts import ApiField, ApiModel, ApiOperation, ApiPage


def api_page(schema: dict[str, Any]) -> ApiPage:
    """Every operation with its parameters, body and answer, in the order of the routes."""
    operations = []
    for path, methods in schema["paths"].items():
        for method, told in methods.items():
            body = told.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            answer = told["responses"].get("200", {}).get("content", {}).get("application/json", {}).get("schema", {})
            operations.append(
                ApiOperation(
                    method=method.upper(),
                    path=path,
                    summary=_plain(told.get("description") or told.get("summary", "")),
                    parameters=[_parameter(p) for p in told.get("parameters", [])],
                    body=_fields(body, schema),
                    answer=_fields(answer, schema),
                    answer_type=_kind(answer),
                )
            )
    models = [
        ApiModel(name=name, text=_plain(model.get("description", "")), fields=_fields({"$ref": f"/{name}"}, schema))
        for name, model in schema["components"]["schemas"].items()
        if "properties" in model and name not in ("HTTPValidationError", "ValidationError")
    ]
    return ApiPage(version=schema["info"]["version"], operations=operations, models=models)


def _plain(text: str) -> str:
    return text.replace("`", "")


def _parameter(told: dict[str, Any]) -> ApiField:
    return ApiField(name=told["name"], type=_kind(told["schema"]), required=told.get("required", False))


def _fields(schema: dict[str, Any], whole: dict[str, Any]) -> list[ApiField]:
    if "$ref" not in schema:
        return []
    model = whole["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    required = set(model.get("required", []))
    return [
        ApiField(name=name, type=_kind(field), required=name in required)
        for name, field in model.get("properties", {}).items()
    ]


def _kind(schema: dict[str, Any]) -> str:
    """A schema in a few words: ``list of Example``, ``number or null``, ``index | density | max``."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_kind(option) for option in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        if "prefixItems" in schema:
            return f"[{', '.join(_kind(item) for item in schema['prefixItems'])}]"
        return f"list of {_kind(schema.get('items', {}))}"
    return str(schema.get("type", "any"))
