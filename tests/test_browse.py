"""The feature table: orders against a full sort, filters against a loop over all rows, and exports of both."""

import asyncio
import csv
import gc
import io
import json
import random
import re
import string
import warnings

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event, text

from app.main import create_app
from app.store.engine import database_url, sync_engine
from app.store.migrate import migrate
from app.subject.load import load_vocabulary
from app.web.exports import csv_text
from benchmarks.synthetic import save_synthetic
from tests.conftest import TEXT, database_beside
from tests.counting import counted_queries

N = 300
BASE = f"/saes/synthetic-{N}"
LABELS = [
    "=SUM(A1)",
    "+1",
    "-1",
    "@home",
    "\ttab",
    "\rreturn",
    "Apple",
    "apple",
    "Äpfel",
    'quo"ted, "twice"',
    "",
    "x" * 150,
]
LABELS += ["line\nbreak", "100% _sure_", "\\slash", "🎉"]


@pytest.fixture(scope="module")
def own(settings):
    return database_beside(settings, "browsing")


@pytest.fixture(scope="module")
def database(own, tiny_folder):
    engine = sync_engine(database_url(own))
    migrate(engine)
    save_synthetic(engine, tiny_folder, [document.text for document in TEXT], N, 50)
    draw = random.Random(0)
    edit = text(
        "UPDATE latent SET density = :density, maximum = :high, minimum = :low, label = :label, "
        "label_source = :source, label_score = :score, fired = :fired, first_fired = :first, last_fired = :last, "
        "mean = :low WHERE index = :index"
    )
    with engine.begin() as connection:
        connection.execute(text("UPDATE sae SET signed = 1"))
        for index in range(N):
            density = draw.choice([0.0, 0.001, 0.01, 0.01, draw.random()])
            fired = 0 if not density else draw.randrange(1, 100)
            low = draw.choice([0.0, 0.0, -1.5, -draw.random()]) if density else 0.0
            values = {
                "index": index, "density": density, "fired": fired, "low": low,
                "high": draw.choice([0.0 if low else 1.0, 2.5, 2.5, 9 * draw.random() + 0.1]) if density else 0.0,
                "label": draw.choice(LABELS), "source": draw.choice(["top-tokens", "position", "someone"]),
                "score": draw.choice([None, None, 0.5, 0.75, draw.random()]),
                "first": draw.randrange(fired + 1) if index % 3 else None,
                "last": draw.randrange(fired + 1) if index % 3 else None,
            }  # fmt: skip
            connection.execute(edit, values)
        connection.execute(
            text("UPDATE latent SET token_probability_ids = NULL, token_mean_ids = NULL WHERE index < 9")
        )
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def rows(database):
    with database.connect() as connection:
        return [dict(row._mapping) for row in connection.execute(text("SELECT * FROM latent ORDER BY index"))]


@pytest.fixture(scope="module")
def client(database, own):
    with TestClient(create_app(own)) as client:
        yield client


def walk(client, limit=37, **query):
    """Every row of the table, page by page."""
    cursor, seen = "", []
    while cursor is not None:
        answer = client.get(f"{BASE}/features.json", params={**query, "limit": limit, "cursor": cursor})
        assert answer.status_code == 200, answer.text
        seen += answer.json()["items"]
        cursor = answer.json()["next"]
    return seen


def lower(label):
    """Of the first hundred characters, and of ASCII alone, so that every server sorts the same."""
    return "".join(ch.lower() if ch in string.ascii_uppercase else ch for ch in label[:100]).encode()


KEYS = {
    "index": lambda row: row["index"],
    "density": lambda row: row["density"],
    "max": lambda row: row["maximum"],
    "score": lambda row: row["label_score"],
    "label": lambda row: lower(row["label"]),
}


def sorted_in_python(rows, sort, order):
    key = KEYS[sort]
    scored = [row for row in rows if key(row) is not None]
    rest = [row for row in rows if key(row) is None]
    down = order == "desc"
    scored.sort(key=lambda row: (key(row), row["index"]), reverse=down)
    rest.sort(key=lambda row: row["index"], reverse=down)
    return [row["index"] for row in scored + rest]


@pytest.mark.parametrize("limit", [7, 100])
@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("sort", KEYS)
def test_pages_are_a_full_sort_cut_in_pieces(client, rows, sort, order, limit):
    seen = [item["index"] for item in walk(client, limit, sort=sort, order=order)]
    assert seen == sorted_in_python(rows, sort, order)


def tokens_of(row):
    return {*(row["token_probability_ids"] or []), *(row["token_mean_ids"] or []), *row["promoted_ids"]}


