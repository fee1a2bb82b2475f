"""Rules: from an entry and facts about the visitor to where the visitor goes, and why.

The edge asks at each visit of a link that has terms, the explainer when somebody wants to know; both ask here.

Rules of this file:

1. The story is `decide`, in its order. `explained` tells it afterwards, and decides nothing.
2. A visitor meets a rule who meets all its conditions, each with one of its values (conditions.py). The first rule that
   is met says where to go; only those whom no rule sends anywhere are divided between the variants.
3. What a visitor sends can add to the query of a destination (`with_query`), and to nothing else of it.
4. Pure: no I/O, no clock.
"""

import json
from collections.abc import Container, Iterator, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_plus

from shared.conditions import CONDITIONS, holds
from shared.entries import STATES, Entry, Preview, Rule, Variant
from shared.visitor import MAX_PARAMETERS, Visitor
from shared.windows import instant

MAX_VALUES = 100
"""Of one condition."""
MAX_WINDOWS = 10
"""Values of the condition on the time: each takes several times as long as one of another."""
MAX_DESTINATION_LENGTH = 4096
"""Characters of a destination with what was added to its query."""

OUTCOMES = ("redirect", "preview", "password", "not_started", "gone")
"""What is to be done: redirect; show the preview; ask for the password. A link that is not there yet, or any more,
may have another destination instead; where it has none, that is to be said, with 410."""

REASONS = (*STATES, "not_started", "expired", "used_up", "password", "preview", "rule", "variant", "destination")
"""Why, in the order in which it is asked."""

UTM_PARAMETERS = ("source", "medium", "campaign", "term", "content")
"""Without the `utm_` they have in a destination."""

_NO_PREVIEW = Preview()
# Whoever reports or disables a link wants it to lead nowhere at all.
_STOPPED = ("disabled", "reported")
_SCAN_MARK = "qr"
"""The parameter that tells us of a scan, and nobody else."""
# RFC 3986 §3.4, but for the quote that WHATWG escapes, beside the unreserved characters, which `quote` keeps by itself.
_KEPT_IN_QUERY = "!$&()*+,;=:@/?%"


class Decision(NamedTuple):
    """What becomes of a visit."""

    outcome: str
    """One of `OUTCOMES`."""
    reason: str
    """One of `REASONS`."""
    destination: str = ""
    """As it is in the entry, or the host's, or empty."""
    rule_id: int = 0
    """The rule that said where to go; 0 for none."""
    variant_id: int = 0
    """The variant that was drawn; 0 for none."""

    @property
    def is_open(self) -> bool:
        """Whether the link is there for the visitor, unless its click limit is used up."""
        return self.outcome in ("redirect", "preview", "password")


def decide(entry: Entry, visitor: Visitor, *, has_password_passed: bool = False, host_expired: str = "") -> Decision:
    """What becomes of a visit. `host_expired` is where the host sends those whose link is not there.

    Whether a click limit leaves room is for the caller to find out while it `is_open`, whoever asks; if not, `used_up`
    is the answer.
    """
    terms = entry.terms
    if terms.state:
        return _away(entry, "gone", terms.state, host_expired)
    if terms.starts_at_ms is not None and visitor.at_ms < terms.starts_at_ms:
        return _away(entry, "not_started", "not_started", host_expired)
    if terms.expires_at_ms is not None and visitor.at_ms >= terms.expires_at_ms:
        return _away(entry, "gone", "expired", host_expired)
    if terms.password_hash and not has_password_passed:
        return Decision("password", "password")
    if terms.preview != _NO_PREVIEW and visitor.is_social_crawler:
        return Decision("preview", "preview")
    for rule in terms.rules:
        if meets(visitor, rule.when):
            return Decision("redirect", "rule", rule.destination, rule_id=rule.id)
    if variant := _variant(entry, visitor):
        return Decision("redirect", "variant", variant.destination, variant_id=variant.id)
    return Decision("redirect", "destination", entry.destination)


def used_up(entry: Entry, *, host_expired: str = "") -> Decision:
    """What becomes of a visit that the click limit leaves no room for."""
    return _away(entry, "gone", "used_up", host_expired)


def _away(entry: Entry, outcome: str, reason: str, host_expired: str) -> Decision:
    return Decision(outcome, reason, "" if reason in _STOPPED else entry.terms.fallback or host_expired)


def meets(visitor: Visitor, when: dict[str, list[Any]]) -> bool:
    """Whether the visitor meets every condition."""
    return all(holds(visitor, name, values) for name, values in when.items())


def _variant(entry: Entry, visitor: Visitor) -> Variant | None:
    """The visitor's variant: the same at each visit, and for most also after the weights have changed a little."""
    weights = sum(variant.weight for variant in entry.terms.variants)
    seed = f"{entry.link_id} {visitor.address} {visitor.user_agent}".encode("utf-8", "surrogatepass")
    point = int.from_bytes(blake2b(seed, digest_size=16).digest(), "big") * weights >> 128
    for variant in entry.terms.variants:
        point -= variant.weight
        if point < 0:
            return variant
    return None


def explained(entry: Entry, visitor: Visitor, decision: Decision) -> Iterator[str]:
    """The steps that led to this decision about this visit, as sentences for the owner of the link."""
    terms, reason = entry.terms, decision.reason
    visit_at = instant(visitor.at_ms)
    if reason in STATES:
        yield f"The link is {reason}."
    elif reason == "not_started":
        yield f"The link starts at {instant(terms.starts_at_ms or 0)}; the visit is at {visit_at}."
    elif reason == "expired":
        yield f"The link expired at {instant(terms.expires_at_ms or 0)}; the visit is at {visit_at}."
    elif reason == "used_up":
        yield f"The click limit of {terms.click_limit} is reached."
    else:
        yield f"The link can be followed at {visit_at}."
        yield from _explained_on_the_way(entry, visitor, reason)
    if decision.destination:
        yield f"The visitor goes to {decision.destination}"
    elif decision.outcome in ("gone", "not_started"):
        yield "There is nowhere else to go, and the visitor is told so."


