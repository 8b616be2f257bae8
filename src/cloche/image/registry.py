"""A registry, spoken to: documents and content by HTTP, with all that can go wrong on the way.

Credentials go to the registry they are for, and to the token server that it names, over TLS; never to another host
that it redirects to. What was cut is asked for again from where it was cut. Everything that comes is checked by its
digest while it streams, so nothing here has to be believed.
Source: distribution-spec 1.1; Docker's token authentication.
"""

from __future__ import annotations

from cloche.errors import Error, Invalid, NotFound
from cloche.image.challenge import challenges
from cloche.image.credentials import Credentials
from cloche.image.registries import is_loopback
from cloche.oci.digest import digest_of
from cloche.oci.manifest import INDEXES, MANIFESTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from urllib3 import BaseHTTPResponse, PoolManager

    from cloche.image.registries import Endpoint
    from cloche.oci.descriptor import Descriptor

CONNECT, READ = 15.0, 30.0  # seconds
DOCUMENT_MOST = 4 << 20  # bytes of a manifest, as registries take them
_TRIES, _REDIRECTS = 5, 5
_PATIENCE = 60.0  # seconds that a registry may ask us to wait, all told
_CHUNK = 1 << 20
_AGAIN = (408, 429, 500, 502, 503, 504)


class Denied(Error):
    """The registry wants somebody else to ask."""