FILTERS = {
    "q": ("APPLE", lambda row: "apple" in row["label"].lower()),
    "source": ("position", lambda row: row["label_source"] == "position"),
    "density_min": ("1%", lambda row: row["density"] >= pytest.approx(0.01) or row["density"] > 0.01),
    "density_max": ("0.01", lambda row: row["density"] < 0.0100001),
    "max_min": ("2.5", lambda row: row["maximum"] >= 2.5),
    "max_max": ("2.5", lambda row: row["maximum"] <= 2.5),
    "score_min": ("0.5", lambda row: row["label_score"] is not None and row["label_score"] >= 0.5),
    "score_max": ("0.5", lambda row: row["label_score"] is not None and row["label_score"] <= 0.5),
    "state": ("dead", lambda row: row["fired"] == 0),
    "on": ("first", lambda row: row["first_fired"] is not None and 2 * row["first_fired"] > row["fired"]),
    "fires": ("both", lambda row: row["minimum"] < 0 < row["maximum"]),
    "index": ("5,17,17, 299", lambda row: row["index"] in (5, 17, 299)),
}
OTHERS = [
    ("q", "%", lambda row: "%" in row["label"]),
    ("q", "\\", lambda row: "\\" in row["label"]),
    ("density_min", "0.01", lambda row: row["density"] > 0.00999999),
    ("state", "alive", lambda row: row["fired"] > 0),
    ("on", "last", lambda row: row["last_fired"] is not None and 2 * row["last_fired"] > row["fired"]),
    ("fires", "positive", lambda row: row["maximum"] > 0 and row["minimum"] >= 0),
    ("fires", "negative", lambda row: row["minimum"] < 0 and row["maximum"] <= 0),
    ("max_min", "1e300", lambda row: False),
    ("density_min", "-1e300", lambda row: True),
]
FILTERS["density_min"] = ("1%", OTHERS[2][2])


@pytest.mark.parametrize(("name", "value", "keeps"), [(n, *pair) for n, pair in FILTERS.items()] + OTHERS)
def test_each_filter_keeps_what_a_loop_keeps(client, rows, name, value, keeps):
    wanted = [row["index"] for row in rows if keeps(row)]
    assert [item["index"] for item in walk(client, **{name: value})] == wanted
    page = client.get(f"{BASE}/features.json", params={name: value, "limit": 1}).json()
    assert (page["found"], page["found_exact"]) == (len(wanted), True)


def test_filters_compose_in_every_order(client, rows):
    draw = random.Random(1)
    for _ in range(40):
        chosen = draw.sample(sorted(FILTERS), draw.choice([2, 3]))
        sort, order = draw.choice(sorted(KEYS)), draw.choice(["asc", "desc"])
        kept = [row for row in rows if all(FILTERS[name][1](row) for name in chosen)]
        seen = walk(client, 11, sort=sort, order=order, **{name: FILTERS[name][0] for name in chosen})
        assert [item["index"] for item in seen] == sorted_in_python(kept, sort, order)


def test_a_token_is_found_with_and_without_its_space_and_said(client, rows, tiny_folder):
    vocabulary = load_vocabulary(tiny_folder)
    common = vocabulary.text(rows[20]["promoted_ids"][0]).strip()
    page = client.get(f"{BASE}/features.json", params={"token": common, "limit": 500}).json()
    meant = {token["token_id"] for token in page["tokens"]}
    assert {token["token"] for token in page["tokens"]} <= {common, f" {common}"}
    assert [item["index"] for item in page["items"]] == [row["index"] for row in rows if tokens_of(row) & meant]
    by = {
        "fires most surely": "token_probability_ids",
        "fires most strongly": "token_mean_ids",
        "promotes": "promoted_ids",
    }
    for item in page["items"]:
        row = rows[item["index"]]
        assert item["matches"] == [name for name, column in by.items() if meant & set(row[column] or [])]
    assert "taken as" in client.get(f"{BASE}/features", params={"token": common}).text
    broken = client.get(f"{BASE}/features", params={"token": "no token reads so"})
    assert broken.status_code == 422
    assert "No token of synthetic reads" in broken.text


