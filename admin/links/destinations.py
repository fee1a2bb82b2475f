"""Destinations: the one function that every URL a link may lead to passes through."""

import re
import unicodedata

import can_ada

MAX_LENGTH = 4096
"""Characters of a destination as it is sent."""

_SCHEMES = ("http:", "https:")


class BadDestination(ValueError):
    """Why a link can't lead there, in words for the person who sent it."""


def normal_destination(text: str) -> str:
    """The URL as a browser reads it (WHATWG), which is what is stored, and sent as `Location` unchanged.

    Raises `BadDestination`. What a parser would quietly repair is refused before parsing, because the URL would lead
    elsewhere than it seems to: control characters vanish; backslashes, and slashes too few or too many, become two.
    """
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise BadDestination("A destination must not contain control characters.")
    if "\\" in text:
        raise BadDestination("A destination must not contain a backslash.")
    if re.match(r"\s*https?:(?!//[^/])", text, re.IGNORECASE):
        raise BadDestination("A destination needs two slashes and a host after its scheme.")
    try:
        url = can_ada.parse(text)
    except ValueError as error:
        raise BadDestination("A destination must be an absolute URL, such as https://example.com/page.") from error
    if url.protocol not in _SCHEMES:
        raise BadDestination("A destination must begin with http:// or https://.")
    if url.username or url.password:
        raise BadDestination("A destination must not contain a user name or password.")
    if len(url.href) > MAX_LENGTH:
        raise BadDestination(f"A destination may have {MAX_LENGTH} characters.")
    return str(url.href)


def hostname_of(destination: str) -> str:
    """The host of a destination in normal form, as ASCII without port."""
    return str(can_ada.parse(destination).hostname).removesuffix(".")
