"""What people with bad intentions type: SQL in filters, paths that climb, line ends in headers, markup."""

import pytest
from sqlalchemy import text

from tests.conftest import SLUG

SQL = ("'; DROP TABLE latent; --", "' OR '1'='1", "x' UNION SELECT password FROM account --", "%' OR 1=1 --",
       "\\'; SELECT 1", "1; SELECT pg_sleep(9)", "$$;$$", "{{7*7}}", "%s %(x)s :x")  # fmt: skip
CLIMBING = ("../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "....//....//etc/passwd", "%00",
            "..\\..\\etc\\passwd", "/etc/passwd", "js/../../pyproject.toml", "%2e%2e%5cpyproject.toml")  # fmt: skip


@pytest.fixture(scope="module")
def rows(client, engine):
    """How many rows the tables have that somebody would go for."""

    def counted():
        with engine.connect() as connection:
            names = ("latent", "sae", "list", "note", "account", "inspection")
            return {name: connection.execute(text(f"SELECT count(*) FROM {name}")).scalar() for name in names}

    return counted


@pytest.mark.parametrize("typed", SQL)
def test_sql_in_a_filter_is_text(client, rows, typed):
    before = rows()
    everything = client.get(f"/saes/{SLUG}/features.json").json()["found"]
    for name in ("q", "source", "token", "density_min", "density_max", "max_min", "score_min", "fires", "state", "on",
                 "sort", "order", "cursor", "index"):  # fmt: skip
        answer = client.get(f"/saes/{SLUG}/features.json", params={name: typed})
        assert answer.status_code in (200, 404, 422), (name, answer.text)
        if answer.status_code == 200:
            assert answer.json()["found"] in (0, everything) if name == "index" else answer.json()["found"] == 0, name
    for path, name in (("/lists.json", "q"), ("/lists.json", "tag"), ("/lists.json", "cursor"), ("/search.json", "q"),
                       ("/harvests.json", "cursor"), ("/compare.json", "a"), ("/search.json", "sae")):  # fmt: skip
        answer = client.get(path, params={name: typed})
        assert answer.status_code in (200, 404, 422), (path, name, answer.text)
        assert "pg_sleep" not in answer.text.replace(typed, "") or "pg_sleep" in typed
        assert "syntax error" not in answer.text
    for path in (
        "/saes/{}.json",
        "/saes/{}/features/3.json",
        "/lists/{}.json",
        "/inspect/{}.json",
        "/harvests/{}.json",
    ):
        assert client.get(path.format(typed.replace("/", ""))).status_code == 404, path
    assert rows() == before


@pytest.mark.parametrize("path", CLIMBING)
def test_no_path_leads_out_of_the_folder_of_static_files(client, path):
    for base in ("/static/", "/static/js/", "/"):
        answer = client.get(base + path)
        assert answer.status_code in (404, 307, 308), base + path
        assert "root:" not in answer.text
        assert "[project]" not in answer.text


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r", "%0d%0a"])
def test_line_ends_make_no_header(client, end):
    evil = f"x{end}Set-Cookie: evil=1{end}{end}<script>"
    answers = [
        client.get(f"/saes/{SLUG}/jump", params={"index": evil}, follow_redirects=False),
        client.get("/search", params={"q": evil, "sae": ""}, follow_redirects=False),
        client.get("/healthz", headers={"x-request-id": "x%0d%0aSet-Cookie: evil=1"}),
        client.post("/lists", data={"title": evil}, follow_redirects=False),
        client.get("/compare", params={"a": evil}, follow_redirects=False),
    ]
    made = answers[3].headers["location"]
    answers += [client.get(f"{made}/export.csv"), client.get(f"{made}/link", follow_redirects=False), client.get(made)]
    for answer in answers:
        assert "set-cookie" not in answer.headers
        assert all("evil=1" not in name + value for name, value in answer.headers.items() if name != "location")
        assert "\n" not in answer.headers.get("location", "")
    assert "<script>" not in answers[-1].text.split("<main")[1]
    client.post(f"{made}/delete")