def test_a_bar_leads_to_as_many_features_as_it_shows(client, rows):
    shown = client.get(BASE).text
    links = re.findall(r'<a href="([^"]*)" aria-label="([\d,]+) features? of score', shown)
    assert sum(int(count.replace(",", "")) for _, count in links) == sum(row["label_score"] is not None for row in rows)
    for link, count in links:
        query = dict(
            pair.split("=") for pair in link.partition("?")[2].partition("#")[0].replace("&amp;", "&").split("&")
        )
        assert len(walk(client, **query)) == int(count)
    chosen = client.get(f"{BASE}/features?{link.partition('?')[2].replace('&amp;', '&')}").text
    assert chosen.count('aria-current="true"') == 1


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ("density_min=abc", 422, "density_min is 'abc', which is no number"),
        ("max_min=nan", 422, "no number"),
        ("score_max=1_0", 422, "no number"),
        ("density_min=0.5&density_max=0.1", 422, "from 0.5 to 0.1 holds nothing"),
        ("state=odd", 422, "one of alive, dead"),
        ("fires=x", 422, "one of positive, negative, both"),
        ("on=middle", 422, "one of first, last"),
        ("index=1,x", 404, "'x' is no feature number"),
        ("index=300", 404, "its features are 0 to 299"),
        ("index=" + ",".join(["1"] * 1001), 422, "at most 1,000"),
        ("q=" + "a" * 101, 422, "longer than 100"),
        ("token=%00", 422, "holds a character"),
        ("sort=age", 422, "sort does not fit"),
        ("cursor=junk", 422, "does not belong to this table's order"),
    ],
)
def test_what_does_not_fit_is_one_sentence_beside_the_form(client, query, status, says):
    for path in (BASE, f"{BASE}/features"):
        page = client.get(f"{path}?{query}")
        assert page.status_code == status
        assert says in page.text.replace("&#39;", "'")
        if not query.startswith(("sort", "cursor")):
            assert 'id="filters"' in page.text
        part = client.get(f"{BASE}/features?{query}", headers={"hx-request": "true"})
        assert (part.status_code, "<html" in part.text) == (status, False)
    for ending in ("json", "csv", "parquet"):
        if ending == "json" or not query.startswith("cursor"):
            assert client.get(f"{BASE}/features.{ending}?{query}").status_code == status


def test_cursors_of_other_orders_are_refused(client):
    made = client.get(f"{BASE}/features.json", params={"sort": "label", "limit": 3}).json()["next"]
    for other in ({"sort": "score"}, {"sort": "label", "order": "desc"}, {"sort": "index"}):
        assert client.get(f"{BASE}/features.json", params={**other, "cursor": made}).status_code == 422
    import base64

    for key in ("\0", "\ud800", 3, None, [1]):
        raw = base64.urlsafe_b64encode(json.dumps(["label", False, key, 5]).encode()).decode()
        assert client.get(f"{BASE}/features.json", params={"sort": "label", "cursor": raw}).status_code == 422


def test_a_form_without_script_comes_to_a_tidy_address(client):
    answer = client.get(f"{BASE}/features?q=&density_min=0.01&source=&index=4&index=2", follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["location"] == f"{BASE}/features?density_min=0.01&index=4%2C2"
    shown = client.get(answer.headers["location"]).text
    assert 'value="4,2"' in shown


def test_a_fragment_says_which_address_it_makes(client):
    ask = {"hx-request": "true", "hx-current-url": f"http://testserver{BASE}?q=x"}
    part = client.get(f"{BASE}/features?sort=max&order=asc&q=", headers=ask)
    assert part.headers["hx-push-url"] == f"{BASE}?sort=max&order=asc"
    ask["hx-current-url"] = f"http://testserver{BASE}/features"
    part = client.get(f"{BASE}/features?sort=max&order=asc&q=", headers=ask)
    assert part.headers["hx-push-url"] == f"{BASE}/features?sort=max&order=asc"


@pytest.mark.parametrize(
    "query", [{}, {"sort": "score", "q": "a"}, {"sort": "label", "on": "first"}, {"density_min": "0.1"}]
)
def test_a_page_asks_at_most_six_queries(client, query):
    for path in (BASE, f"{BASE}/features", f"{BASE}/features.json"):
        with counted_queries(client) as statements:
            client.get(path, params=query)
        assert len(statements) <= 6


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("sort", KEYS)
def test_every_order_is_read_off_an_index(client, database, sort, order):
    asked = []
    engine = client.app.state.saescope.database.sync_engine

    def note(connection, cursor, statement, parameters, *rest):
        asked.append((statement, parameters))

    first = client.get(f"{BASE}/features.json", params={"sort": sort, "order": order, "limit": 20}).json()["next"]
    event.listen(engine, "before_cursor_execute", note)
    client.get(f"{BASE}/features.json", params={"sort": sort, "order": order, "limit": 20, "cursor": first})
    event.remove(engine, "before_cursor_execute", note)
    statement, parameters = next(pair for pair in asked if "ORDER BY" in pair[0] and "latent.label" in pair[0])
    with database.connect() as connection:
        connection.exec_driver_sql("SET enable_seqscan = off")
        connection.exec_driver_sql("SET enable_bitmapscan = off")
        plan = "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {statement}", parameters))
    assert "Sort" not in plan
    assert "Index Scan" in plan


