"""What can go wrong, in the words of the API. Raised where it is noticed, answered once (`admin/http/answers.py`).

ApiError
├── Invalid                  400  VALIDATION_ERROR
├── DestinationBlocked       400  DESTINATION_BLOCKED
├── InvalidResetToken        400  INVALID_RESET_TOKEN
├── NotAuthenticated         401  AUTHENTICATION_REQUIRED
├── InvalidApiKey            401  INVALID_API_KEY
├── InvalidToken             401  INVALID_TOKEN
├── InvalidCredentials       401  INVALID_CREDENTIALS
├── InvalidRefreshToken      401  INVALID_REFRESH_TOKEN
├── TokenRevoked             401  TOKEN_REVOKED
├── InsufficientPermissions  403  INSUFFICIENT_PERMISSIONS
├── AccountLocked            403  ACCOUNT_LOCKED
├── EmailNotVerified         403  EMAIL_NOT_VERIFIED
├── RegistrationClosed       403  REGISTRATION_CLOSED
├── NotFound                 404  RESOURCE_NOT_FOUND
├── MethodNotAllowed         405  METHOD_NOT_ALLOWED
├── AlreadyExists            409  RESOURCE_ALREADY_EXISTS
├── EmailAlreadyExists       409  EMAIL_ALREADY_EXISTS
├── IdempotencyKeyInUse      409  IDEMPOTENCY_KEY_IN_USE
├── PayloadTooLarge          413  PAYLOAD_TOO_LARGE
├── IdempotencyKeyReused     422  IDEMPOTENCY_KEY_REUSED
├── MailNotConfigured        422  MAIL_NOT_CONFIGURED
├── DomainNotVerified        422  DOMAIN_NOT_VERIFIED
├── QueryTooLarge            422  QUERY_TOO_LARGE
├── ClicksNotKept            422  CLICKS_NOT_KEPT
├── RateLimited              429  RATE_LIMIT_EXCEEDED
├── InternalError            500  INTERNAL_ERROR
└── Unavailable              503  SERVICE_UNAVAILABLE
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, NamedTuple


class Detail(NamedTuple):
    """One thing that is wrong with one field of a request."""

    field: str
    message: str


class ApiError(Exception):
    """The base; `str()` of it is what the client reads."""

    status: ClassVar[int]
    code: ClassVar[str]
    default: ClassVar[str]
    headers: Mapping[str, str] = MappingProxyType({})

    def __init__(self, message: str | None = None, details: list[Detail] | None = None) -> None:
        super().__init__(message or self.default)
        self.details = details or []


class Invalid(ApiError):
    """The request can't be understood; `details` names the fields, all of them at once."""

    status = 400
    code = "VALIDATION_ERROR"
    default = "Request validation failed."

    @classmethod
    def of(cls, field: str, message: str) -> "Invalid":
        """For one field that is wrong."""
        return cls(details=[Detail(field, message)])


class DestinationBlocked(ApiError):
    """The operator lets no link lead there; `details` names the fields. Beside other mistakes it is `Invalid`."""

    status = 400
    code = "DESTINATION_BLOCKED"
    default = "No link may lead to this destination here."


class InvalidResetToken(ApiError):
    """A token that was sent by mail is unknown, used or too old."""

    status = 400
    code = "INVALID_RESET_TOKEN"
    default = "The token is invalid or has expired."


class NotAuthenticated(ApiError):
    """No credentials were sent."""

    status = 401
    code = "AUTHENTICATION_REQUIRED"
    default = "Send an API key or an access token as `Authorization: Bearer YOUR_API_KEY`."
    headers = MappingProxyType({"WWW-Authenticate": "Bearer"})


class InvalidApiKey(ApiError):
    """The key is unknown, expired or revoked."""

    status = 401
    code = "INVALID_API_KEY"
    default = "The API key is invalid or expired."
    headers = MappingProxyType({"WWW-Authenticate": 'Bearer error="invalid_token"'})


class InvalidToken(ApiError):
    """An access token that is none of ours, or has expired, or whose session has ended."""

    status = 401
    code = "INVALID_TOKEN"
    default = "The access token is invalid or has expired."
    headers = MappingProxyType({"WWW-Authenticate": 'Bearer error="invalid_token"'})


class InvalidCredentials(ApiError):
    """No account has this address and this password; which of the two is wrong is not told."""

    status = 401
    code = "INVALID_CREDENTIALS"
    default = "The e-mail address or the password is wrong."


class InvalidRefreshToken(ApiError):
    """A refresh token that is unknown or too old."""

    status = 401
    code = "INVALID_REFRESH_TOKEN"
    default = "The refresh token is invalid or has expired."


class TokenRevoked(ApiError):
    """A refresh token of a session that has ended, or that was used before: then its session ends."""

    status = 401
    code = "TOKEN_REVOKED"
    default = "The session has ended. Please log in again."


