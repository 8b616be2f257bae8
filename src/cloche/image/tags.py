"""The tags that a registry has of a repository, page by page. Source: distribution-spec 1.1, "Listing Tags"."""

from __future__ import annotations

from urllib.parse import urlsplit

from cloche.errors import Error, Invalid
from cloche.oci.document import parse_object
from cloche.oci.reference import is_tag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.image.registry import Registry

_MOST = 10_000


def listed(registry: Registry) -> list[str]:
    """All of them, sorted. Raises NotFound, Invalid, Error."""
    what = f"list the tags of {registry.repository}"
    found: dict[str, None] = {}
    path = f"/v2/{registry.repository}/tags/list"
    while path:
        response = registry.ask("GET", path, what)
        link = response.headers.get("Link", "")
        tags = parse_object(registry.document(response, what), what).texts("tags")
        wrong = next((tag for tag in tags if not is_tag(tag)), None)
        if wrong is not None:
            raise Invalid(what, f"{wrong[:80]!r} is no tag")
        before = len(found)
        found |= dict.fromkeys(tags)
        if len(found) > _MOST:
            raise Error(what, f"there are more than {_MOST}", "pull one by its tag")
        path = _next(link, registry.repository) if len(found) > before else ""
    return sorted(found)


def _next(link: str, repository: str) -> str:
    """The path of the next page: `</v2/NAME/tags/list?last=TAG&n=100>; rel="next"`. It stays in its repository."""
    address, _, rest = link.partition(">")
    if not address.startswith("<") or 'rel="next"' not in rest.replace(" ", ""):
        return ""
    query = urlsplit(address[1:]).query
    return f"/v2/{repository}/tags/list?{query}"
