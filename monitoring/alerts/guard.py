"""Calling addresses that users name, without letting them reach what only this platform may reach.

The name is resolved once, every address it has must be allowed, and the call goes to that very address: a name that
resolves differently the second time gains nothing. Redirects are not followed.
"""

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

import urllib3
from django.conf import settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Metadata services of clouds that are not on link-local addresses.
METADATA = frozenset(map(ipaddress.ip_address, ("100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254")))
NAT64 = ipaddress.ip_network("64:ff9b::/96")
LONGEST_URL = 2048
LONGEST_ANSWER = 4096


class Refused(Exception):
    """The address cannot be called; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    text: str


def check_url(url: str) -> SplitResult:
    """The parts of an address that may be called as far as its text tells. Raises Refused."""
    if len(url) > LONGEST_URL or any(character.isspace() or not character.isprintable() for character in url):
        raise Refused(f"Give an address without spaces, at most {LONGEST_URL} characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Refused(f"This is no address: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Refused("Give an address that begins with https:// or http:// and names a host")
    if parts.username or parts.password:
        raise Refused("Give the user and password in a protected Authorization header, not in the address")
    if port == 0:
        raise Refused("Port 0 cannot be called")
    try:
        address = ipaddress.ip_address(parts.hostname)
    except ValueError:
        return parts
    check_address(address)
    return parts


def check_address(address: Address, name: str = "") -> None:
    """Raises Refused, naming the address or ``name``, for one that webhooks must not reach."""
    name = name or str(address)
    if isinstance(address, ipaddress.IPv6Address):
        # An IPv4 address in other clothes.
        translated = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in NAT64 else None
        inner = address.ipv4_mapped or address.sixtofour or translated
        if inner is not None:
            check_address(inner, name)
    if address.is_link_local or address in METADATA or address.is_multicast or address.is_unspecified:
        raise Refused(f"{name} is at an address that webhooks never call")
    private = not address.is_global or address.is_reserved
    if private and not settings.PILOTHOUSE_WEBHOOKS_TO_PRIVATE:
        raise Refused(
            f"{name} is at a private address; the platform team can allow those with PILOTHOUSE_WEBHOOKS_TO_PRIVATE=1"
        )


def resolve(parts: SplitResult) -> Address:
    """An address of the host, all of which are allowed. Raises Refused."""
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Refused(f"The host '{host}' is not known: {error}") from None
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    for address in addresses:
        # Told by its name: what names resolve to in here is not for everybody.
        check_address(address, f"'{host}'")
    if not addresses:
        raise Refused(f"The host '{host}' has no address")
    return addresses[0]


def post(url: str, headers: dict[str, str], body: bytes, seconds: float) -> Answer:
    """The answer to a POST. Raises Refused when there is none, with the reason."""
    parts = check_url(url)
    address = resolve(parts)
    timeout = urllib3.Timeout(total=seconds)
    pool: urllib3.HTTPConnectionPool
    if parts.scheme == "https":
        pool = urllib3.HTTPSConnectionPool(
            str(address), parts.port or 443, timeout=timeout, retries=False, maxsize=1,
            server_hostname=parts.hostname, assert_hostname=parts.hostname, cert_reqs="CERT_REQUIRED",
        )  # fmt: skip
    else:
        pool = urllib3.HTTPConnectionPool(str(address), parts.port or 80, timeout=timeout, retries=False, maxsize=1)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.netloc.rpartition("@")[2]
    with pool:
        try:
            answer = pool.request(
                "POST", path, body=body, headers={**headers, "Host": host}, redirect=False, preload_content=False
            )
            try:
                text = answer.read(LONGEST_ANSWER, decode_content=False).decode("utf-8", "replace")
            finally:
                answer.close()
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise Refused(f"No answer from {parts.hostname}: {_reason(error)}") from None
    return Answer(answer.status, text)


def _reason(error: Exception) -> str:
    # The library's own text tells the object's address in memory, too.
    return str(error).rpartition(">: ")[2] or type(error).__name__