class Registry:
    """One repository of one registry. Threads may share it."""

    def __init__(
        self,
        endpoint: Endpoint,
        repository: str,
        credentials: Credentials,
        *,
        actions: str = "pull",
    ) -> None:
        self.endpoint, self.repository = endpoint, repository
        self._credentials, self._actions = credentials, actions
        self.stopped: Callable[[], bool] = lambda: False  # whether what is on its way is given up
        self._scheme = ""
        self._authorization = ""
        self._pool = _pool(endpoint.insecure)

    @property
    def where(self) -> str:
        """For messages."""
        return self.endpoint.host

    # -- what is asked for

    def ping(self) -> None:
        """See whether we are let in. Raises Denied, Error."""
        self._ask("GET", "/v2/", "log in to " + self.where).release_conn()

    def manifest(self, reference: str) -> tuple[bytes, str]:
        """A manifest or index by tag or digest, and the type that the server says it has. Raises NotFound, Error."""
        what = f"pull {self.repository}:{reference}" if ":" not in reference else f"pull {self.repository}@{reference}"
        accept = ", ".join((*MANIFESTS, *INDEXES))
        path = f"/v2/{self.repository}/manifests/{reference}"
        response = self._ask("GET", path, what, {"Accept": accept})
        data = _document(response, what)
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
        said = response.headers.get("Docker-Content-Digest", "")
        wanted = reference if ":" in reference else said
        if wanted and wanted.startswith("sha256:") and digest_of(data) != wanted:
            raise Invalid(
                what, f"the manifest has the digest {digest_of(data)}, not {_shown(wanted)}", "it was changed"
            )
        if kind not in (*MANIFESTS, *INDEXES):
            kind = ""  # registries on plain file servers say nothing, or text/plain: the document says what it is
        return data, kind

    def blob(self, descriptor: Descriptor) -> Iterator[bytes]:
        """Content, in chunks, from the start to its end however often the connection is cut. Raises Error."""
        what = f"pull {descriptor.digest[:19]}"
        path = f"/v2/{self.repository}/blobs/{descriptor.digest}"
        at, failures = 0, 0
        while True:
            before = at
            try:
                for data in self._part(path, what, at):
                    if self.stopped():
                        return
                    at += len(data)
                    yield data
                if at >= descriptor.size:
                    return
                problem = f"the connection ended after {at} of {descriptor.size} bytes"
            except _cuts() as error:
                problem = _cause(error)
            failures = 1 if at > before else failures + 1
            if failures >= _TRIES:
                raise Error(what, problem, f"is {self.where} all right?")
            _wait(0.2 * 2**failures)

    def _part(self, path: str, what: str, at: int) -> Iterator[bytes]:
        """The content from `at` on; of a server that cannot begin there, the start is thrown away."""
        headers = {"Range": f"bytes={at}-"} if at else {}
        response = self._ask("GET", path, what, headers)
        try:
            skip = at
            if response.status == 206:
                start = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
                skip = 0 if start == str(at) else -1
                if skip:
                    raise Invalid(what, "the server sent another part than it was asked for")
            for data in response.stream(_CHUNK, decode_content=False):
                if skip >= len(data):
                    skip -= len(data)
                    continue
                yield data[skip:] if skip else data
                skip = 0
        finally:
            response.close()

    # -- how

    def _ask(self, method: str, path: str, what: str, headers: dict[str, str] | None = None) -> BaseHTTPResponse:
        """An answer that is one; 401 is answered with who we are, what is busy is asked again. Raises Error."""
        asked, waited = False, 0.0
        for tries in range(1, 100):
            response, own = self._follow(method, path, what, headers or {})
            if response.status < 400:
                return response
            if response.status == 401 and own and not asked:  # of another host, nobody has to know who we are
                asked = True
                self._authorization = self._authorize(response, what)
                continue
            if response.status in _AGAIN and tries < _TRIES + (response.status == 429) * 5:
                pause = _pause(response.headers.get("Retry-After", ""), tries)
                if waited + pause <= _PATIENCE:
                    response.drain_conn()
                    waited += pause
                    _wait(pause)
                    continue
            raise self._refused(response, what)
        raise AssertionError

    def _follow(self, method: str, path: str, what: str, headers: dict[str, str]) -> tuple[BaseHTTPResponse, bool]:
        """One answer, redirects followed, and whether it is the registry's own; to another host, or from TLS to none,
        credentials do not go along."""
        from urllib.parse import urljoin, urlsplit

        response = self._first(method, path, what, headers)
        origin = url = f"{self._scheme}://{self.endpoint.host}{path}"
        same = True
        for _ in range(_REDIRECTS):
            if response.status not in (301, 302, 303, 307, 308):
                return response, same
            target = urljoin(url, response.headers.get("Location", ""))
            old, new = urlsplit(url), urlsplit(target)
            if new.scheme not in ("https", "http") or (new.scheme == "http" and old.scheme == "https"):
                raise Invalid(what, f"{self.where} redirects to {_shown(target)}, which is not safe")
            response.drain_conn()
            same = (new.scheme, new.netloc) == (urlsplit(origin).scheme, urlsplit(origin).netloc)
            url = target
            response = self._send(method, url, what, headers, same)
        raise Invalid(what, f"{self.where} redirects more than {_REDIRECTS} times")

    def _first(self, method: str, path: str, what: str, headers: dict[str, str]) -> BaseHTTPResponse:
        """The first answer settles whether the registry speaks TLS, where it may be without."""
        if self._scheme:
            return self._send(method, f"{self._scheme}://{self.endpoint.host}{path}", what, headers, True)
        problem: Error | None = None
        for scheme in self.endpoint.schemes:
            try:
                found = self._send(method, f"{scheme}://{self.endpoint.host}{path}", what, headers, True)
            except Error as error:
                problem = error if problem is None or scheme == "http" else problem
                continue
            self._scheme = scheme
            return found
        assert problem is not None
        raise problem

    def _send(self, method: str, url: str, what: str, headers: dict[str, str], own: bool) -> BaseHTTPResponse:
        from urllib3.exceptions import HTTPError

        from cloche.version import VERSION

        sent = {"User-Agent": f"cloche/{VERSION}", "Accept-Encoding": "identity", **headers}
        if own and self._authorization:
            sent["Authorization"] = self._authorization
        try:
            return self._pool.request(method, url, headers=sent, redirect=False, preload_content=False, retries=False)
        except HTTPError as error:
            hint = "is the name right, and can this host reach it?"
            if "certificate" in str(error).lower() and not self.endpoint.insecure:
                from cloche.image.registries import config_path

                hint = f'trust its authority (SSL_CERT_FILE), or say [registry."{self.where}"] insecure = true in '
                hint += config_path()
            raise Error(what, f"{self.where}: {_cause(error)}", hint) from None
        except ValueError as error:  # a location that is none
            raise Invalid(what, f"{_shown(url)}: {_shown(str(error))}") from None

    def _refused(self, response: BaseHTTPResponse, what: str) -> Error:
        """The error that an answer is."""
        status = response.status
        try:
            data = _document(response, what)
        except Error:
            data = b""
        code, said = _complaint(data)
        if status == 429:
            return Error(what, f"too many requests{': ' + said if said else ''}", "wait, or log in: cloche login")
        if status in (401, 403):
            return Denied(what, f"access denied{': ' + said if said else ''}", f"log in: cloche login {self.where}")
        if status == 404:
            return NotFound(what, f"{code or 'not found'}{': ' + said if said else ''}", "check name and tag")
        return Error(what, f"{self.where} answered {status}{': ' + said if said else ''}")

    # -- who we are

    def _authorize(self, response: BaseHTTPResponse, what: str) -> str:
        """The Authorization header that the registry wants. Raises Denied, Error."""
        header = ", ".join(response.headers.getlist("WWW-Authenticate"))
        response.drain_conn()
        offered = {challenge.scheme: challenge for challenge in challenges(header)}
        if "bearer" in offered:
            return "Bearer " + self._token(offered["bearer"].get("realm"), offered["bearer"].get("service"), what)
        if "basic" in offered and self._credentials.user:
            if self._scheme == "http" and not self.endpoint.insecure:
                raise Error(what, f"{self.where} wants a password without TLS")
            return self._credentials.basic()
        raise Denied(what, f"{self.where} wants to know who asks", f"log in: cloche login {self.where}")

    def _token(self, realm: str, service: str, what: str) -> str:
        """A token of the server that the registry names; who has no credentials asks as nobody. Raises Error."""
        from json import loads
        from urllib.parse import urlencode, urlsplit

        from urllib3.exceptions import HTTPError

        place = urlsplit(realm)
        plain_ok = self._scheme == "http" and (is_loopback(place.netloc) or place.netloc == self.endpoint.host)
        if place.scheme != "https" and not (place.scheme == "http" and plain_ok):
            raise Invalid(what, f"{self.where} sends for a token to {_shown(realm)}, which is not safe")
        scope = f"repository:{self.repository}:{self._actions}" if self.repository else ""
        headers, known = {}, self._credentials
        fields = [("service", service)] * bool(service) + [("scope", scope)] * bool(scope)
        try:
            if known.token:
                form = [
                    *fields,
                    ("grant_type", "refresh_token"),
                    ("refresh_token", known.token),
                    ("client_id", "cloche"),
                ]
                kind = {"Content-Type": "application/x-www-form-urlencoded"}
                answer = self._pool.request(
                    "POST",
                    realm,
                    body=urlencode(form),
                    headers=kind,
                    redirect=False,
                    preload_content=False,
                    retries=False,
                )
            else:
                if known.user:
                    headers["Authorization"] = known.basic()
                    fields.append(("account", known.user))
                url = realm + ("&" if place.query else "?") + urlencode(fields)
                answer = self._pool.request(
                    "GET", url, headers=headers, redirect=False, preload_content=False, retries=False
                )
        except HTTPError as error:
            raise Error(what, f"the token server {_shown(place.netloc)}: {_cause(error)}") from None
        if answer.status != 200:
            said = _complaint(_document(answer, what))[1]
            if answer.status in (401, 403):
                raise Denied(what, f"access denied{': ' + said if said else ''}", f"log in: cloche login {self.where}")
            raise Error(what, f"the token server {_shown(place.netloc)} answered {answer.status}")
        try:
            found = loads(_document(answer, what))
            token = found.get("token") or found["access_token"]
            if not isinstance(token, str) or not token.isascii() or not token.isprintable() or len(token) > 1 << 16:
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Invalid(what, f"the token server {_shown(place.netloc)} gave no token") from None
        return token


