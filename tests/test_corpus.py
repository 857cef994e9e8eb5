"""Corpora: what each spec yields, what is skipped and told, what is refused, chats, and the hub's data sets."""

import gzip
import hashlib
import http.server
import io
import json
import os
import socket
import subprocess
import sys
import threading
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.corpus.chat import as_chat, rendered
from app.corpus.document import Columns
from app.corpus.sources import Document, Skipped, documents
from app.errors import BadRequest, CorpusUnavailable

CHAT = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day"}]


def read(spec, tmp_path, skipped=None):
    return list(documents(spec, tmp_path / "packages", skipped))


def refusal(spec, tmp_path):
    with pytest.raises(CorpusUnavailable) as caught:
        read(spec, tmp_path)
    assert caught.value.message.endswith(".")
    assert "\n" not in caught.value.message
    return caught.value.message


def lines(path, *rows):
    """JSON lines; a row of bytes goes in as it is."""
    path.write_bytes(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))
    return path


def table(path, row_group_size=None, **columns):
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size, compression="none")
    return path


def test_skipped_documents_are_counted_and_the_first_twenty_named():
    skipped = Skipped()
    assert skipped.sentence() == ""
    skipped.add("a.txt", "not UTF-8")
    assert skipped.sentence() == "1 document was skipped: a.txt (not UTF-8)"
    skipped.add("b\x1b[2J\ud800.txt", "gone")
    assert skipped.sentence() == "2 documents were skipped: a.txt (not UTF-8), b�[2J�.txt (gone)"
    for number in range(30):
        skipped.add(f"{number}", "gone", 100)
    assert skipped.count == 3002
    assert len(skipped.named) == 20
    assert skipped.sentence().startswith("3,002 documents were skipped: a.txt")
    assert skipped.sentence().endswith("17 (gone) and others")


def test_text_of_a_folder_comes_in_order_and_what_is_no_text_is_skipped(tmp_path):
    folder = tmp_path / "texts"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.txt").write_text("two")
    (folder / "a.txt").write_text("one")
    (folder / "c.txt").write_text("three")
    (folder / "sub" / "picture.png").write_bytes(b"\x89PNG\xff")
    (folder / "sub" / "table.csv").write_text("a,b")
    skipped = Skipped()
    reading = documents(f"text:{folder}", tmp_path, skipped)
    assert next(reading) == Document("a.txt", "one")
    (folder / "b.txt").unlink()  # between the listing and the reading
    assert list(reading) == [Document("c.txt", "three"), Document("table.csv", "a,b")]  # whatever the suffix
    assert skipped.named == [("b.txt", "gone"), ("sub/picture.png", "not UTF-8")]


def test_one_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    assert "latin.txt is not UTF-8 text: unexpected end of data" in refusal(f"text:{tmp_path / 'latin.txt'}", tmp_path)


def test_where_everything_was_skipped_the_first_reason_is_told(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"\xff")
    (folder / "b.bin").write_bytes(b"\xff")
    skipped = Skipped(count=5)  # of another corpus
    with pytest.raises(CorpusUnavailable, match=r"None of the 2 documents .* the first is a\.bin \(not UTF-8\)\."):
        read(f"text:{folder}", tmp_path, skipped)
    assert skipped.count == 7
    one = lines(tmp_path / "one.jsonl", {"text": None})
    assert refusal(f"jsonl:{one}", tmp_path) == (
        f"The only document of jsonl:{one} cannot be read: one.jsonl:1 (no text)."
    )


def test_lines_are_named_by_id_or_number(tmp_path):
    path = lines(
        tmp_path / "a.jsonl", b'\xef\xbb\xbf{"text": "one"}\r', b"", {"id": "x", "text": "two"}, {"id": 7, "text": "3"}
    )
    wanted = [Document("1", "one"), Document("x", "two"), Document("7", "3")]
    assert read(f"jsonl:{path}", tmp_path) == wanted
    packed = tmp_path / "a.json.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read(f"jsonl:{packed}", tmp_path) == wanted