class InsufficientPermissions(ApiError):
    """The caller is known, but may not do this."""

    status = 403
    code = "INSUFFICIENT_PERMISSIONS"
    default = "You lack a permission that this needs."
    headers = MappingProxyType({"WWW-Authenticate": 'Bearer error="insufficient_scope"'})


class AccountLocked(ApiError):
    """Too many failed logins with this address, whether it has an account or not."""

    status = 403
    code = "ACCOUNT_LOCKED"
    default = "Too many failed logins. Wait a quarter of an hour, or choose a new password."


class EmailNotVerified(ApiError):
    """The password is right, but nobody has shown yet that the address is theirs."""

    status = 403
    code = "EMAIL_NOT_VERIFIED"
    default = "Please confirm your e-mail address first; we have sent you a mail."


class RegistrationClosed(ApiError):
    """Nobody may register here without an invitation."""

    status = 403
    code = "REGISTRATION_CLOSED"
    default = "Registration is by invitation only."


class NotFound(ApiError):
    """Nothing is there, or it belongs to somebody else: the two are not told apart."""

    status = 404
    code = "RESOURCE_NOT_FOUND"
    default = "The requested resource does not exist."


class MethodNotAllowed(ApiError):
    """The route exists, but not with this method."""

    status = 405
    code = "METHOD_NOT_ALLOWED"
    default = "This route does not answer this method."


class AlreadyExists(ApiError):
    """The identifier is taken."""

    status = 409
    code = "RESOURCE_ALREADY_EXISTS"
    default = "A resource with this identifier exists already."


class EmailAlreadyExists(ApiError):
    """The address has an account."""

    status = 409
    code = "EMAIL_ALREADY_EXISTS"
    default = "There is an account with this e-mail address already."


class IdempotencyKeyInUse(ApiError):
    """The first request with this key has not been answered yet."""

    status = 409
    code = "IDEMPOTENCY_KEY_IN_USE"
    default = "A request with this Idempotency-Key is being answered. Please try again."
    headers = MappingProxyType({"Retry-After": "1"})


class PayloadTooLarge(ApiError):
    """The body is larger than any request needs."""

    status = 413
    code = "PAYLOAD_TOO_LARGE"
    default = "The request body is too large."


class IdempotencyKeyReused(ApiError):
    """The key was used with another body."""

    status = 422
    code = "IDEMPOTENCY_KEY_REUSED"
    default = "This Idempotency-Key was used for another request."


class MailNotConfigured(ApiError):
    """The request needs a mail to be sent, and nothing is there that sends it."""

    status = 422
    code = "MAIL_NOT_CONFIGURED"
    default = "This server sends no mail; its operator must set LINKWIRE_SMTP_URL."


class DomainNotVerified(ApiError):
    """Nothing shows that the host is the organization's; `details` says what was looked for, and found."""

    status = 422
    code = "DOMAIN_NOT_VERIFIED"
    default = "Nothing shows yet that this hostname is yours."


class QueryTooLarge(ApiError):
    """A question that takes too long to be answered."""

    status = 422
    code = "QUERY_TOO_LARGE"
    default = "To answer this takes too long. Please ask for a shorter range, for one link, or with fewer filters."


class ClicksNotKept(ApiError):
    """A question that needs single clicks, of a time of which the organization keeps counts alone."""

    status = 422
    code = "CLICKS_NOT_KEPT"
    default = "Single clicks of that time are not kept. Ask for later ones, for one fact at a time, or by the quarter."


class RateLimited(ApiError):
    """The caller has used up what it may ask for; `retry_after_s` is when it may ask again."""

    status = 429
    code = "RATE_LIMIT_EXCEEDED"
    default = "Too many requests."

    def __init__(self, retry_after_s: int, message: str = "") -> None:
        super().__init__(message or f"Too many requests. Please retry after {retry_after_s} seconds.")
        self.retry_after_s = retry_after_s
        self.headers = {"Retry-After": str(retry_after_s)}


class InternalError(ApiError):
    """A fault of ours; the log has it under the request's id."""

    status = 500
    code = "INTERNAL_ERROR"
    default = "Something went wrong on our side; the request id leads to it."


class Unavailable(ApiError):
    """Something we need is away; the same request may succeed soon."""

    status = 503
    code = "SERVICE_UNAVAILABLE"
    default = "The service can't answer at the moment. Please try again."
    headers = MappingProxyType({"Retry-After": "1"})


OF_EVERY_CALLER = (
    NotAuthenticated,
    InvalidApiKey,
    InvalidToken,
    InsufficientPermissions,
    Invalid,
    RateLimited,
    Unavailable,
)
"""What every route may answer that wants to know who calls."""

OF_EVERY_POST = (Invalid, PayloadTooLarge, IdempotencyKeyInUse, IdempotencyKeyReused)
"""What every route may answer, besides, that makes something of a body, once for its Idempotency-Key."""
