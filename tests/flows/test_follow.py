"""A link's life, from the API to the edge and back as numbers, on a whole Linkwire."""

import gzip
import re
from pathlib import Path

from tests.houses import BROWSER, House, wait_for


def test_a_link_can_be_followed_when_the_api_has_answered(house: House) -> None:
    for number in range(20):
        link = house.link(path=f"/now-{number}", destination=f"https://example.com/{number}")
        answer = house.visit(link["path"])
        assert (answer.status_code, answer.headers["location"]) == (302, f"https://example.com/{number}")
        assert answer.headers["cache-control"] == "private, no-store"


def test_a_change_reaches_an_edge_that_remembers_the_link(house: House) -> None:
    link = house.link(path="/edited")
    assert house.visit("/edited").headers["location"] == "https://example.com/"
    with house.api() as api:
        api.put(f"/links/{link['id']}", json={"destination": "https://example.com/2"}).raise_for_status()
        wait_for(lambda: house.visit("/edited").headers["location"] == "https://example.com/2", 1)
        api.put(f"/links/{link['id']}", json={"path": "/moved"}).raise_for_status()
        wait_for(lambda: house.visit("/edited").status_code == 404, 1)
        assert house.visit("/moved").status_code == 302
        api.delete(f"/links/{link['id']}").raise_for_status()
        wait_for(lambda: house.visit("/moved").status_code == 404, 1)


def test_a_link_made_where_a_404_is_remembered(house: House) -> None:
    assert house.visit("/later").status_code == 404
    assert house.visit("/later").status_code == 404
    house.link(path="/later")
    wait_for(lambda: house.visit("/later").status_code == 302, 1)


def test_an_imported_link_can_be_followed_when_the_import_has_finished(house: House) -> None:
    lines = [f"/imported-{number},https://example.com/{number}\n" for number in range(1_200)]
    with house.api() as api:
        headers = {"Content-Type": "text/csv"}
        sent = api.post("/imports", content="path,destination\n" + "".join(lines), headers=headers)
        sent.raise_for_status()
        url = f"/imports/{sent.json()['data']['id']}"
        wait_for(lambda: api.get(url).json()["data"]["attributes"]["status"] == "finished", 30)
    for number in (0, 600, 1_199):
        assert house.visit(f"/imported-{number}").headers["location"] == f"https://example.com/{number}"


def test_every_spelling_that_is_one_address_leads_there(house: House) -> None:
    house.link(path="/Grüße")
    for spelling in ("/Gr%C3%BC%C3%9Fe", "/Gr%c3%bc%c3%9fe/", "/x/../Gr%C3%BC%C3%9Fe?utm=1", "/%47r%C3%BC%C3%9Fe"):
        assert house.visit(spelling).status_code == 302, spelling
    assert house.visit("/gr%C3%BC%C3%9Fe").status_code == 404


def test_a_host_serves_its_own_links_only(house: House) -> None:
    house.link(path="/own", hostname="one.example")
    assert house.visit("/own").status_code == 404
    assert house.visit("/own", host="ONE.example:8000").status_code == 302


def test_humans_and_bots_are_told_apart(house: House) -> None:
    link = house.link()
    for agent in (BROWSER, BROWSER, "Googlebot/2.1 (+http://www.google.com/bot.html)", "curl/8.5.0"):
        house.visit(link["path"], user_agent=agent)
    wait_for(lambda: house.stats(link["id"])["total"] == 4)
    stats = house.stats(link["id"])
    assert (stats["humans"], stats["bots"], len(stats["series"])) == (1, 2, 1)  # and one came twice


LOG = '{address} - - [17/May/2015:10:05:03 +0000] "{request} HTTP/1.1" 200 5 "http://r.example/" "{agent}"'


def test_a_replayed_log_is_counted_to_the_last_click(house: House, tmp_path: Path) -> None:
    lines = [
        LOG.format(address=f"198.51.100.{n % 250}", request=f"GET /page/{n % 7}?n={n}", agent=BROWSER)
        for n in range(300)
    ]
    lines += [LOG.format(address="host.example", request="HEAD /page/1", agent="Grüße-Bot") for _ in range(10)]
    lines += [
        LOG.format(address="::1", request="GET /a//b/%zz/", agent="-"),
        LOG.format(address="x", request="POST /", agent="-"),
    ]
    lines += ["malformed", LOG.format(address="192.0.2.1", request="GET /robots.txt", agent="-")]
    log = tmp_path / "access.log.gz"
    log.write_bytes(gzip.compress("\n".join(lines).encode()))
    # A second time, on the links that are there, everybody comes again.
    for humans, classes in ((43, {"human": 300, "head": 10, "tool": 1}), (0, {"repeat": 300, "head": 10, "tool": 1})):
        shown = house.command("demo", "--log", str(log))
        assert shown.returncode == 0, shown.stdout + shown.stderr
        assert "replayed = 311 = 311 = counted" in shown.stdout
        assert "1 not linked, 1 other method, 1 malformed" in shown.stdout
        assert re.search(rf"/page/1 +│ +53 │ +{humans} │ +0 │", shown.stdout), shown.stdout
        for name, count in classes.items():
            assert re.search(rf"│ {name} +│ +{count} │", shown.stdout), shown.stdout


def test_a_log_that_cannot_be_replayed(house: House, tmp_path: Path) -> None:
    (tmp_path / "empty.log").write_text("nothing\n")
    shown = house.command("demo", "--log", str(tmp_path / "empty.log"))
    assert shown.returncode == 1
    assert shown.stderr.startswith("linkwire: ")
    assert "Traceback" not in shown.stderr
