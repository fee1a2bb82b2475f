"""Files of links, sent as clients send them and carried out as the worker does."""

from typing import Any

import asyncpg
import httpx2

from admin.links import import_jobs
from admin.links.importing import Importer
from tests.admin.conftest import Api, Tenant


async def send(tenant: Tenant, file: str | bytes, **parameters: str) -> httpx2.Response:
    content = file.encode() if isinstance(file, str) else file
    headers = {"Content-Type": "application/octet-stream"}
    return await tenant.api.post("/v1/imports", params=parameters, content=content, headers=headers)


async def sent(tenant: Tenant, file: str | bytes, **parameters: str) -> str:
    """The id of an import that waits for a worker."""
    answer = await send(tenant, file, **parameters)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["data"]["id"])


async def work(api: Api) -> int:
    """Carry out all imports that are due; how many those were."""
    settings, count = api.app.state.settings, 0
    async with asyncpg.create_pool(settings.database(), min_size=0, max_size=3) as pool:
        importer = Importer(pool, api.app.state.redis, settings)
        while await import_jobs.step(pool, importer):
            count += 1
    return count


async def shown(tenant: Tenant, import_id: str) -> dict[str, Any]:
    """An import as its owner sees it."""
    answer = await tenant.api.get(f"/v1/imports/{import_id}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["data"]["attributes"])


async def imported(api: Api, tenant: Tenant, file: str | bytes, **parameters: str) -> dict[str, Any]:
    """The same, when it was carried out; `counts` are those that are not 0, `told` is what is said of lines."""
    import_id = await sent(tenant, file, **parameters)
    assert await work(api) == 1
    found = await shown(tenant, import_id)
    assert found["status"] == "finished", found
    notes = (await tenant.api.get(f"/v1/imports/{import_id}/refusals")).json()["data"]
    counts = {name: count for name, count in found["counts"].items() if count}
    return found | {"id": import_id, "counts": counts, "told": [tuple(note.values()) for note in notes]}


async def links_of(tenant: Tenant) -> dict[str, dict[str, Any]]:
    """The links of an organization by host and path."""
    answer = await tenant.api.get("/v1/links", params={"perPage": "100"})
    return {link["hostname"] + link["path"]: link for link in answer.json()["data"]}
