"""Content and manifests given to a registry. What is there already, or in a repository beside, is not sent.

HEAD says what is there; POST begins an upload, or mounts what another repository of the registry has; PUT sends all of
it. One that was cut begins anew, and what was sent counts only when its digest is right: the registry checks it, and
so does the answer to the manifest. Source: distribution-spec 1.1.
"""

from __future__ import annotations

from urllib.parse import quote

from cloche.errors import Error, Invalid, NotFound
from cloche.image.registry import Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from cloche.image.registry import Registry
    from cloche.oci.descriptor import Descriptor

_TRIES = 4
_PIECE = 1 << 18


def has_blob(registry: Registry, digest: str) -> bool:
    """Whether the repository has it. Raises Denied, Error."""
    what = f"push {digest[:19]}"
    try:
        response = registry.ask("HEAD", f"/v2/{registry.repository}/blobs/{digest}", what)
    except NotFound:
        return False
    registry.drop(response)
    return True


def send_blob(
    registry: Registry,
    descriptor: Descriptor,
    source: Callable[[], BinaryIO],
    beside: str,
    tell: Callable[[int], None],
) -> bool:
    """Give it to the repository; whether it was mounted from the repository `beside` ("": none). Raises Error."""
    what = f"push {descriptor.digest[:19]}"
    for tries in range(1, _TRIES + 1):
        place = _begin(registry, descriptor.digest, beside, what)
        if not place:
            return True
        try:
            _send(registry, place, descriptor, source, what, tell)
            return False
        except Unreachable as error:
            if not error.cut or tries == _TRIES or registry.given_up.wait(0.2 * 2**tries):
                raise
            beside = ""
    raise AssertionError


def _begin(registry: Registry, digest: str, beside: str, what: str) -> str:
    """Where the content is to be sent; "" when it was mounted."""
    path = f"/v2/{registry.repository}/blobs/uploads/"
    query = f"?mount={quote(digest)}&from={quote(beside, safe='')}" if beside else ""
    response = registry.ask("POST", path + query, what, {"Content-Length": "0"})
    place = response.headers.get("Location", "")
    status = response.status
    registry.drop(response)
    if status == 201:
        return ""
    if status != 202 or not place:
        raise Error(what, f"{registry.where} begins no upload (it answered {status})")
    return registry.located(place, path, what)


def _send(
    registry: Registry,
    place: str,
    descriptor: Descriptor,
    source: Callable[[], BinaryIO],
    what: str,
    tell: Callable[[int], None],
) -> None:
    sign = "&" if "?" in place else "?"
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(descriptor.size)}
    url = f"{place}{sign}digest={quote(descriptor.digest)}"
    response = registry.ask("PUT", url, what, headers, lambda: _pieces(registry, source, tell, what))
    registry.drop(response)
    if response.status not in (201, 204):
        raise Error(what, f"{registry.where} has not taken it (it answered {response.status})")


def _pieces(
    registry: Registry, source: Callable[[], BinaryIO], tell: Callable[[int], None], what: str
) -> Iterator[bytes]:
    sent = 0
    with source() as file:
        while data := file.read(_PIECE):
            if registry.given_up.is_set():
                raise Error(what, "it was given up")
            yield data
            sent += len(data)
            tell(sent)


def send_manifest(registry: Registry, reference: str, data: bytes, media_type: str, digest: str) -> None:
    """The last thing: under this tag the image is there. Raises Invalid when the registry has another digest, Error."""
    what = f"push {registry.repository}:{reference}"
    headers = {"Content-Type": media_type, "Content-Length": str(len(data))}
    path = f"/v2/{registry.repository}/manifests/{reference}"
    response = registry.ask("PUT", path, what, headers, lambda: iter((data,)))
    said = response.headers.get("Docker-Content-Digest", "")
    registry.drop(response)
    if said and said != digest:
        raise Invalid(what, f"{registry.where} says that its digest is {said[:100]}, not {digest}", "it was changed")