def test_lines_that_are_no_document_are_skipped(tmp_path):
    bad = {
        b"{broken": "not a JSON object",
        b"[1, 2]": "not a JSON object",
        b'{"text": "caf\xe9"}': "not UTF-8",
        b'{"text": null}': "no text",
        b'{"body": "x"}': "no text",
        b'{"text": 3}': "its text is of type int",
        b'{"text": "\\ud800"}': "half of a surrogate pair",
        b'{"text": "x", "id": "\\u0000"}': "a NUL in its name",
        b"[" * 100_000: "not a JSON object",
        b'{"messages": []}': "no messages",
        b'{"messages": {"role": "user", "content": "x"}}': "its messages are not a list",
        b'{"messages": [{"role": "user", "content": null}]}': "a message without a role and a content that are text",
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}': "half of a surrogate pair",
        b'{"messages": ["Hello"]}': "a message without a role and a content that are text",
    }
    path = lines(tmp_path / "a.jsonl", {"text": "good"}, *bad, {"text": "good"})
    skipped = Skipped()
    assert [d.name for d in read(f"jsonl:{path}", tmp_path, skipped)] == ["1", str(len(bad) + 2)]
    assert skipped.named == [(f"a.jsonl:{number}", reason) for number, reason in enumerate(bad.values(), 2)]


def test_a_folder_of_lines_is_read_file_by_file(tmp_path):
    folder = tmp_path / "lines"
    folder.mkdir()
    lines(folder / "1.jsonl", {"text": "one"}, {"text": "two"})
    lines(folder / "2.jsonl", {"text": "gone"})
    whole = gzip.compress(b'{"text": "three"}\n' + os.urandom(40_000).hex().encode())
    (folder / "3.jsonl.gz").write_bytes(whole[:20_000])  # a download that was cut
    (folder / "4.json.gz").write_bytes(b"no gzip")
    (folder / "README.md").write_text("no lines")
    skipped = Skipped()
    reading = documents(f"jsonl:{folder}", tmp_path, skipped)
    assert next(reading) == Document("1.jsonl:1", "one")
    (folder / "2.jsonl").unlink()
    assert list(reading) == [Document("1.jsonl:2", "two"), Document("3.jsonl.gz:1", "three")]
    assert skipped.named == [("2.jsonl", "gone"), ("3.jsonl.gz:2", "damaged"), ("4.json.gz", "damaged")]


def test_the_first_object_says_at_once_that_a_column_is_missing(tmp_path):
    path = lines(tmp_path / "a.jsonl", b"broken", {"body": "x", "url": "y"}, {"text": "good"})
    assert "Line 2 of" in refusal(f"jsonl:{path}", tmp_path)
    assert "has no column 'text' or 'messages'; it has: body, url." in refusal(f"jsonl:{path}", tmp_path)
    assert "has no column 'title'; it has: body, url." in refusal(f"jsonl:{path}#text=body,id=title", tmp_path)
    assert read(f"jsonl:{path}#text=body,id=url", tmp_path) == [Document("y", "x")]


def test_parquet_is_named_by_id_or_row(tmp_path):
    path = table(tmp_path / "a.parquet", 2, text=["one", "two", "three", None, "five"])
    skipped = Skipped()
    read_back = read(f"parquet:{path}", tmp_path, skipped)
    assert read_back == [Document(f"a.parquet:{n}", t) for n, t in [(1, "one"), (2, "two"), (3, "three"), (5, "five")]]
    assert skipped.named == [("a.parquet:4", "no text")]
    path = table(tmp_path / "b.parquet", content=pa.array(["x", "y"]).dictionary_encode(), id=[7, None], url=["u", "v"])
    assert read(f"parquet:{path}#text=content", tmp_path) == [Document("7", "x"), Document("b.parquet:2", "y")]
    assert read(f"parquet:{path}#text=content,id=url", tmp_path) == [Document("u", "x"), Document("v", "y")]


