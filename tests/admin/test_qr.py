"""QR codes: what is made is read back as a phone would, and what a phone would fail at is refused."""

import base64
import io
import re
import zlib
from typing import Any
from xml.etree import ElementTree

import pypdfium2
import pytest
import zxingcpp
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageDraw

from admin.links import logos, qr
from admin.links.logos import BadLogo, normal_logo
from admin.links.qr import BadCode
from admin.links.qr_routes import _Codes
from tests.admin.conftest import Api, made
from tests.admin.people import error_of

URL = "https://go.example.com/spring?qr=1"
RED = (200, 0, 0, 255)


def png_of(size: tuple[int, int] = (80, 40), colour: tuple[int, ...] = RED, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.new("RGBA", size, colour).save(out, "PNG", **options)
    return out.getvalue()


def opened(png: bytes) -> Image.Image:
    with Image.open(io.BytesIO(png)) as image:
        return image.convert("RGBA")


def svg_drawn(code: bytes) -> Image.Image:
    """What a browser shows of the little of SVG that is used here."""
    root = ElementTree.fromstring(code)
    size, side = int(root.attrib["width"]), int(root.attrib["viewBox"].split()[2])
    assert root.attrib["height"] == root.attrib["width"]
    scale = max(size // side, 2)
    canvas = Image.new("RGBA", (side * scale,) * 2)
    draw = ImageDraw.Draw(canvas)
    for element in root:
        if element.tag.endswith("path"):
            shapes = re.findall(r"M(\d+) (\d+)h(\d+)v(\d+)[hH]-?\d+z", element.attrib["d"])
            assert "".join(f"M{x} {y}h{w}v{h}" for x, y, w, h in shapes) == re.sub(
                "[hH]-?[0-9]+z", "", element.attrib["d"]
            )
            for x, y, width, height in (map(int, shape) for shape in shapes):
                corners = (x * scale, y * scale, (x + width) * scale - 1, (y + height) * scale - 1)
                draw.rectangle(corners, fill=element.attrib["fill"])
        else:
            box = [round(float(element.attrib[name]) * scale) for name in ("x", "y", "width", "height")]
            logo = opened(base64.b64decode(element.attrib["href"].removeprefix("data:image/png;base64,")))
            canvas.alpha_composite(logo.resize((max(box[2], 1), max(box[3], 1))), (box[0], box[1]))
    return canvas.resize((size, size), Image.Resampling.NEAREST if size % side == 0 else Image.Resampling.BOX)


def pdf_drawn(code: bytes) -> Image.Image:
    document = pypdfium2.PdfDocument(code)
    assert len(document) == 1
    image: Image.Image = document[0].render(scale=96 / 72, fill_color=(0, 0, 0, 0), rev_byteorder=True).to_pil()
    document.close()
    return image.convert("RGBA")


DRAW = {"svg": svg_drawn, "png": opened, "pdf": pdf_drawn}


def read(picture: Image.Image) -> str | None:
    """What a phone reads in it, on a white page."""
    page = Image.new("RGBA", picture.size, "white")
    page.alpha_composite(picture)
    found = zxingcpp.read_barcode(page.convert("L"), formats=zxingcpp.BarcodeFormats(zxingcpp.BarcodeFormat.QRCode))
    return found.text if found and found.valid else None


texts = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=250).map("https://go.example/".__add__)
darks = st.sampled_from(["#000000", "#123456", "#8b0000", "#006400"])
lights = st.sampled_from(["#ffffff", "#ffe4b5", "#c0ffee", "transparent"])
logo_pictures = st.sampled_from(
    [None, None, png_of(), png_of((9, 200), (0, 0, 0, 255)), png_of((64, 64), (0, 0, 0, 0))]
)


@settings(max_examples=150, deadline=None)
@given(
    texts, st.sampled_from(list(qr.MEDIA_TYPES)), st.integers(64, 1024), st.integers(0, 20),
    st.sampled_from([None, *qr.LEVELS]), darks, lights, logo_pictures,
)  # fmt: skip
@example(URL, "png", 4096, 4, None, "#000000", "#ffffff", png_of())
@example(URL, "png", 64, 0, "H", "#000000", "transparent", None)
def test_whatever_is_asked_for_is_read_back(
    text: str, format: str, size: int, margin: int, ecc: str | None, dark: str, light: str, logo: bytes | None
) -> None:
    assume(not logo or ecc in (None, "H"))
    asked: dict[str, Any] = {"size": size, "margin": margin, "ecc": ecc, "dark": dark, "light": light}
    asked["logo"] = logo and normal_logo(logo)
    modules = round(float(qr.render(text, format="svg", **asked).split(b'viewBox="0 0 ')[1].split(b" ")[0]))
    if format == "png" and size < modules:
        with pytest.raises(BadCode, match=f"has {modules} modules"):
            qr.render(text, format=format, **asked)
        return
    code = qr.render(text, format=format, **asked)
    assert code == qr.render(text, format=format, **asked)
    picture = DRAW[format](code)
    assert picture.size == (size, size)
    # What vector graphics are drawn with here has pixels, too, and a module needs two of its own.
    if format == "png" or size >= 2 * modules:
        assert read(picture) == text


@pytest.mark.parametrize("format", qr.MEDIA_TYPES)
def test_the_parts_are_where_and_as_they_should_be(format: str) -> None:
    asked: dict[str, Any] = {"format": format, "size": 468, "margin": 3, "dark": "#102030", "light": "#f0f1f2"}
    plain = DRAW[format](qr.render(URL, ecc="H", **asked)).convert("RGB")
    pixels = 468 // (33 + 2 * 3)
    assert plain.getpixel((1, 1)) == plain.getpixel((3 * pixels - 1, 234)) == (0xF0, 0xF1, 0xF2)
    assert plain.getpixel((3 * pixels, 3 * pixels)) == (0x10, 0x20, 0x30)  # a finder pattern
    with_logo = DRAW[format](qr.render(URL, logo=normal_logo(png_of()), **asked)).convert("RGB")
    assert with_logo.getpixel((234, 234)) == RED[:3]
    above_it = {with_logo.getpixel((234 + x, 234 - 2 * pixels)) for x in range(-2 * pixels, 2 * pixels)}
    assert above_it == {(0xF0, 0xF1, 0xF2)}
    left, top, right, bottom = ImageChops.difference(plain, with_logo).getbbox() or (0, 0, 0, 0)
    assert 3 * pixels < max(right - left, bottom - top) <= 33 * pixels / 5  # of the code's width
    assert abs(left + right - 468) <= 2 * pixels and abs(top + bottom - 468) <= 2 * pixels
    see_through = DRAW[format](qr.render(URL, **asked | {"light": "transparent"}))
    assert see_through.getpixel((1, 1))[3] == 0  # type: ignore[index]


REFUSED: list[tuple[str, dict[str, Any], list[str]]] = [
    ("grey on white", {"dark": "#bbbbbb"}, ["dark"]),
    ("black on dark grey", {"light": "#404040"}, ["dark"]),
    ("white on black", {"dark": "#ffffff", "light": "#000000"}, ["dark"]),
    ("yellow on blue", {"dark": "#ffff00", "light": "#123456"}, ["dark"]),
    ("grey on nothing", {"dark": "#bbbbbb", "light": "transparent"}, ["dark"]),
    ("a PNG of less than a pixel for each module", {"format": "png", "size": 64, "margin": 20}, ["size"]),
    ("too long for H", {"text": URL + "a" * 1300, "ecc": "H"}, ["ecc"]),
    ("too long for all", {"text": URL + "a" * 3000, "ecc": "L"}, ["ecc"]),
    ("a logo over a weak code", {"logo": png_of(), "ecc": "M"}, ["ecc"]),
    ("all at once", {"logo": png_of(), "ecc": "L", "dark": "#bbbbbb", "format": "png", "size": 64, "margin": 20},
     ["ecc", "dark", "size"]),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "fields"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_a_phone_would_fail_at_is_refused(asked: dict[str, Any], fields: list[str]) -> None:
    with pytest.raises(BadCode) as caught:
        qr.render(**{"text": URL} | asked)
    assert [detail.field for detail in caught.value.details] == fields
    assert all(detail.message.endswith(".") for detail in caught.value.details)
    assert ("lighter than" in str(caught.value)) == (asked.get("dark") in ("#ffffff", "#ffff00"))


def chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def bomb(side: int) -> bytes:
    """A PNG of hardly any bytes that would be a picture of this many pixels a side."""
    head = side.to_bytes(4, "big") * 2 + bytes([8, 6, 0, 0, 0])
    return png_of()[:8] + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "not a PNG"), (b"GIF89a", "not a PNG"), (png_of()[:60], "damaged")]
    + [(bomb(side), "2048 pixels a side") for side in (2049, 12_000, 30_000)],
    ids=["nothing", "GIF", "half of one", "too large", "a bomb", "a larger bomb"],
)
def test_what_is_no_logo_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(BadLogo, match=why):
        normal_logo(content)


