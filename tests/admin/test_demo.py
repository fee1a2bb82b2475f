"""Reading web server logs: combined format, and whatever else a file may hold."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.demo import CannotReplay, Visit, read_log, visit_of

LINE = '192.0.2.1 - - [17/May/2015:10:05:03 +0000] "{request}" 200 203 "{referrer}" "{agent}"'


def line(request: str = "GET /a HTTP/1.1", referrer: str = "-", agent: str = "Agent") -> str:
    return LINE.format(request=request, referrer=referrer, agent=agent)


@pytest.mark.parametrize(
    ("text", "visit"),
    [
        (line(), Visit("192.0.2.1", "GET", "/a", "", "Agent")),
        (
            line("HEAD /a/?q=1 HTTP/1.0", "http://r.example/"),
            Visit("192.0.2.1", "HEAD", "/a", "http://r.example/", "Agent"),
        ),
        (line(agent=r"a \"b\" \\ \xc3"), Visit("192.0.2.1", "GET", "/a", "", 'a "b" \\ Ã')),
        (line("GET http://host.example/x?y HTTP/1.1"), Visit("192.0.2.1", "GET", "/x", "", "Agent")),
        (line("GET /a?b=http://c/ HTTP/1.1"), Visit("192.0.2.1", "GET", "/a", "", "Agent")),
        (line("OPTIONS * HTTP/1.1"), None),
        (line("GET"), None),
        (line("\\x16\\x03"), None),
        ("", None),
        (line()[:-1], None),
    ],
)
def test_lines(text: str, visit: Visit | None) -> None:
    assert visit_of(text) == visit


@given(st.text())
def test_any_text_is_a_visit_or_none(text: str) -> None:
    visit_of(text)
    visit_of(line(agent=text))


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60))
def test_what_was_quoted_is_read_back(agent: str) -> None:
    quoted = agent.replace("\\", "\\\\").replace('"', '\\"')
    visit = visit_of(line(agent=quoted))
    assert visit is not None
    assert visit.agent == ("" if agent == "-" else agent.strip())


def test_every_line_is_accounted_for(tmp_path: Path) -> None:
    requests = ["GET /a HTTP/1.1"] * 3 + ["HEAD /b HTTP/1.1", "POST /a HTTP/1.1", "GET /favicon.ico HTTP/1.1"]
    text = "\n".join([line(request) for request in requests] + ["nonsense"]) + "\n"
    for file, content in ((tmp_path / "plain", text.encode()), (tmp_path / "gz", gzip.compress(text.encode()))):
        file.write_bytes(content)
        replay = read_log(file)
        assert replay.paths == ["/a", "/b"]
        assert [visit.path for visit in replay.visits] == ["/a", "/a", "/a", "/b"]
        assert (replay.not_linked, replay.other_method, replay.malformed) == (1, 1, 1)


def test_a_broken_file_is_one_sentence(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gz"
    broken.write_bytes(gzip.compress(b"text" * 1000)[:-20])
    with pytest.raises(CannotReplay, match="can't read"):
        read_log(broken)