def test_a_string_that_is_not_utf8_is_skipped(tmp_path):
    broken = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\1\0\0\0\3\0\0\0"), pa.py_buffer(b"\xffok"))
    skipped = Skipped()
    path = table(tmp_path / "a.parquet", text=broken)
    assert read(f"parquet:{path}", tmp_path, skipped) == [Document("a.parquet:2", "ok")]
    assert skipped.named == [("a.parquet:1", "not UTF-8")]


def test_a_missing_column_is_refused_before_the_first_row(tmp_path):
    folder = tmp_path / "tables"
    table(folder / "1.parquet", text=["one"])
    table(folder / "2.parquet", body=["two"], url=["u"])
    reading = documents(f"parquet:{folder}", tmp_path)
    with pytest.raises(CorpusUnavailable, match=r"2\.parquet has no column 'text' or 'messages'; it has: body, url\."):
        next(reading)
    spec = f"parquet:{folder / '1.parquet'}#messages=chat"
    assert "has no column 'chat'; it has: text." in refusal(spec, tmp_path)


def test_a_folder_of_parquet_passes_over_files_that_are_gone_or_damaged(tmp_path):
    folder = tmp_path / "tables"
    for name in "1234":
        table(folder / f"{name}.parquet", text=[name])
    (folder / "2.parquet").write_bytes(b"PAR1 and no more")
    skipped = Skipped()
    reading = documents(f"parquet:{folder}", tmp_path, skipped)
    assert next(reading) == Document("1.parquet:1", "1")
    (folder / "3.parquet").unlink()
    assert list(reading) == [Document("4.parquet:1", "4")]
    assert skipped.named == [("2.parquet", "no whole parquet file"), ("3.parquet", "gone")]


def test_a_damaged_row_group_costs_its_own_rows_only(tmp_path):
    path = table(tmp_path / "a.parquet", 10, text=[f"text {n}" for n in range(30)])
    column = pq.read_metadata(path).row_group(1).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 20] = b"\xff" * 20
    path.write_bytes(data)
    skipped = Skipped()
    names = [d.name for d in read(f"parquet:{path}", tmp_path, skipped)]
    assert names == [f"a.parquet:{n}" for n in (*range(1, 11), *range(21, 31))]
    assert (skipped.count, skipped.named) == (10, [("a.parquet:11", "damaged")])


def test_parquet_is_read_by_small_batches_of_the_columns_wanted(tmp_path, monkeypatch):
    read_so_far = []
    iter_batches = pq.ParquetFile.iter_batches

    def counted(self, *args, **kwargs):
        for batch in iter_batches(self, *args, **kwargs):
            read_so_far.append((batch.num_rows, batch.schema.names))
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    texts = [f"text {n}" for n in range(2000)]
    path = table(tmp_path / "a.parquet", 500, text=texts, heavy=texts)
    reading = documents(f"parquet:{path}", tmp_path)
    for after, batches in {1: 1, 63: 1, 1000 - 64: 16}.items():
        list(islice(reading, after))
        assert len(read_so_far) == batches
    assert {rows for rows, _ in read_so_far} == {64, 500 - 7 * 64}
    assert all(names == ["text"] for _, names in read_so_far)


@given(st.lists(st.tuples(st.text(min_size=1), st.text()), min_size=1, max_size=5))
def test_every_kind_of_file_gives_the_same_documents(tmp_path_factory, pairs):
    folder = tmp_path_factory.mktemp("same")
    pairs = [(name.replace("\0", "-"), text) for name, text in pairs]
    ids, texts = zip(*pairs, strict=True)
    path = lines(folder / "a.jsonl", *({"id": name, "text": text} for name, text in pairs))
    wanted = [Document(*pair) for pair in pairs]
    assert read(f"jsonl:{path}", folder) == wanted
    assert read(f"parquet:{table(folder / 'a.parquet', id=ids, text=texts)}", folder) == wanted


