"""Why a request got no answer, in the words of Go's net/http: the kubelet and containerd show them as they are."""

from __future__ import annotations

import os
import re
import ssl

import aiohttp
from yarl import URL

_PLAIN = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")  # what OpenSSL says of an answer without TLS


def quoted(method: str, url: str | URL) -> str:
    """The request as Go names it: Head "https://..."."""
    return f'{method.capitalize()} "{url}"'


def failed(method: str, url: str | URL, error: aiohttp.ClientError) -> str:
    """The whole sentence: Get "http://127.0.0.1:5/": dial tcp 127.0.0.1:5: connect: connection refused."""
    return f"{quoted(method, url)}: {_reason(error)}"


def system_words(error: OSError) -> str:
    """What the system says of a failure; of several addresses the first that was tried counts."""
    number = re.search(r"\[Errno (\d+)\]", str(error))
    if number is not None:
        return os.strerror(int(number[1])).lower()
    return (error.strerror or str(error) or "connection failed").lower()


def _reason(error: aiohttp.ClientError) -> str:
    match error:
        case aiohttp.ClientConnectorDNSError():
            return f"dial tcp: lookup {error.host}: no such host"
        case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLCertVerificationError() as why):
            return f"tls: failed to verify certificate: x509: {why.verify_message}"
        case aiohttp.ClientConnectorSSLError(os_error=ssl.SSLError() as why) if why.reason not in _PLAIN:
            return f"remote error: tls: {(why.reason or 'handshake failure').replace('_', ' ').lower()}"
        case aiohttp.ClientConnectorSSLError():
            return "http: server gave HTTP response to HTTPS client"
        case aiohttp.ClientConnectorError():
            return f"dial tcp {_address(error)}: connect: {system_words(error.os_error)}"
        case aiohttp.ConnectionTimeoutError():
            return "dial tcp: i/o timeout"
        case aiohttp.ServerDisconnectedError():
            return "EOF"
        case aiohttp.ClientResponseError():
            return "malformed HTTP response"
        case aiohttp.ClientOSError():
            return f"read tcp: {system_words(error)}"
    return str(error) or type(error).__name__


def _address(error: aiohttp.ClientConnectorError) -> str:
    tried = re.search(r"\('([0-9a-fA-F.:]+)', \d+", str(error.os_error))
    host = tried[1] if tried else error.host
    return f"[{host}]:{error.port}" if ":" in host else f"{host}:{error.port}"
