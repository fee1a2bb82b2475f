"""Access tokens: what is signed by anybody else, in another way or for somebody else, is none."""

import base64
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import OKPKey

from admin.database import Connection
from admin.errors import InvalidToken
from admin.identity import access_tokens
from admin.sealing import Sealer
from tests.admin.conftest import PASSWORD, SECRET, Api, client_of
from tests.admin.people import error_of, log_in

OWNER = "one@example.com"


async def signing_key(connection: Connection) -> OKPKey:
    sealed = await connection.fetchval("select sealed from signing_keys order by created_at desc limit 1")
    return OKPKey.import_key(json.loads(Sealer(SECRET).open(sealed)))


def forged(
    token: str, key: Any, algorithm: str = "Ed25519", header: dict[str, Any] | None = None, **claims: Any
) -> str:
    """A good token, changed and signed again by hand, because no library would; what becomes None is left out."""
    first, second = (json.loads(_decoded(part)) for part in token.split(".")[:2])
    changed = ({**first, "alg": algorithm, **(header or {})}, {**second, **claims})
    kept = [{name: value for name, value in part.items() if value is not None} for part in changed]
    signed = ".".join(_encoded(json.dumps(part).encode()) for part in kept)
    if isinstance(key, OKPKey):
        private = key.get_op_key("sign")
        assert isinstance(private, Ed25519PrivateKey)
        signature = private.sign(signed.encode())
    else:
        signature = hmac.digest(key, signed.encode(), "sha256")
    return f"{signed}.{_encoded(signature)}"


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


FORGERIES: dict[str, Callable[[str, OKPKey], str]] = {
    "another audience": lambda token, key: forged(token, key, aud="somebody else"),
    "no audience": lambda token, key: forged(token, key, aud=None),
    "another issuer": lambda token, key: forged(token, key, iss="https://evil.example"),
    "expired": lambda token, key: forged(token, key, exp=int(time.time()) - 60),
    "no expiry": lambda token, key: forged(token, key, exp=None),
    "not yet": lambda token, key: forged(token, key, iat=int(time.time()) + 600),
    "no user": lambda token, key: forged(token, key, sub=None),
    "no session": lambda token, key: forged(token, key, sid=None),
    "an unknown session": lambda token, key: forged(token, key, sid="0123456789abcdef"),
    "another user": lambda token, key: forged(token, key, sub="user_0123456789abcdef"),
    "nobody": lambda token, key: forged(token, key, sub="0123456789abcdef"),
    "a session that is a number": lambda token, key: forged(token, key, sid=7),
    "another type": lambda token, key: forged(token, key, header={"typ": "JWT"}),
    "an unknown key": lambda token, key: forged(token, OKPKey.generate_key("Ed25519"), header={"kid": "unknown"}),
    "a key that is not ours under our name": lambda token, key: forged(token, OKPKey.generate_key("Ed25519")),
    "no key id": lambda token, key: forged(token, key, header={"kid": None}),
    "the public key as a shared secret": lambda token, key: forged(
        token, json.dumps(key.as_dict(private=False)).encode(), "HS256"
    ),
    "a critical extension": lambda token, key: forged(token, key, header={"crit": ["exp2"], "exp2": 1}),
    "no signature": lambda token, key: token.rpartition(".")[0] + ".",
    "another signature": lambda token, key: token.rpartition(".")[0] + "." + "A" * 86,
    "too long": lambda token, key: forged(token, key, more="a" * 5000),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
async def test_forgeries(api: Api, connection: Connection, forge: Callable[[str, OKPKey], str]) -> None:
    token = (await log_in(api, OWNER))["meta"]["accessToken"]
    key = await signing_key(connection)
    assert (await client_of(api.app, forged(token, key)).get("/v1/auth/me")).status_code == 200
    answer = await client_of(api.app, forge(token, key)).get("/v1/auth/me")
    assert error_of(answer) == (401, "INVALID_TOKEN")


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "RS256", "ES256", "EdDSA"])
async def test_only_one_algorithm_is_believed(api: Api, algorithm: str) -> None:
    token = (await log_in(api, OWNER))["meta"]["accessToken"]
    header = json.loads(_decoded(token.split(".")[0])) | {"alg": algorithm}
    first = _encoded(json.dumps(header).encode())
    for signature in ("", token.split(".")[2]):
        forgery = f"{first}.{token.split('.')[1]}.{signature}"
        assert error_of(await client_of(api.app, forgery).get("/v1/auth/me")) == (401, "INVALID_TOKEN")


async def test_a_refresh_token_is_no_access_token(api: Api) -> None:
    token = (await log_in(api, OWNER))["meta"]["refreshToken"]
    assert error_of(await client_of(api.app, token).get("/v1/auth/me")) == (401, "INVALID_API_KEY")


ODD_HEADERS = ['["alg"]', '"alg"', "7", "null", "{}", '{"alg": 7}', '{"alg": "Ed25519", "kid": 7}', "[[]]"]


@pytest.mark.parametrize("header", ODD_HEADERS)
async def test_odd_headers(api: Api, header: str) -> None:
    forgery = f"{_encoded(header.encode())}.e30.AAAA"
    assert error_of(await client_of(api.app, forgery).get("/v1/auth/me")) == (401, "INVALID_TOKEN")


async def test_a_key_that_is_not_stored_signs_nothing(api: Api, connection: Connection) -> None:
    """The first login of all can't store its key; the next one makes another."""
    await connection.execute("alter table signing_keys add constraint never check (false) not valid")
    answer = await api.nobody.post("/v1/auth/login", json={"email": OWNER, "password": PASSWORD})
    assert answer.status_code == 500
    await connection.execute("alter table signing_keys drop constraint never")
    token = (await log_in(api, OWNER))["meta"]["accessToken"]
    for bearer in (forged(token, OKPKey.generate_key("Ed25519"), header={"kid": "unknown"}), token):
        await client_of(api.app, bearer).get("/v1/auth/me")
    assert (await client_of(api.app, token).get("/v1/auth/me")).status_code == 200


@given(st.text(max_size=200) | st.from_regex(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*", fullmatch=True))
def test_any_text_is_refused_and_nothing_else(text: str) -> None:
    if access_tokens.has_shape(text):
        with pytest.raises(InvalidToken):
            access_tokens._kid(text)


async def test_keys_rotate_and_old_ones_verify(api: Api, connection: Connection) -> None:
    old = (await log_in(api, OWNER))["meta"]["accessToken"]
    await connection.execute("update signing_keys set created_at = created_at - interval '31 days'")
    api.app.state.access_tokens._sign_until = 0.0
    new = (await log_in(api, OWNER))["meta"]["accessToken"]
    kids = [json.loads(_decoded(token.split(".")[0]))["kid"] for token in (old, new)]
    assert kids[0] != kids[1]
    for token in (old, new):
        assert (await client_of(api.app, token).get("/v1/auth/me")).status_code == 200
    published = (await api.nobody.get("/.well-known/jwks.json")).json()["keys"]
    assert {key["kid"] for key in published} == set(kids)
    assert all("d" not in key for key in published)


async def test_private_keys_are_sealed(api: Api, connection: Connection) -> None:
    await log_in(api, OWNER)
    private = str((await signing_key(connection)).as_dict(private=True)["d"])
    row = await connection.fetchval("select string_agg(k::text, ' ') from signing_keys k")
    assert private not in row and private.encode().hex() not in row
