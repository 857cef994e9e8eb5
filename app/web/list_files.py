"""Lists as files: JSON, which is what POST /api/lists takes, and CSV, a line an item."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from app.errors import BadRequest, TooLarge
from app.store.lists import MOST_ITEMS, ItemRecord, ListRecord
from app.store.references import parse
from app.web.exports import FORMULA
from app.web.list_contexts import ItemBody, ListBody
from app.web.list_items import FIELDS, fields

COLUMNS = ("kind", *FIELDS, "label", "comment", "tags")
_TEXTS = ("label", "comment", "tags")


def as_body(record: ListRecord, items: Sequence[ItemRecord]) -> dict[str, Any]:
    """The list as POST /api/lists takes it."""
    about = {"title": record.title, "description": record.description, "tags": record.tags, "author": record.author}
    about |= {"visibility": record.visibility}
    return about | {"items": [_item(one) for one in items]}


def _item(one: ItemRecord) -> dict[str, Any]:
    return {**fields(parse(one.reference)), "label": one.label, "comment": one.comment, "tags": one.tags}


def as_json(record: ListRecord, items: Sequence[ItemRecord]) -> str:
    return json.dumps(as_body(record, items), ensure_ascii=False, indent=1) + "\n"


def as_csv(items: Sequence[ItemRecord]) -> str:
    """A line an item. Text that a spreadsheet would take for a formula gets a leading apostrophe."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS)
    writer.writeheader()
    for one in items:
        row = _item(one) | {"tags": ", ".join(one.tags)}
        writer.writerow({name: _guarded(value) if name in _TEXTS else value for name, value in row.items()})
    return out.getvalue()


def _guarded(text: str) -> str:
    return f"'{text}" if text.lstrip("'").startswith(FORMULA) else text


def _unguarded(text: str) -> str:
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(FORMULA) else text


def read(data: bytes | str, title: str = "") -> tuple[ListBody, list[str]]:
    """A file of either kind as a list, and where in it each item stands; ``title`` takes the place of the file's own,
    and a CSV needs one.

    Raises:
        BadRequest: it is no such file; names line and value. TooLarge: it has too many items.
    """
    try:
        text = data if isinstance(data, str) else data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1 if isinstance(data, bytes) else 1
        raise BadRequest(f"Line {line} is not UTF-8; save the file as UTF-8.", line=line) from None
    text = text.removeprefix("\ufeff")
    if not text.strip():
        raise BadRequest("The file is empty; give a list that was exported as JSON or CSV.")
    return _read_json(text, title) if text.lstrip().startswith(("{", "[")) else _read_csv(text, title)


def _read_json(text: str, title: str) -> tuple[ListBody, list[str]]:
    try:
        given = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadRequest(f"Line {error.lineno} is no JSON: {error.msg.lower()}.", line=error.lineno) from None
    except (RecursionError, ValueError):
        raise BadRequest(
            "The file is no JSON that can be read: it is nested too deeply, or a number is too long."
        ) from None
    if isinstance(given, list):
        given = {"items": given}
    if title:
        given["title"] = title
    if isinstance(given.get("items"), list) and len(given["items"]) > MOST_ITEMS:
        raise _too_many(len(given["items"]))
    try:
        body = ListBody.model_validate(given)
    except ValidationError as error:
        raise BadRequest(_told(error), field=_place(error)) from None
    return body, [f"Item {number}" for number in range(1, len(body.items) + 1)]


def _place(error: ValidationError) -> str:
    first = error.errors()[0]["loc"]
    if first[:1] == ("items",) and len(first) > 1:
        return f"item {int(first[1]) + 1}" + "".join(f", {part}" for part in first[2:3])
    return str(first[0]) if first else "the file"


def _told(error: ValidationError) -> str:
    first = error.errors()[0]
    place = _place(error)
    value = f" {str(first['input'])[:60]!r}" if isinstance(first["input"], str | int | float) else ""
    if first["type"] == "extra_forbidden":
        return f"{place[0].upper()}{place[1:]} is nothing a list has; see docs/lists.md."
    return f"{place[0].upper()}{place[1:]}:{value} does not fit: {first['msg'].lower()}."


def _read_csv(text: str, title: str) -> tuple[ListBody, list[str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, restkey="")
    items, places = [], []
    try:
        names = [name.strip() for name in reader.fieldnames or []]
        if "kind" not in names:
            raise BadRequest(f"Line 1: a column 'kind' is missing; the columns are {', '.join(COLUMNS)}.", line=1)
        for name in names:
            if name not in COLUMNS or names.count(name) > 1:
                told = "stands there twice" if name in COLUMNS else "is no column of a list"
                raise BadRequest(f"Line 1: {name[:60]!r} {told}; they are {', '.join(COLUMNS)}.", line=1)
        reader.fieldnames = names
        for row in reader:
            place = f"Line {reader.line_num}"
            if "" in row:
                raise BadRequest(f"{place}: there are more values than columns.", line=reader.line_num)
            items.append(_line(row, place))
            places.append(place)
            if len(items) > MOST_ITEMS:
                raise _too_many(len(items))
    except csv.Error as error:
        raise BadRequest(f"Line {reader.line_num} is no CSV: {error}.", line=reader.line_num) from None
    if not title:
        raise BadRequest("A CSV file does not say what its list is called; give a title.", field="title")
    try:
        return ListBody(title=title, items=items), places
    except ValidationError as error:
        raise BadRequest(_told(error), field=_place(error)) from None


def _line(row: dict[str, str | None], place: str) -> ItemBody:
    given = {name: value for name, value in row.items() if value}
    given |= {name: _unguarded(given[name]) for name in _TEXTS if name in given}
    try:
        return ItemBody.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "it"
        value = f" {str(given[name])[:60]!r}" if name in given else ""
        raise BadRequest(f"{place}: {name}{value} does not fit: {first['msg'].lower()}.", field=name) from None


def _too_many(count: int) -> TooLarge:
    return TooLarge(f"A list holds at most {MOST_ITEMS:,} items; the file has {count:,} or more.", most=MOST_ITEMS)