def _pool(insecure: bool) -> PoolManager:
    import os

    import urllib3

    timeout = urllib3.Timeout(connect=CONNECT, read=READ)
    if insecure:
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        return urllib3.PoolManager(maxsize=8, timeout=timeout, cert_reqs="CERT_NONE")
    return urllib3.PoolManager(maxsize=8, timeout=timeout, ca_certs=os.environ.get("SSL_CERT_FILE"))


def _cuts() -> tuple[type[Exception], ...]:
    """What a connection that is cut raises while its content is read."""
    from urllib3.exceptions import HTTPError

    return (HTTPError, ConnectionError, TimeoutError)


def _cause(error: Exception) -> str:
    """What a person can use of an exception of urllib3's."""
    from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError, ReadTimeoutError

    inner = getattr(error, "reason", None) or error
    if isinstance(inner, NameResolutionError):
        return "there is no host of this name"
    if isinstance(inner, ConnectTimeoutError) and not isinstance(inner, NewConnectionError):
        return f"no connection within {CONNECT:g} s"
    if isinstance(inner, ReadTimeoutError):
        return f"no answer within {READ:g} s"
    text = str(inner)
    if "Errno" in text and "]" in text:
        text = text.partition("]")[2].strip()
    return _shown(text.rpartition(": ")[2] if text.startswith("<") or "object at 0x" in text else text)


def _shown(text: str) -> str:
    """A stranger's words: short, and without what a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:300])


def _document(response: BaseHTTPResponse, what: str) -> bytes:
    """A whole body that is not too long. Raises Invalid, Error."""
    data = b""
    try:
        for piece in response.stream(1 << 16, decode_content=False):
            data += piece
            if len(data) > DOCUMENT_MOST:
                raise Invalid(what, f"the answer is larger than {DOCUMENT_MOST >> 20} MiB")
    except _cuts() as error:
        raise Error(what, _cause(error)) from None
    finally:
        response.close() if len(data) > DOCUMENT_MOST else response.release_conn()
    return data


def _complaint(data: bytes) -> tuple[str, str]:
    """Code and message of a registry's error; empty where it says none."""
    from json import loads

    try:
        first = loads(data)["errors"][0]
        return _shown(str(first.get("code", ""))).lower().replace("_", " "), _shown(str(first.get("message", "")))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        try:
            found = loads(data)
            return "", _shown(str(found.get("details") or found.get("message") or ""))
        except (ValueError, AttributeError, RecursionError):
            return "", ""


def _pause(asked: str, tries: int) -> float:
    """Seconds to wait: as many as the server says, or longer each time."""
    if asked.isascii() and asked.isdigit():
        return float(min(int(asked), 1 << 20))
    return float(0.25 * 2**tries)


def _wait(seconds: float) -> None:
    from threading import Event

    Event().wait(seconds)
