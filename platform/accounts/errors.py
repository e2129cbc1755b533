"""Refusals of the services, one class per HTTP status. Free of HTTP: the API and the pages translate."""


class ServiceError(Exception):
    """Nothing was changed. ``message`` is a sentence for a person; ``status`` the HTTP status it maps to."""

    status = 400

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class Invalid(ServiceError):
    """Input refused. ``fields`` maps each field's name to what is wrong and what is allowed."""

    def __init__(self, message: str = "", **fields: str) -> None:
        super().__init__(message or "; ".join(f"{name}: {text}" for name, text in fields.items()))
        self.fields = fields


class Unauthenticated(ServiceError):
    status = 401


class Forbidden(ServiceError):
    status = 403


class NotFound(ServiceError):
    """Missing, or hidden from this user: an outsider cannot tell the two apart."""

    status = 404

    def __init__(self, kind: str, name: object = "") -> None:
        super().__init__(f"{kind} '{name}' was not found" if name != "" else f"{kind} was not found")


class Conflict(ServiceError):
    status = 409


class TooLarge(ServiceError):
    status = 413


class Timeout(ServiceError):
    status = 504


class Unavailable(ServiceError):
    """The platform or the deployment cannot answer now; ``retry_after`` in seconds when known."""

    status = 503

    def __init__(self, message: str, *, code: str = "", retry_after: int | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after
