"""People at the API: how they log in, and the mail they get."""

import asyncio
import json
import re
from typing import Any

import httpx2

from admin.database import Connection
from admin.identity import letters, principal
from admin.sealing import Sealer
from tests.admin.conftest import PASSWORD, SECRET, Api, client_of


async def log_in(api: Api, email: str, password: str = PASSWORD, **fields: Any) -> dict[str, Any]:
    """The answer to a login that succeeds."""
    answer = await api.nobody.post("/v1/auth/login", json={"email": email, "password": password, **fields})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def session_of(api: Api, email: str) -> httpx2.AsyncClient:
    """A client that has logged in."""
    return client_of(api.app, (await log_in(api, email))["meta"]["accessToken"])


async def mail_to(connection: Connection, recipient: str) -> list[dict[str, str]]:
    """The mails that wait to be sent to somebody, those that the worker has still to write, too: subject and text."""
    while await letters.step(connection, Sealer(SECRET)):
        pass
    rows = await connection.fetch("select sealed from mails where recipient = $1 order by id", recipient)
    return [json.loads(Sealer(SECRET).open(row["sealed"])) for row in rows]


async def mailed_token(connection: Connection, recipient: str) -> str:
    """The token in the last mail to somebody."""
    found = re.search(r"^    (\S+)$", (await mail_to(connection, recipient))[-1]["text"], re.MULTILINE)
    assert found
    return found[1]


async def until_refused(client: httpx2.AsyncClient, path: str = "/v1/links") -> None:
    """Until a caller that was remembered is refused. That is less than a second; a busy machine is slower."""
    assert principal._REMEMBERED_S < 1
    async with asyncio.timeout(5.0):
        while (answer := await client.get(path)).status_code != 401:
            await asyncio.sleep(0.01)
    assert error_of(answer)[1] in ("INVALID_API_KEY", "INVALID_TOKEN")


def error_of(answer: httpx2.Response) -> tuple[int, str]:
    """Status and code of an error."""
    return answer.status_code, answer.json()["error"]["code"]