def _explained_on_the_way(entry: Entry, visitor: Visitor, reason: str) -> Iterator[str]:
    terms = entry.terms
    if reason == "password":
        yield "It has a password, which the visitor is asked for."
        return
    if terms.password_hash:
        yield "It has a password, which the visitor has given."
    if reason == "preview":
        yield "The agent makes previews of links, and is shown that of this one."
        return
    for number, rule in enumerate(terms.rules, start=1):
        yield _rule_told(number, rule, visitor)
        if meets(visitor, rule.when):
            break
    else:
        if variant := _variant(entry, visitor):
            weights = sum(each.weight for each in terms.variants)
            yield f"Variant {variant.id} is this visitor's; it has {variant.weight} of {weights} parts of the visitors."
        elif terms.rules:
            yield "No rule is met."


def _rule_told(number: int, rule: Rule, visitor: Visitor) -> str:
    told = [_condition_told(name, values, visitor) for name, values in rule.when.items()]
    is_met = "is met" if meets(visitor, rule.when) else "is not met"
    return f"Rule {number} {is_met}: {'; '.join(told) or 'it has no conditions'}."


def _condition_told(name: str, values: list[Any], visitor: Visitor) -> str:
    if name not in CONDITIONS:
        return f"{name} is no condition that is known here"
    fact, asked = (json.dumps(it, ensure_ascii=False) for it in (CONDITIONS[name].fact(visitor), values))
    return f"{name} {fact} {'matches' if holds(visitor, name, values) else 'does not match'} {asked}"


class Violation(NamedTuple):
    """One thing that is wrong with the conditions of a rule."""

    condition: str
    message: str


class BadRule(ValueError):
    """Conditions that have no normal form; `violations` says everything that is wrong with them."""

    def __init__(self, violations: list[Violation]) -> None:
        super().__init__(" ".join(f"{condition}: {message}" for condition, message in violations))
        self.violations = violations


def normal_when(when: dict[str, Any]) -> dict[str, list[Any]]:
    """The normal form of the conditions that a person sent, each a value or a list of values.

    Each value is there once, in the form that conditions.py compares. Raises `BadRule`.
    """
    wrong: list[Violation] = []
    normal = {name: _normal_values(name, value, wrong) for name, value in when.items()}
    if wrong:
        raise BadRule(wrong)
    return normal


def _normal_values(name: str, value: Any, wrong: list[Violation]) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    limit = MAX_WINDOWS if name == "time" else MAX_VALUES
    normal: list[Any] = []
    if name not in CONDITIONS:
        wrong.append(Violation(name, f"There is no such condition; there are {', '.join(CONDITIONS)}."))
    elif not 1 <= len(values) <= limit:
        wrong.append(Violation(name, f"A condition has 1 to {limit} values."))
    else:
        for each in values:
            try:
                kept = CONDITIONS[name].normal(each)
            except ValueError as error:
                wrong += [Violation(name, str(message)) for message in error.args]
            else:
                normal += [] if kept in normal else [kept]
    return normal


def with_query(destination: str, query: str, policy: str, click_id_parameter: str = "", click_id: str = "") -> str:
    """The destination with the visitor's parameters, as the policy of the link says, and the id of the click.

    `query` is as the visitor sent it, bytes beyond ASCII read as UTF-8. Only the query of the destination changes, and
    what is added is visible ASCII. Nothing is added where the result would be longer than `MAX_DESTINATION_LENGTH`, or
    the visitor sent more than `MAX_PARAMETERS`.
    """
    ours = {_SCAN_MARK, click_id_parameter} - {""}
    sent: list[str] = []
    if policy != "none":
        if query.count("&") >= MAX_PARAMETERS:
            return destination
        escaped = quote(query, safe=_KEPT_IN_QUERY, errors="replace")
        sent = [parameter for parameter in escaped.split("&") if parameter and _name(parameter) not in ours]
    replaced = {_name(parameter) for parameter in sent} if policy == "override" else set()
    if click_id_parameter:
        sent.append(f"{quote(click_id_parameter, safe='')}={quote(click_id, safe='')}")
        replaced.add(click_id_parameter)
    changed = _with_parameters(destination, sent, replaced)
    return changed if len(changed) <= MAX_DESTINATION_LENGTH else destination


def with_utm(destination: str, utm: Mapping[str, str | None]) -> str:
    """The destination with these of `UTM_PARAMETERS`, in place of those it has. Empty ones are as if not given."""
    given = {f"utm_{name}": value for name in UTM_PARAMETERS if (value := utm.get(name))}
    return _with_parameters(destination, [f"{name}={quote(value, safe='')}" for name, value in given.items()], given)


def _with_parameters(destination: str, added: list[str], replaced: Container[str]) -> str:
    """With these parameters (escaped already) at the end of the query, and without those of these names."""
    if not added:
        return destination
    before, has_fragment, fragment = destination.partition("#")
    base, _, query = before.partition("?")
    kept = [parameter for parameter in query.split("&") if _name(parameter) not in replaced] if query else []
    return f"{base}?{'&'.join([*kept, *added])}{has_fragment}{fragment}"


def _name(parameter: str) -> str:
    return unquote_plus(parameter.partition("=")[0])
