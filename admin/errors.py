"""What can go wrong, in the words of the API. Raised where it is noticed, answered once (`admin/http/answers.py`).

ApiError
├── Invalid            400  VALIDATION_ERROR
├── NotAuthenticated   401  AUTHENTICATION_REQUIRED
├── InvalidApiKey      401  INVALID_API_KEY
├── NotFound           404  RESOURCE_NOT_FOUND
├── MethodNotAllowed   405  METHOD_NOT_ALLOWED
├── AlreadyExists      409  RESOURCE_ALREADY_EXISTS
├── PayloadTooLarge    413  PAYLOAD_TOO_LARGE
├── InternalError      500  INTERNAL_ERROR
└── Unavailable        503  SERVICE_UNAVAILABLE
"""

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
    headers: ClassVar[dict[str, str]] = {}

    def __init__(self, message: str | None = None, details: list[Detail] | None = None) -> None:
        super().__init__(message or self.default)
        self.details = details or []


class Invalid(ApiError):
    """The request can't be understood; `details` names the fields, all of them at once."""

    status = 400
    code = "VALIDATION_ERROR"
    default = "Request validation failed."


class NotAuthenticated(ApiError):
    """No credentials were sent."""

    status = 401
    code = "AUTHENTICATION_REQUIRED"
    default = "Send an API key as `Authorization: Bearer YOUR_API_KEY`."
    headers: ClassVar = {"WWW-Authenticate": "Bearer"}


class InvalidApiKey(ApiError):
    """The key is unknown, expired or revoked."""

    status = 401
    code = "INVALID_API_KEY"
    default = "The API key is invalid or expired."
    headers: ClassVar = {"WWW-Authenticate": 'Bearer error="invalid_token"'}


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


class PayloadTooLarge(ApiError):
    """The body is larger than any request needs."""

    status = 413
    code = "PAYLOAD_TOO_LARGE"
    default = "The request body is too large."


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
    headers: ClassVar = {"Retry-After": "1"}
