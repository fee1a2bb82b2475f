"""What a person sees: a real Chromium follows a link, and the count moves."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.houses import House, wait_for

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    arguments = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def destination() -> Iterator[str]:
    """A page for links to lead to."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>There</title><h1>You have arrived</h1>")

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/page"
        server.shutdown()


def test_a_link_is_followed_and_counted(house: House, browser: Browser, destination: str) -> None:
    link = house.link(destination=destination)
    page = browser.new_page()
    for _ in range(2):  # the second time, too: nothing may be cached
        page.goto(link["shortUrl"])
        assert page.url == destination
        assert page.inner_text("h1") == "You have arrived"
    wait_for(lambda: house.stats(link["id"])["total"] == 2)
    assert house.stats(link["id"])["total"] == 2
    page.close()


def test_a_path_that_is_no_link_says_so(house: House, browser: Browser, tmp_path: Path) -> None:
    page = browser.new_page()
    answer = page.goto(house.edge_url + "/nothing-here")
    assert answer is not None and answer.status == 404
    assert page.inner_text("h1") == "There is no link here"
    page.screenshot(path=tmp_path / "404.png")
    page.close()


def test_the_documentation_can_be_read(house: House, browser: Browser) -> None:
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(house.admin_url + "/docs")
    page.get_by_text("Create a link").wait_for()
    assert [url for url in asked if not url.startswith((house.admin_url, "data:"))] == []
    page.close()


def test_an_app_is_let_in_with_enter(house: House, browser: Browser, destination: str, tmp_path: Path) -> None:
    app = {"name": "An app", "redirectUris": ["http://127.0.0.1/page"], "permissions": ["links:read"]}
    with house.api() as api:
        client_id = api.post("/oauth/clients", json=app).json()["data"]["id"]
    asked = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": destination,  # on another port than the registered one
        "code_challenge": "c" * 43,
        "code_challenge_method": "S256",
    }
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(f"{house.admin_url}/v1/oauth/authorize?{urlencode(asked)}")
    page.screenshot(path=tmp_path / "log-in.png")
    page.fill("#email", house.credentials["email"])
    page.fill("#password", house.credentials["password"])
    page.press("#password", "Enter")
    page.get_by_text("It will act for").wait_for()
    page.screenshot(path=tmp_path / "consent.png")
    yes, no = [page.get_by_role("button", name=name).bounding_box() for name in ("Allow", "No")]
    assert yes and no and no["x"] < yes["x"] and no["y"] == yes["y"]
    page.get_by_role("button", name="Allow").click()
    page.get_by_text("You have arrived").wait_for()
    assert page.url.startswith(f"{destination}?code=lac_")
    page.close()