def test_csv_holds_every_row_and_no_formula(client, rows, tiny_folder):
    vocabulary = load_vocabulary(tiny_folder)
    answer = client.get(f"{BASE}/features.csv", params={"sort": "label"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert re.fullmatch(
        rf'attachment; filename="synthetic-{N}@\w{{10}}-features.csv"', answer.headers["content-disposition"]
    )
    read = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert [int(line["index"]) for line in read] == sorted_in_python(rows, "label", "asc")
    for line in read:
        row = rows[int(line["index"])]
        risky = row["label"][:1] in ("=", "+", "-", "@", "\t", "\r") and row["label"]
        assert line["label"] == ("'" + row["label"] if risky else row["label"])
        assert float(line["mean"]) == row["mean"]
        assert line["label_score"] == ("" if row["label_score"] is None else str(row["label_score"]))
        assert line["first_fired"] == ("" if row["first_fired"] is None else str(row["first_fired"]))
        assert json.loads(line["promoted"]) == [vocabulary.text(i) for i in row["promoted_ids"]]
        assert (line["tokens_by_mean"] == "") == (row["token_mean_ids"] is None)
    assert any(line["mean"].startswith("-") for line in read)


def test_parquet_holds_the_same_with_where_it_comes_from(client, rows):
    query = {"state": "alive", "sort": "score", "order": "desc"}
    answer = client.get(f"{BASE}/features.parquet", params=query)
    assert answer.headers["content-type"] == "application/vnd.apache.parquet"
    table = pq.read_table(io.BytesIO(answer.content))
    wanted = sorted_in_python([row for row in rows if row["fired"]], "score", "desc")
    assert table["index"].to_pylist() == wanted
    for name, column in (("label", "label"), ("max", "maximum"), ("label_score", "label_score"), ("fired", "fired")):
        held = pa.array([rows[index][column] for index in wanted], table[name].type)
        assert table[name].to_pylist() == held.to_pylist()
    about = table.schema.metadata
    assert about[b"sae"] == f"synthetic-{N}".encode()
    assert json.loads(about[b"filters"]) == {"state": "alive", "sort": "score", "order": "desc"}
    none = pq.read_table(io.BytesIO(client.get(f"{BASE}/features.parquet?q=nothing+is+called+so").content))
    assert none.num_rows == 0
    assert none.column_names == table.column_names


def test_exports_come_from_a_cursor_some_rows_at_a_time(client, monkeypatch):
    from app.store import browse

    sizes = []

    def noted(some, texts):
        sizes.append(len(some))
        return csv_text(some, texts)

    monkeypatch.setattr(browse, "CHUNK", 40)
    monkeypatch.setattr("app.web.exports.csv_text", noted)
    with counted_queries(client) as statements:
        assert client.get(f"{BASE}/features.csv").status_code == 200
    assert sizes == [40] * 7 + [20]
    assert len(statements) == 2


def test_who_leaves_an_export_midway_leaves_no_cursor_open(client, monkeypatch):
    from app.store import browse

    monkeypatch.setattr(browse, "CHUNK", 40)
    sent = []

    async def leave():
        asked, gone = iter([{"type": "http.request", "body": b"", "more_body": False}]), asyncio.Event()

        async def receive():
            for message in asked:
                return message
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)
            if len(sent) == 4:  # the head, the columns, two parts
                gone.set()
                await asyncio.sleep(60)

        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET",
            "path": f"{BASE}/features.csv", "raw_path": f"{BASE}/features.csv".encode(), "query_string": b"",
            "root_path": "", "scheme": "http", "headers": [(b"host", b"testserver")], "client": ("testclient", 5),
            "server": ("testserver", 80),
        }  # fmt: skip
        await client.app(scope, receive, send)
        gc.collect()
        await asyncio.sleep(0.2)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        client.portal.call(leave)
        gc.collect()
    assert len(sent) == 4
    assert [str(one.message) for one in told if issubclass(one.category, ResourceWarning)] == []
    assert client.app.state.saescope.exports._value == 4  # its turn is given back


def test_a_fifth_export_at_once_is_refused(client, monkeypatch):
    none_left = asyncio.Semaphore(0)
    monkeypatch.setattr(client.app.state.saescope, "exports", none_left)
    for ending in ("csv", "parquet"):
        told = client.get(f"{BASE}/features.{ending}")
        assert told.status_code == 503
        assert "Too many exports" in told.text


def test_the_search_box_finds_labels(client):
    found = client.get("/search.json?q=apple").json()["result"]
    wanted = {row["index"] for row in walk(client, q="apple")}
    assert wanted
    assert {hit["index"] for hit in client.get("/search.json?q=apple&top=100").json()["result"]["items"]} == wanted
    assert found["found"] == len(wanted)
    assert client.get("/search?q=a&sae=nothing").status_code == 404


def test_an_unsigned_sae_has_no_negative_features(client, database):
    with database.begin() as connection:
        connection.execute(text("UPDATE sae SET signed = 0"))
    try:
        assert client.get(f"{BASE}/features.json?fires=both").json()["items"] == []
    finally:
        with database.begin() as connection:
            connection.execute(text("UPDATE sae SET signed = 1"))
