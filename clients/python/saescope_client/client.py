"""Asking a server."""

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import quote

import httpx2

from saescope_client.errors import Refused, Unreachable
from saescope_client.shapes import SAE, Example, Feature, FeatureRow, Hit

Json = dict[str, Any]


class Client:
    """A saescope server at ``url``. Use it as a context manager, or ``close`` it.

    ``sae`` is a slug, or ``slug@revision``. Every method may raise Refused or Unreachable.
    """

    def __init__(self, url: str = "http://127.0.0.1:8000", *, token: str | None = None, timeout: float = 300.0) -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._http = httpx2.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **query: Any) -> Json:
        """Any address of the API; what is None or empty is left out of the query."""
        given = {name: value for name, value in query.items() if value not in (None, "", [], ())}
        return self._ask("GET", path, params=given)

    def post(self, path: str, body: Json) -> Json:
        """Any address of the API that takes a body; what is None is left out of it."""
        return self._ask("POST", path, json={name: value for name, value in body.items() if value is not None})

    def _ask(self, method: str, path: str, **options: Any) -> Json:
        try:
            answer = self._http.request(method, path, **options)
        except httpx2.TransportError as error:
            raise Unreachable(f"{self._http.base_url} does not answer: {error}") from None
        try:
            told = answer.json()
        except ValueError:
            told = None
        if answer.is_success and isinstance(told, dict):
            return told
        if not isinstance(told, dict) or "code" not in told:
            told = {"code": "no_json", "message": f"{path} is not answered with JSON.", "detail": {}}
        wait = answer.headers.get("retry-after", "")
        raise Refused(
            answer.status_code, told["code"], told["message"], told["detail"], float(wait) if wait.isdigit() else None
        )

    def saes(self) -> list[SAE]:
        """Every SAE, newest revisions."""
        return cast(list[SAE], self.get("/saes.json")["items"])

    def sae(self, sae: str) -> Json:
        """An SAE with its quality, harvest and revisions."""
        return self.get(f"/saes/{_part(sae)}.json")

    def features(self, sae: str, **filters: Any) -> Iterator[FeatureRow]:
        """Every row of the feature table, page after page. ``filters`` are those of the table's address: ``q``,
        ``state``, ``density_min``, ``sort``, ``order`` and so on."""
        return cast(Iterator[FeatureRow], self._pages(f"/saes/{_part(sae)}/features.json", filters))

    def feature(self, sae: str, index: int, *, text: str | None = None) -> Feature:
        """A feature with its examples; with ``text``, under ``test`` also its activations on that."""
        return cast(Feature, self.get(f"/saes/{_part(sae)}/features/{index}.json", text=text))

    def examples(self, sae: str, index: int, *, interval: str | None = None) -> list[Example]:
        """A feature's contexts, top ones first; ``interval`` top, 0 to 9, random or near."""
        found = self.feature(sae, index)["examples"]
        return [one for one in found if interval in (None, one["interval"])]

    def search(self, words: str, *, most: int | None = None, **filters: Any) -> Iterator[Hit]:
        """Features of every SAE by what they mean, best first; ``filters`` are those of /search: ``mode``, ``sae``,
        ``layer``, ``density_max`` and so on."""
        after = given = 0
        while True:
            found = self.get("/search.json", q=words, after=after, **filters)
            result = found["result"]
            if result is None:
                error = found.get("error") or "The search is refused."
                raise Refused(found.get("status") or 422, "bad_request", str(error), {}, None)
            for hit in result["items"]:
                if most is not None and given >= most:
                    return
                given += 1
                yield hit
            after += len(result["items"])
            if not result["more"] or not result["items"]:
                return

    def inspect(
        self, text: str, *, sae: str | Sequence[str] | None = None, top: int | None = None, **more: Any
    ) -> Json:
        """Which features fire on ``text``, and where; ``more`` as POST /api/inspect takes it."""
        return self.post("/api/inspect", {"text": text, "sae": _listed(sae), "top": top, **more})

    def generate(self, text: str, edits: Sequence[Json], *, max_new: int = 20, **more: Any) -> Json:
        """How the text goes on with ``edits`` and without; an edit is ``{"feature": "SLUG/3", "kind": "add",
        "strength": 1}``."""
        return self.post("/api/generate", {"text": text, "edits": list(edits), "max_new": max_new, **more})

    def effect(self, text: str, edits: Sequence[Json], **more: Any) -> Json:
        """What ``edits`` change of the next token."""
        return self.post("/api/effect", {"text": text, "edits": list(edits), **more})

    def attribute(self, text: str, *, sae: str | None = None, token: str | None = None, **more: Any) -> Json:
        """How much each feature adds to the logit of ``token`` (by default of the likeliest) as the next one."""
        return self.post("/api/attribute", {"text": text, "sae": sae, "token": token, **more})

    def lists(self, **filters: Any) -> Iterator[Json]:
        """Every list; ``filters`` are ``q`` and ``tag``."""
        return self._pages("/lists.json", filters)

    def read_list(self, name: str) -> Json:
        """A list with all of its items."""
        first = self.get(f"/lists/{_part(name)}.json")
        cursor = first["next"]
        while cursor:
            page = self.get(f"/lists/{_part(name)}.json", cursor=cursor)
            first["items"] += page["items"]
            cursor = page["next"]
        return first | {"next": None}

    def make_list(self, title: str, items: Sequence[Json] = (), **more: Any) -> Json:
        """A new list; an item is ``{"kind": "feature", "sae": SLUG, "index": 3}``, for one."""
        return self.post("/api/lists", {"title": title, "items": [*items], **more})

    def add_to_list(self, name: str, items: Sequence[Json]) -> Json:
        return self.post(f"/api/lists/{_part(name)}/items", {"items": [*items]})

    def remove_list(self, name: str) -> Json:
        return self.post(f"/api/lists/{_part(name)}/delete", {})

    def _pages(self, path: str, query: Json) -> Iterator[Json]:
        cursor = None
        while True:
            page = self.get(path, **query, cursor=cursor)
            yield from page["items"]
            cursor = page["next"]
            if not cursor:
                return


def _part(name: str) -> str:
    return quote(name, safe="@")


def _listed(sae: str | Sequence[str] | None) -> list[str] | None:
    return None if sae is None else [sae] if isinstance(sae, str) else [*sae]