@settings(deadline=None)
@given(st.data())
def test_a_damaged_logo_is_refused_or_becomes_a_sound_one(data: st.DataObject) -> None:
    content = bytearray(png_of((5, 3), compress_level=0))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(8, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        logo = normal_logo(bytes(content))
    except BadLogo:
        return
    assert read(opened(qr.render(URL, format="png", logo=logo))) == URL


def test_a_logo_is_kept_small_and_without_anything_beside_it() -> None:
    out = io.BytesIO()
    Image.new("L", (2048, 1024)).save(out, "PNG", icc_profile=b"private", dpi=(72, 72))
    logo = normal_logo(out.getvalue() + b"<script>")
    assert opened(logo).size == (512, 256)
    assert b"<script>" not in logo and b"iCCP" not in logo and b"pHYs" not in logo
    assert normal_logo(logo) == logo


async def test_pictures_are_remembered_until_others_need_the_room() -> None:
    codes = _Codes(most_bytes=10_000)
    first = await codes.code(URL, None, format="svg")
    assert await codes.code(URL, None, format="svg") is first
    assert await codes.code(URL, None, format="svg", dark="#111111") != first
    for size in range(64, 80):
        await codes.code(URL, None, format="svg", size=size)
    again = await codes.code(URL, None, format="svg")
    assert again == first and again is not first
    assert codes._bytes == sum(map(len, codes._kept.values())) <= 10_000
    large = await codes.code(URL, normal_logo(png_of((512, 512))), format="pdf", size=4096)
    assert large and len(codes._kept) >= 1


@pytest.mark.parametrize(("format", "media_type"), qr.MEDIA_TYPES.items())
async def test_the_code_of_a_link_holds_its_short_url_as_a_scan(api: Api, format: str, media_type: str) -> None:
    link = await made(api.one.api, path="/spring")
    answer = await api.one.api.get(
        f"/v1/links/{link['id']}/qr", params={"format": format, "size": "300", "dark": "#123456"}
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == media_type
    assert answer.headers["cache-control"] == "private, max-age=60"
    assert read(DRAW[format](answer.content)) == link["shortUrl"] + "?qr=1"
    etag = answer.headers["etag"]
    for sent, status in ((etag, 304), (f'"other", W/{etag}', 304), ("*", 304), ('"other"', 200)):
        again = await api.one.api.get(str(answer.request.url), headers={"If-None-Match": sent})
        assert (again.status_code, again.headers["etag"]) == (status, etag), sent
        assert again.content == (answer.content if status == 200 else b"")
    await api.one.api.put(f"/v1/links/{link['id']}", json={"path": "/autumn"})
    moved = await api.one.api.get(str(answer.request.url), headers={"If-None-Match": etag})
    assert moved.status_code == 200
    assert (read(DRAW[format](moved.content)) or "").endswith("/autumn?qr=1")


async def test_all_that_is_wrong_with_parameters_is_told_at_once(api: Api) -> None:
    link = await made(api.one.api)
    asked = "format=gif&size=63&margin=x&ecc=Z&dark=red&light=%23fff&logo=yes&more=1&size=99&size=5"
    answer = await api.one.api.get(f"/v1/links/{link['id']}/qr?{asked}")
    assert error_of(answer) == (400, "VALIDATION_ERROR")
    fields = [detail["field"] for detail in answer.json()["error"]["details"]]
    assert sorted(fields) == ["dark", "ecc", "format", "light", "logo", "margin", "more", "size"]
    answer = await api.one.api.get(f"/v1/links/{link['id']}/qr?margin=21&light=%23222222&logo=true")
    fields = [detail["field"] for detail in answer.json()["error"]["details"]]
    assert sorted(fields) == ["dark", "logo", "margin"]


async def test_an_organization_has_a_logo_until_it_is_taken_away(api: Api) -> None:
    link, others = await made(api.one.api), await made(api.other.api)
    png = {"Content-Type": "image/png"}
    assert (await api.one.api.put("/v1/organization/logo", content=png_of(), headers=png)).status_code == 204
    assert (await api.one.api.put("/v1/organization/logo", content=png_of((9, 9)), headers=png)).status_code == 204
    path = f"/v1/links/{link['id']}/qr?format=png&logo="
    with_logo, plain = await api.one.api.get(path + "true"), await api.one.api.get(path + "false")
    assert read(opened(with_logo.content)) == read(opened(plain.content)) == link["shortUrl"] + "?qr=1"
    assert opened(with_logo.content).getpixel((256, 256)) == RED
    assert error_of(await api.other.api.get(f"/v1/links/{others['id']}/qr?logo=true")) == (400, "VALIDATION_ERROR")
    assert error_of(await api.other.api.delete("/v1/organization/logo")) == (404, "RESOURCE_NOT_FOUND")
    assert (await api.one.api.delete("/v1/organization/logo")).status_code == 204
    refused = await api.one.api.get(path + "true")
    assert [detail["field"] for detail in refused.json()["error"]["details"]] == ["logo"]


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (png_of(), "image/jpeg", 400),
        (b"<svg/>", "image/png", 400),
        (bomb(5000), "image/png", 400),
        (png_of() + bytes(logos.MAX_BYTES), "image/png", 413),
    ],
    ids=["another type", "no PNG", "a bomb", "too many bytes"],
)
async def test_other_logos_are_refused(api: Api, content: bytes, content_type: str, status: int) -> None:
    answer = await api.one.api.put("/v1/organization/logo", content=content, headers={"Content-Type": content_type})
    assert answer.status_code == status
    assert (await api.one.api.delete("/v1/organization/logo")).status_code == 404
