"""QR codes: a text as a picture that a phone reads, as SVG, PNG or PDF. Pure.

Rules of this file (ISO/IEC 18004 has the reasons):

1. The picture is as large as it was asked for. In a PNG each module has the same whole number of pixels, and what is
   left over widens the margin.
2. What scanners fail at is refused with its reason: faint colours, light on dark, modules smaller than a pixel.
3. A logo hides a part of the code, which only the highest level of error correction may lose.
4. The same parameters give the same bytes.
"""

import base64
import io
import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TypeAlias

import segno
from PIL import Image

from admin.errors import Detail

MEDIA_TYPES = {"svg": "image/svg+xml", "png": "image/png", "pdf": "application/pdf"}
LEVELS = ("L", "M", "Q", "H")
"""Of error correction: what a code may lose and still be read, from 7 to 30 % of it."""

TRANSPARENT = "transparent"
_LEAST_CONTRAST = 3.0
_LOGO_PART = 5  # of the code's width, which is 4 % of what level H could lose 30 % of
_LOGO_AIR = 0.25  # of a module, around it
_POINTS_PER_PIXEL = 0.75  # a pixel of CSS is 1/96 inch, a point of PDF 1/72

Matrix: TypeAlias = tuple[bytes, ...]
"""Rows of modules; 1 is dark."""


class BadCode(ValueError):
    """Why there is no such code; `details` names the parameters, in words for the person who sent them."""

    def __init__(self, details: list[Detail]) -> None:
        super().__init__(" ".join(detail.message for detail in details))
        self.details = details


def render(
    text: str,
    *,
    format: str = "svg",
    size: int = 512,
    margin: int = 4,
    ecc: str | None = None,
    dark: str = "#000000",
    light: str = "#ffffff",
    logo: bytes | None = None,
) -> bytes:
    """The picture of a code of ASCII text.

    `size` is in pixels, of the whole picture; `margin` in modules, of which the standard asks for four. `ecc` is M
    unless given, and H with a logo; where a higher level needs no more modules, it is taken. Colours are `#rrggbb`;
    `light` may be transparent. `logo` is a PNG of known good (`logos.normal_logo`). Raises `BadCode`.
    """
    level = ecc or ("H" if logo else "M")
    details = _flaws(text, format, size, margin, level, dark, light, has_logo=logo is not None)
    if details:
        raise BadCode(details)
    matrix = _matrix(text, level)
    if logo:
        matrix = _with_room(matrix)
    draw = {"svg": _svg, "png": _png, "pdf": _pdf}[format]
    return draw(matrix, size, margin, dark, light, logo)


def _flaws(
    text: str, format: str, size: int, margin: int, level: str, dark: str, light: str, *, has_logo: bool
) -> list[Detail]:
    flaws = []
    if has_logo and level != "H":
        flaws.append(Detail("ecc", "A logo hides a part of the code: with one, send ecc=H or leave it out."))
    if flaw := _flaw_of_colours(dark, light):
        flaws.append(Detail("dark", flaw))
    try:
        modules = len(_matrix(text, level)) + 2 * margin
    except segno.DataOverflowError:
        flaws.append(Detail("ecc", f"The short URL is too long for a code of level {level}; L holds most, H least."))
    else:
        if format == "png" and size < modules:
            flaws.append(
                Detail("size", f"With its margin this code has {modules} modules a side, of a pixel each at least.")
            )
    return flaws


def _flaw_of_colours(dark: str, light: str) -> str | None:
    behind = "white" if light == TRANSPARENT else light
    lights = 1.0 if light == TRANSPARENT else _luminance(light)
    contrast = (lights + 0.05) / (_luminance(dark) + 0.05)
    if contrast < 1:
        return f"It is lighter than {behind}; many scanners only read dark on light."
    if contrast < _LEAST_CONTRAST:
        return f"Its contrast to {behind} is {contrast:.1f}; scanners need {_LEAST_CONTRAST}."
    return None


def _luminance(colour: str) -> float:
    """The relative luminance of WCAG 2, from 0 for black to 1 for white."""
    parts = [part / 255 for part in _rgb(colour)]
    red, green, blue = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


@lru_cache(maxsize=64)  # the longest texts take a tenth of a second
def _matrix(text: str, level: str) -> Matrix:
    return tuple(bytes(row) for row in segno.make_qr(text, error=level).matrix)


def _logo_modules(modules: int) -> int:
    """The side of the square that a logo gets: odd, as the code is, so that it is in the middle."""
    side = modules // _LOGO_PART
    return side if side % 2 else side - 1


def _with_room(matrix: Matrix) -> Matrix:
    """The code with nothing where the logo will be: half a module at its edge would only confuse."""
    side = _logo_modules(len(matrix))
    start = (len(matrix) - side) // 2
    end = start + side
    return tuple(
        row[:start] + bytes(side) + row[end:] if start <= number < end else row for number, row in enumerate(matrix)
    )


def _logo_box(modules: int, width: int, height: int) -> tuple[float, float, float, float]:
    """Where a logo of this size is, in modules from the corner of the code: left, top, width, height."""
    side = _logo_modules(modules) - 2 * _LOGO_AIR
    scale = side / max(width, height)
    width_of, height_of = width * scale, height * scale
    return (modules - width_of) / 2, (modules - height_of) / 2, width_of, height_of


def _runs(matrix: Matrix) -> Iterator[tuple[int, int, int]]:
    """Dark modules that lie side by side: column, row, and how many."""
    for y, row in enumerate(matrix):
        x = row.find(1)
        while x >= 0:
            end = row.find(0, x)
            length = (end if end >= 0 else len(row)) - x
            yield x, y, length
            x = row.find(1, x + length)


