"""Logos: the picture that an organization may put in the middle of its QR codes, and its one normal form."""

import io

from PIL import Image

from admin.database import Connection

MAX_BYTES = 256 * 1024
"""Of a logo as it is sent."""

MAX_SIDE = 2048
"""Pixels; more would cost memory that no code can show."""

_KEPT_SIDE = 512
_BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)


class BadLogo(ValueError):
    """Why a picture is no logo, in words for the person who sent it."""


def normal_logo(content: bytes) -> bytes:
    """The logo as it is kept: a PNG with transparency, at most 512 pixels a side, without anything beside the picture.

    Its size is looked at before its pixels are, so that a small file can't become a large picture. Raises `BadLogo`.
    """
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if max(image.size) > MAX_SIDE:
                raise BadLogo(f"A logo may have {MAX_SIDE} pixels a side; this one has {max(image.size)}.")
            picture = image.convert("RGBA")
    except BadLogo:
        raise
    except _BOMB as error:
        raise BadLogo(f"A logo may have {MAX_SIDE} pixels a side; this one has many more.") from error
    except Exception as error:  # the decoder says of damage whatever it stumbles over, an IndexError too
        raise BadLogo("It is not a PNG image, or it is damaged.") from error
    picture.info.clear()
    picture.thumbnail((_KEPT_SIDE, _KEPT_SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


async def get(connection: Connection, organization_id: int) -> bytes | None:
    """The organization's logo in normal form; None while it has none."""
    png: bytes | None = await connection.fetchval(
        "/* logos.get */ select png from logos where organization_id = $1", organization_id
    )
    return png


async def put(connection: Connection, organization_id: int, png: bytes) -> None:
    """The organization's logo from now on, in normal form."""
    await connection.execute(
        """
        /* logos.put */
        insert into logos (organization_id, png) values ($1, $2)
        on conflict (organization_id) do update set png = excluded.png""",
        organization_id,
        png,
    )


async def remove(connection: Connection, organization_id: int) -> bool:
    """Whether there was one."""
    removed = await connection.fetchval(
        "/* logos.remove */ delete from logos where organization_id = $1 returning true", organization_id
    )
    return bool(removed)