def test_chats_are_read_from_lines_and_tables(tmp_path):
    wanted = [Document("c", "", tuple(CHAT))]
    extended = [message | {"weight": 1} for message in CHAT]
    path = lines(tmp_path / "a.jsonl", {"id": "c", "messages": extended})
    assert read(f"jsonl:{path}", tmp_path) == wanted
    path = table(tmp_path / "a.parquet", id=["c"], messages=[extended])
    assert read(f"parquet:{path}", tmp_path) == wanted
    path = table(tmp_path / "b.parquet", id=["c"], text=["plain"], talk=[CHAT])
    assert read(f"parquet:{path}", tmp_path) == [Document("c", "plain")]
    assert read(f"parquet:{path}#messages=talk", tmp_path) == wanted


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("jsonl:x#txt=a", "Option 'txt' of jsonl:x is not known; options are KEY=VALUE of text, messages, id."),
        ("parquet:x#split=a", "Option 'split' of parquet:x is not known"),
        ("hf:a/b#text=c,name=x", "of text, messages, id, config, split, revision."),
        ("jsonl:x#text=a,text=b", "is given twice"),
        ("jsonl:x#text=", "is without a value"),
        ("jsonl:x#text=a,messages=b", "names both a text and a messages column"),
        ("hf:wikitext", "'hf:wikitext' is not of the form hf:OWNER/NAME[#config="),
        ("hf:../name", "is not of the form"),
        ("pkg:nothing", "pkg:wikipedia-demo"),
        ("parquet:", "is not known; give text:"),
        ("text:~nobody-here/x", "names a user there is not"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused_before_anything_is_read(spec, says, tmp_path):
    with pytest.raises(CorpusUnavailable) as caught:
        documents(spec, tmp_path)
    assert says in caught.value.message


@pytest.mark.parametrize("kind", ["text", "jsonl", "parquet"])
def test_what_is_not_there_is_refused(kind, tmp_path):
    (tmp_path / "empty").mkdir()
    nowhere = tmp_path / "nowhere"
    assert refusal(f"{kind}:{nowhere}", tmp_path) == f"No text at {nowhere}; give a file or a folder that is there."
    assert ": the folder holds no " in refusal(f"{kind}:{tmp_path / 'empty'}", tmp_path)
    assert "No text at a�b" in refusal(f"{kind}:a\0b", tmp_path)
    overlong = refusal(f"{kind}:{'a' * 5000}", tmp_path)
    assert "cannot be read: file name too long" in overlong
    assert "aaa…aaa" in overlong
    assert len(overlong) < 300


@pytest.mark.parametrize("kind", ["text", "jsonl", "parquet"])
def test_pipes_and_devices_are_refused_and_not_waited_for(kind, tmp_path):
    """In a process that is given up, since without the refusal it would not end."""
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        places = [tmp_path / "pipe", "/dev/zero", tmp_path / "socket"]
        command = [sys.executable, "-c", READ, *(f"{kind}:{place}" for place in places)]
        given = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        done = subprocess.run(command, env=given, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    told = [message for (_, message), _ in json.loads(done.stdout)]
    assert told == [
        f"{place} is a {what} and not a file; write its text to a file and give that."
        for place, what in zip(places, ("named pipe", "device", "socket"), strict=True)
    ]
    (tmp_path / "link").symlink_to(lines(tmp_path / "a.jsonl", {"text": "one"}))
    if kind == "jsonl":
        assert read(f"jsonl:{tmp_path / 'link'}", tmp_path) == [Document("1", "one")]


def test_a_file_that_is_no_parquet_is_refused(tmp_path):
    (tmp_path / "a.parquet").write_text("id,text")
    assert "a.parquet is no whole parquet file" in refusal(f"parquet:{tmp_path / 'a.parquet'}", tmp_path)


def test_a_column_whose_name_is_no_text_makes_a_file_damaged(tmp_path):
    folder = tmp_path / "tables"
    damaged, _ = table(folder / "1.parquet", title=["one"]), table(folder / "2.parquet", title=["two"])
    data = damaged.read_bytes()
    assert b"title" in data
    damaged.write_bytes(data.replace(b"title", b"titl\xca"))
    assert "1.parquet is no whole parquet file" in refusal(f"parquet:{damaged}#text=title", tmp_path)
    skipped = Skipped()
    assert list(documents(f"parquet:{folder}#text=title", tmp_path, skipped)) == [Document("2.parquet:1", "two")]
    assert skipped.named == [("1.parquet", "no whole parquet file")]


def test_a_number_sign_may_stand_in_a_path(tmp_path):
    folder = tmp_path / "C#"
    folder.mkdir()
    path = lines(folder / "a.jsonl", {"body": "x"})
    assert read(f"jsonl:{path}#text=body", tmp_path) == [Document("1", "x")]
    assert read(f"text:{folder}", tmp_path)[0].name == "a.jsonl"
    assert "No text at" in refusal(f"jsonl:{folder}/b.jsonl", tmp_path)


def test_columns_may_be_one_and_the_same():
    assert Columns(text="title", id="title").check({"title"}, "it") == ["title"]


def test_a_chat_is_rendered_by_the_subjects_template(real_folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(real_folder)
    told = rendered(Document("c", "", tuple(CHAT)), tokenizer)
    assert told.endswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nGood day<|im_end|>\n")
    plain = Document("p", "Hello")
    assert rendered(plain, tokenizer) == "Hello"
    assert "<|im_start|>user\nHello<|im_end|>" in rendered(as_chat(plain), tokenizer)
    assert rendered(as_chat(plain), tokenizer).startswith("<|im_start|>system\nYou are a helpful AI assistant")
    own = Document("own", "", ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}))
    assert "You are a helpful" not in rendered(own, tokenizer)
    assert as_chat(as_chat(plain)) == as_chat(plain)
    tokenizer.chat_template = "{{ raise_exception('Roles must alternate.') }}"
    with pytest.raises(CorpusUnavailable, match="refuses the chat 'c': Roles must alternate"):
        rendered(Document("c", "", tuple(CHAT)), tokenizer)
    tokenizer.chat_template = None
    assert rendered(plain, tokenizer) == "Hello"
    with pytest.raises(BadRequest, match="tokenizer has no chat template"):
        rendered(as_chat(plain), tokenizer)


def test_nothing_heavy_is_imported_to_read_text():
    code = "import sys, app.corpus.sources, app.corpus.chat; print({'pyarrow', 'datasets', 'torch'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def parquet_bytes(row_group_size, **columns):
    made = io.BytesIO()
    pq.write_table(pa.table(columns), made, row_group_size=row_group_size)
    return made.getvalue()


class DataHub(http.server.BaseHTTPRequestHandler):
    """A hub of two data sets on this machine: org/texts, and org/cut, of which a file cannot be had."""

    commit = "c" * 40
    asked: set[str | None] = set()  # noqa: RUF012
    texts = parquet_bytes(
        50, content=[None if n == 1 else f"text {n}" for n in range(1000)], url=[f"u{n}" for n in range(1000)]
    )
    chats = parquet_bytes(1, messages=[CHAT])
    card = b"---\nconfigs:\n- config_name: plain\n  default: true\n  data_files: data/*.parquet\n" + (
        b"- config_name: chats\n  data_files: [{split: test, path: chats.parquet}]\n---\n"
    )
    files = {"README.md": card, "data/train-00000.parquet": texts, "chats.parquet": chats}  # noqa: RUF012

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        path = self.path.partition("?")[0]
        repo, _, rest = path.removeprefix("/api").removeprefix("/datasets/").partition("/")[2].partition("/")
        self.asked.add(self.headers.get("Authorization"))
        if repo not in {"texts", "cut"}:
            return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if not path.startswith("/api/"):
            return self.file(repo, rest.removeprefix(f"resolve/{self.commit}/"))
        if rest.startswith("tree/"):
            folder = rest.removeprefix(f"tree/{self.commit}").strip("/")
            inside = [self.entry(n) for n in self.files if n.rpartition("/")[0] == folder]
            above = [] if folder else [{"type": "directory", "path": "data", "size": 0, "oid": "0" * 40}]
            return self.send(200, json.dumps(inside + above).encode())
        if rest.startswith("revision/") and rest != f"revision/{self.commit}":
            return self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        told = {"id": f"org/{repo}", "sha": self.commit, "siblings": [{"rfilename": n} for n in self.files]}
        return self.send(200, json.dumps(told).encode())

    def entry(self, name):
        return {"type": "file", "path": name, "size": len(self.files[name]), "oid": "0" * 40}

    def file(self, repo, name):
        if name not in self.files or (repo, name) == ("cut", "data/train-00000.parquet"):
            return self.send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        data = self.files[name]
        first, _, last = (self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last) + 1 if last else None]
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "Accept-Ranges": "bytes"}
        headers["Content-Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
        return self.send(206 if "Range" in self.headers else 200, part, headers)

    def send(self, status, data, headers=None):
        self.send_response(status)
        for name, value in {"X-Repo-Commit": self.commit, "Content-Length": len(data), **(headers or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_):
        pass


READ = """
import json, sys
from itertools import islice
from pathlib import Path
from app.corpus.sources import Skipped, documents
from app.errors import SaescopeError
told = []
for spec in sys.argv[1:]:
    skipped = Skipped()
    try:
        got = [list(d) for d in islice(documents(spec, Path("packages"), skipped), 3)]
    except SaescopeError as error:
        got = [error.code, error.message]
    told.append([got, skipped.sentence()])
print(json.dumps(told))
"""


def apart(endpoint, tmp_path, *specs):
    """The first documents of each spec, read in a process of its own: the hub's address is settled at import."""
    given = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_secret", "PATH": os.defpath}
    given["PYTHONPATH"] = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", READ, *specs], env=given, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(told=json.loads(done.stdout), errors=done.stderr)


@pytest.fixture
def data_hub():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), DataHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_data_set_is_streamed_from_the_hub(data_hub, tmp_path):
    (tmp_path / "org" / "texts").mkdir(parents=True)  # a folder of the same name is not what was asked for
    specs = {
        "hf:org/texts#text=content": [["1", "text 0", None], ["3", "text 2", None], ["4", "text 3", None]],
        "hf:org/texts#text=content,id=url": [["u0", "text 0", None], ["u2", "text 2", None], ["u3", "text 3", None]],
        "hf:org/texts#config=chats,split=test": [["1", "", CHAT]],
        "hf:org/texts": ["corpus_unavailable", "org/texts has no column 'text' or 'messages'; it has: content, url."],
        "hf:org/texts#text=content,split=test": ["corpus_unavailable", "Bad split: test. Available splits: ['train']"],
        "hf:org/texts#text=content,config=odd": ["corpus_unavailable", "BuilderConfig 'odd' not found. Available:"],
        "hf:org/texts#revision=odd": ["hub_unavailable", "org/texts has no revision 'odd'."],
        "hf:org/nothing": ["hub_unavailable", "There is no data set org/nothing on the hub that can be read from here"],
        "hf:org/cut#text=content": ["hub_unavailable", "The hub did not serve org/cut (404 Client Error); "],
    }
    # More are left unread at the end, where pyarrow's threads once aborted the process.
    read_apart = apart(data_hub, tmp_path, *specs, "hf:org/texts#text=content")
    for (spec, wanted), (got, _) in zip(specs.items(), read_apart.told[:-1], strict=True):
        if isinstance(wanted[0], str):
            assert got[0] == wanted[0], spec
            assert wanted[1] in got[1], spec
        else:
            assert got == wanted, spec
    assert read_apart.told[0][1] == "1 document was skipped: org/texts:2 (no text)"
    assert "Bearer hf_secret" in DataHub.asked
    assert read_apart.errors == ""


def test_a_hub_that_cannot_be_reached_is_one_sentence(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        (((code, says), _),) = apart(f"http://127.0.0.1:{closed.getsockname()[1]}", tmp_path, "hf:org/texts").told
    assert code == "hub_unavailable"
    assert says.startswith("The hub cannot be reached for org/texts ([Errno 111] Connection refused); ")
    assert says.endswith("give parquet:FOLDER or jsonl:FOLDER.")
