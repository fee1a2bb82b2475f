"""Our own columns: the fields of a link as the API names them, in the order of our export."""

from admin.links.transfer import values
from admin.links.transfer.columns import ABSENT, Column, one

COLUMNS: dict[str, Column] = {
    field: one(field, read, empty)
    for field, read, empty in (
        ("id", values.text, ABSENT),
        ("hostname", values.text, ABSENT),
        ("path", values.text, ABSENT),
        ("destination", values.text, ABSENT),
        ("title", values.text, None),
        ("tags", values.own_tags, []),
        ("folder", values.text, None),
        ("notes", values.text, None),
        ("externalId", values.text, None),
        ("archived", values.boolean, ABSENT),
        ("disabled", values.boolean, ABSENT),
        ("startsAt", values.instant, None),
        ("expiresAt", values.instant, None),
        ("clickLimit", values.whole, None),
        ("fallbackUrl", values.text, None),
        ("hasPassword", values.boolean, ABSENT),
        ("redirectStatus", values.whole, ABSENT),
        ("cacheSeconds", values.whole, ABSENT),
        ("queryPolicy", values.text, ABSENT),
        ("clickIdParameter", values.text, None),
        ("rules", values.json, ABSENT),
        ("variants", values.json, ABSENT),
        ("preview", values.json, ABSENT),
        ("utm", values.json, ABSENT),
        ("robots", values.text, None),
        ("isPublicStats", values.boolean, ABSENT),
        ("metadata", values.json, ABSENT),
        ("historicClicks", values.whole, ABSENT),
        ("createdAt", values.instant, ABSENT),
    )
}
"""By their names. What is empty in CSV, or null in JSON, is none, or was never said."""