def _png(matrix: Matrix, size: int, margin: int, dark: str, light: str, logo: bytes | None) -> bytes:
    modules = len(matrix)
    pixels = size // (modules + 2 * margin)
    corner = (size - modules * pixels) // 2
    code = Image.frombytes("P", (modules, modules), b"".join(matrix))
    canvas = Image.new("P", (size, size))
    canvas.paste(code.resize((modules * pixels,) * 2, Image.Resampling.NEAREST), (corner, corner))
    canvas.putpalette([*_rgb("#ffffff" if light == TRANSPARENT else light), *_rgb(dark)])
    options = {"transparency": 0} if light == TRANSPARENT else {}
    out = io.BytesIO()
    if logo is None:
        canvas.save(out, "PNG", bits=1, **options)
        return out.getvalue()
    canvas.info.update(options)
    picture = canvas.convert("RGBA")
    with Image.open(io.BytesIO(logo), formats=("PNG",)) as image:
        box = _logo_box(modules, *image.size)
        left, top, width, height = [round(part * pixels) for part in box]
        small = image.convert("RGBA").resize((max(width, 1), max(height, 1)), Image.Resampling.LANCZOS)
    picture.alpha_composite(small, (corner + left, corner + top))
    picture.save(out, "PNG")
    return out.getvalue()


# In SVG and PDF all modules are one shape, which is filled once: between shapes that only touch, viewers show seams.


def _svg(matrix: Matrix, size: int, margin: int, dark: str, light: str, logo: bytes | None) -> bytes:
    side = len(matrix) + 2 * margin
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size}" height="{size}" viewBox="0 0 {side} {side}"'
        ' shape-rendering="crispEdges">'
    ]
    if light != TRANSPARENT:
        parts.append(f'<path fill="{light}" d="M0 0h{side}v{side}H0z"/>')
    shape = "".join(f"M{x + margin} {y + margin}h{length}v1h-{length}z" for x, y, length in _runs(matrix))
    parts.append(f'<path fill="{dark}" d="{shape}"/>')
    if logo is not None:
        with Image.open(io.BytesIO(logo), formats=("PNG",)) as image:
            left, top, width, height = _logo_box(len(matrix), *image.size)
        parts.append(
            f'<image x="{left + margin:.4g}" y="{top + margin:.4g}" width="{width:.4g}" height="{height:.4g}"'
            f' href="data:image/png;base64,{base64.b64encode(logo).decode()}"/>'
        )
    return "".join([*parts, "</svg>\n"]).encode()


def _pdf(matrix: Matrix, size: int, margin: int, dark: str, light: str, logo: bytes | None) -> bytes:
    """One page with nothing but the code (PDF 1.4, which has transparency)."""
    side = len(matrix) + 2 * margin
    points = size * _POINTS_PER_PIXEL
    # A PDF counts from the lower left corner; turned over once, everything here counts modules from the upper left.
    drawing = [f"{points / side:.6f} 0 0 {-points / side:.6f} 0 {points} cm"]
    if light != TRANSPARENT:
        drawing.append(f"{_pdf_colour(light)} rg 0 0 {side} {side} re f")
    drawing.append(f"{_pdf_colour(dark)} rg")
    drawing += [f"{x + margin} {y + margin} {length} 1 re" for x, y, length in _runs(matrix)]
    drawing.append("f")
    images: list[bytes] = []
    if logo is not None:
        with Image.open(io.BytesIO(logo), formats=("PNG",)) as image:
            left, top, width, height = _logo_box(len(matrix), *image.size)
            images = _pdf_images(image.convert("RGBA"))
        drawing.append(f"{width:.4f} 0 0 {-height:.4f} {left + margin:.4f} {top + margin + height:.4f} cm /Logo Do")
    resources = "<< /XObject << /Logo 5 0 R >> >>" if images else "<< >>"
    return _pdf_file(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {points} {points}] /Contents 4 0 R"
            f" /Resources {resources} >>".encode(),
            _pdf_stream("", "\n".join(drawing).encode()),
            *images,
        ]
    )


def _pdf_colour(colour: str) -> str:
    return " ".join(f"{part / 255:.4f}" for part in _rgb(colour))


def _pdf_images(image: Image.Image) -> list[bytes]:
    """The colours of a picture, as object 5, and how opaque it is, as object 6."""
    kind = f"/Type /XObject /Subtype /Image /Width {image.width} /Height {image.height} /BitsPerComponent 8"
    return [
        _pdf_stream(f"{kind} /ColorSpace /DeviceRGB /SMask 6 0 R", image.convert("RGB").tobytes()),
        _pdf_stream(f"{kind} /ColorSpace /DeviceGray", image.getchannel("A").tobytes()),
    ]


def _pdf_stream(dictionary: str, content: bytes) -> bytes:
    packed = zlib.compress(content)
    head = f"<< {dictionary} /Filter /FlateDecode /Length {len(packed)} >>\nstream\n"
    return head.encode() + packed + b"\nendstream"


def _pdf_file(objects: Iterable[bytes]) -> bytes:
    """Objects, numbered from 1, and where each of them begins."""
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")  # four bytes that are not ASCII, so that nobody takes it for text
    starts = []
    for number, content in enumerate(objects, start=1):
        starts.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(starts) + 1)
    out += b"".join(b"%010d 00000 n \n" % start for start in starts)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(starts) + 1, table)
    return bytes(out)
