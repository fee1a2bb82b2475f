"""Fields of bodies: what every model of a body has in common, and the kinds of text that many nouns have.

A field's schema says all that its validator checks, as far as JSON Schema has words for it: clients generate from it,
and tests generate from it what must be accepted.
"""

import unicodedata
from typing import Annotated, Any

import email_validator
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

# Whether mail arrives somewhere is for the mail to find out: `owner@localhost` is an address, too.
email_validator.SPECIAL_USE_DOMAIN_NAMES.clear()

_MAX_EMAIL = 254  # RFC 5321 §4.5.3.1.3
_CONTROL = "\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029"
_CONTROL_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")  # lines and paragraphs end there: not in the subject of a mail
_NO_ENCODED_WORD = "^([^=]|=+[^=?])*=*$"
_PLAIN = f"^[^{_CONTROL}]*$"
_NAME = f"^[^{_CONTROL}]*[^{_CONTROL}\\s][^{_CONTROL}]*$"


class Fields(BaseModel):
    """A body: camelCase or snake_case, no unknown fields, no values of another type."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", strict=True)


def _without_defaults(schema: dict[str, Any]) -> None:
    for one in schema["properties"].values():
        one.pop("default", None)


class Change(Fields):
    """A body that changes something: what is not sent stays as it is. No field is required, no default told."""

    model_config = ConfigDict(json_schema_extra=_without_defaults)


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


is_whole = BeforeValidator(_whole)
"""For whole numbers, behind their bounds: to JSON Schema, 5.0 is one, too."""


def documented(**schema: Any) -> Any:
    """What a field's schema says of it that pydantic does not know."""
    return Field(json_schema_extra=schema)


def plain(text: str) -> str:
    """Text without control characters. Raises ValueError."""
    # What can be printed has none of them, and that is soon seen.
    if not text.isprintable() and any(unicodedata.category(character) in _CONTROL_CATEGORIES for character in text):
        raise ValueError("It must not contain control characters.")
    return text


def _name(text: str) -> str:
    if not plain(text).strip():
        raise ValueError("It must not be blank.")
    return text.strip()


def email_of(text: str) -> str:
    """An address in its normal form. Raises ValueError."""
    if "=?" in text:  # the begin of an encoded word (RFC 2047): no mail could be addressed to it without doubt
        raise ValueError("It must not contain =?.")
    try:
        address = email_validator.validate_email(text, check_deliverability=False, globally_deliverable=False)
    except email_validator.EmailNotValidError as error:
        raise ValueError(f"It is not an e-mail address: {error}") from error
    return address.normalized.lower()


Plain = Annotated[str, AfterValidator(plain), documented(pattern=_PLAIN)]
"""Text without control characters."""
Name = Annotated[str, Field(max_length=200), AfterValidator(_name), documented(pattern=_NAME)]
"""What people call something; without blanks around it."""
Email = Annotated[
    str, Field(max_length=_MAX_EMAIL), AfterValidator(email_of), documented(format="email", pattern=_NO_ENCODED_WORD)
]
"""An address in its normal form: the domain as Unicode, all of it in lower case."""
Https = Annotated[str, Field(max_length=2000, pattern="^https://[!-~]+$")]
"""Where something is to be had."""
