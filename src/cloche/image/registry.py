"""A registry, spoken to: documents and content by HTTP, with all that can go wrong on the way.

Credentials go to the registry they are for, and to the token server that it names, over TLS; never to another host
that it redirects to. What was cut is asked for again from where it was cut. Everything that comes is checked by its
digest while it streams, so nothing here has to be believed.
Source: distribution-spec 1.1; Docker's token authentication.
"""

from __future__ import annotations

from time import monotonic

from cloche.errors import Error, Invalid, NotFound
from cloche.image.answers import CONNECT, READ, cause, complaint, shown
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

    Body = Callable[[], Iterator[bytes]]

SLOWEST = 1 << 10  # bytes a second, seen over READ: what comes more slowly counts as cut
DOCUMENT_MOST = 4 << 20  # bytes of a manifest, as registries take them
_TRIES, _CUTS, _REDIRECTS = 5, 3, 5
_PATIENCE = 60.0  # seconds that a registry may ask us to wait, all told
_CHUNK, _DROP_MOST = 1 << 20, 1 << 16
_AGAIN = (408, 429, 500, 502, 503, 504)


class Denied(Error):
    """The registry wants somebody else to ask."""


class Unreachable(Error):
    """There was no answer. cut: the connection was there, and ended; another one may do better."""

    cut = False


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
        from threading import Event

        self.endpoint, self.repository = endpoint, repository
        self._credentials, self._actions = credentials, actions
        self.given_up = Event()
        self._coming: set[BaseHTTPResponse] = set()
        self.beside = ""  # another repository that may be read from, too
        self._scheme = ""
        self._authorization = ""
        self._pool = _pool(endpoint.insecure)

    def close(self) -> None:
        """End its connections."""
        for key in self._pool.pools.keys():  # noqa: SIM118 - it cannot be iterated, for threads may share it
            self._pool.pools[key].close()

    def give_up(self) -> None:
        """Let all threads that wait for content go on at once, to their end."""
        self.given_up.set()
        for response in tuple(self._coming):
            try:
                response.shutdown()
            except (OSError, ValueError, RuntimeError):
                continue  # it has ended meanwhile

    @property
    def where(self) -> str:
        """For messages."""
        return self.endpoint.host

    # -- what is asked for

    def ping(self) -> None:
        """See whether we are let in. Raises Denied, Error."""
        self.ask("GET", "/v2/", "log in to " + self.where).release_conn()

    def manifest(self, reference: str) -> tuple[bytes, str]:
        """A manifest or index by tag or digest, and the type that the server says it has. Raises NotFound, Error."""
        what = f"pull {self.repository}:{reference}" if ":" not in reference else f"pull {self.repository}@{reference}"
        accept = ", ".join((*MANIFESTS, *INDEXES))
        path = f"/v2/{self.repository}/manifests/{reference}"
        response = self.ask("GET", path, what, {"Accept": accept})
        data = self.document(response, what)
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
        said = response.headers.get("Docker-Content-Digest", "")
        wanted = reference if ":" in reference else said
        if wanted and wanted.startswith("sha256:") and digest_of(data) != wanted:
            raise Invalid(what, f"the manifest has the digest {digest_of(data)}, not {shown(wanted)}", "it was changed")
        if kind not in (*MANIFESTS, *INDEXES):
            kind = ""  # registries on plain file servers say nothing, or text/plain: the document says what it is
        return data, kind

    def blob(self, descriptor: Descriptor) -> Iterator[bytes]:
        """Content, in chunks, from the start to its end however often the connection is cut. Raises Error."""
        what = f"pull {descriptor.digest[:19]}"
        path = f"/v2/{self.repository}/blobs/{descriptor.digest}"
        at, failures = 0, 0
        while True:
            before, problem = at, ""
            try:
                for data in self._part(path, what, at):
                    at += len(data)
                    yield data
                if at >= descriptor.size:
                    return
            except Unreachable as error:
                if not at:  # nor was there ever one
                    raise
                problem = error.cause
            except _cuts() as error:
                problem = cause(error)
            # a few bytes each time are no progress: it would never end
            failures = 1 if at - before >= SLOWEST else failures + 1
            if failures >= _TRIES or self.given_up.wait(0.2 * 2**failures):
                problem = problem or f"the connection ended after {at} of {descriptor.size} bytes"
                raise Error(what, problem, f"is {self.where} all right?")

    def _part(self, path: str, what: str, at: int) -> Iterator[bytes]:
        """The content from `at` on; of a server that cannot begin there, the start is thrown away."""
        headers = {"Range": f"bytes={at}-"} if at else {}
        response = self.ask("GET", path, what, headers)
        try:
            skip = at
            if response.status == 206:
                start = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
                skip = 0 if start == str(at) else -1
                if skip:
                    raise Invalid(what, "the server sent another part than it was asked for")
            for data in self._paced(response):
                if skip >= len(data):
                    skip -= len(data)
                    continue
                yield data[skip:] if skip else data
                skip = 0
        finally:
            response.close()

    def _paced(self, response: BaseHTTPResponse) -> Iterator[bytes]:
        """A body as it comes, as long as it does not come too slowly. Raises what `_cuts` has."""
        self._coming.add(response)
        try:
            waited, came = 0.0, 0
            while not self.given_up.is_set():
                before = monotonic()
                data = response.read1(_CHUNK, decode_content=False)
                waited, came = waited + monotonic() - before, came + len(data)
                if not data:
                    return
                if waited > READ:
                    if came < SLOWEST * READ:
                        raise TimeoutError(f"only {came} bytes came in {waited:.0f} s")
                    waited, came = 0.0, 0
                yield data
        finally:
            self._coming.discard(response)

    def document(self, response: BaseHTTPResponse, what: str) -> bytes:
        """A whole body that is not too long. Raises Invalid, Error."""
        data = b""
        try:
            for piece in self._paced(response):
                data += piece
                if len(data) > DOCUMENT_MOST:
                    raise Invalid(what, f"the answer is larger than {DOCUMENT_MOST >> 20} MiB")
        except _cuts() as error:
            raise Error(what, cause(error) or f"the connection ended after {len(data)} bytes") from None
        finally:
            response.close() if len(data) > DOCUMENT_MOST else response.release_conn()
        return data

    def drop(self, response: BaseHTTPResponse) -> None:
        """Pass over a body, so that its connection can be used again; one without end is not worth it."""
        total = 0
        try:
            for piece in self._paced(response):
                total += len(piece)
                if total > _DROP_MOST:
                    response.close()
                    return
            response.release_conn()
        except _cuts():
            response.close()

    # -- how

    def ask(
        self, method: str, path: str, what: str, headers: dict[str, str] | None = None, body: Body | None = None
    ) -> BaseHTTPResponse:
        """An answer that is one; 401 is answered with who we are, what is busy is asked again. Raises Error.

        path: or an address that `located` gave. body: called for each try; what was cut in it is not sent again.
        """
        asked, waited = False, 0.0
        for tries in range(1, 100):
            try:
                response, own = self._follow(method, path, what, headers or {}, body)
            except Unreachable as error:
                if body or not error.cut or tries >= _CUTS or self.given_up.wait(_pause("", tries)):
                    raise
                continue
            if response.status < 400:
                return response
            if response.status == 401 and own and not asked:  # of another host, nobody has to know who we are
                asked = True
                self._authorization = self._authorize(response, what)
                continue
            if response.status in _AGAIN and tries < _TRIES + (response.status == 429) * 5:
                pause = _pause(response.headers.get("Retry-After", ""), tries)
                if waited + pause <= _PATIENCE:
                    self.drop(response)
                    waited += pause
                    if not self.given_up.wait(pause):
                        continue
            raise self._refused(response, what)
        raise AssertionError

    def located(self, place: str, path: str, what: str) -> str:
        """The address that an answer to `path` names. Raises Invalid for one that is not safe."""
        from urllib.parse import urljoin, urlsplit

        try:
            target = urljoin(f"{self._scheme}://{self.endpoint.host}{path}", place)
            new = urlsplit(target)
        except ValueError:
            raise Invalid(what, f"{self.where} names {shown(place)}, which is no address") from None
        if new.scheme not in ("https", "http") or (new.scheme, self._scheme) == ("http", "https") or "@" in new.netloc:
            raise Invalid(what, f"{self.where} names {shown(target)}, which is not safe")
        return target

    def _is_own(self, url: str) -> bool:
        """Whether an address is the registry's, by the scheme that it is spoken to with."""
        from urllib.parse import urlsplit

        new = urlsplit(url)
        return (new.scheme, new.netloc) == (self._scheme, self.endpoint.host)

    def _follow(
        self, method: str, path: str, what: str, headers: dict[str, str], body: Body | None
    ) -> tuple[BaseHTTPResponse, bool]:
        """One answer, redirects followed, and whether it is the registry's own; to another host, or from TLS to none,
        credentials do not go along."""
        from urllib.parse import urljoin, urlsplit

        same = path.startswith("/") or self._is_own(path)
        if path.startswith("/"):
            response = self._first(method, path, what, headers, body)
            url = f"{self._scheme}://{self.endpoint.host}{path}"
        else:
            response, url = self._send(method, path, what, headers, same, body), path
        for _ in range(_REDIRECTS):
            if response.status not in (301, 302, 303, 307, 308):
                return response, same
            location = response.headers.get("Location", "")
            self.drop(response)
            try:
                target = urljoin(url, location)
                old, new = urlsplit(url), urlsplit(target)
            except ValueError:
                raise Invalid(what, f"{self.where} redirects to {shown(location)}, which is no address") from None
            if new.scheme not in ("https", "http") or (new.scheme == "http" and old.scheme == "https"):
                raise Invalid(what, f"{self.where} redirects to {shown(target)}, which is not safe")
            url, same = target, self._is_own(target)
            response = self._send(method, url, what, headers, same, body)
        self.drop(response)
        raise Invalid(what, f"{self.where} redirects more than {_REDIRECTS} times")

    def _first(self, method: str, path: str, what: str, headers: dict[str, str], body: Body | None) -> BaseHTTPResponse:
        """The first answer settles whether the registry speaks TLS, where it may be without."""
        if self._scheme:
            return self._send(method, f"{self._scheme}://{self.endpoint.host}{path}", what, headers, True, body)
        problem: Error | None = None
        for scheme in self.endpoint.schemes:
            try:
                found = self._send(method, f"{scheme}://{self.endpoint.host}{path}", what, headers, True, body)
            except Error as error:
                problem = error if problem is None or scheme == "http" else problem
                continue
            self._scheme = scheme
            return found
        assert problem is not None
        raise problem

    def _send(
        self, method: str, url: str, what: str, headers: dict[str, str], own: bool, body: Body | None
    ) -> BaseHTTPResponse:
        from urllib3.exceptions import HTTPError

        from cloche.version import VERSION

        sent = {"User-Agent": f"cloche/{VERSION}", "Accept-Encoding": "identity", **headers}
        if own and self._authorization:
            sent["Authorization"] = self._authorization
        try:
            data = body() if body else None
            return self._pool.request(
                method, url, data, headers=sent, redirect=False, preload_content=False, retries=False
            )
        except HTTPError as error:
            hint = "is the name right, and can this host reach it?"
            if "certificate" in str(error).lower() and not self.endpoint.insecure:
                from cloche.settings import config_path

                hint = f'trust its authority (SSL_CERT_FILE), or say [registry."{self.where}"] insecure = true in '
                hint += config_path()
            unreachable = Unreachable(what, f"{self.where}: {cause(error)}", hint)
            unreachable.cut = any(isinstance(each, ConnectionError) for each in error.args)
            raise unreachable from None
        except ValueError as error:  # a location that is none
            raise Invalid(what, f"{shown(url)}: {shown(str(error))}") from None

    def _refused(self, response: BaseHTTPResponse, what: str) -> Error:
        """The error that an answer is."""
        status = response.status
        try:
            data = self.document(response, what)
        except Error:
            data = b""
        code, said = complaint(data)
        if status == 429:
            wanted = response.headers.get("Retry-After", "")
            pause = f"; it wants to be asked again in {_pause(wanted, 0):.0f} s" if wanted else ""
            return Error(
                what, f"too many requests{': ' + said if said else ''}{pause}", "wait, or log in: cloche login"
            )
        if status in (401, 403):
            return Denied(what, f"access denied{': ' + said if said else ''}", f"log in: cloche login {self.where}")
        if status == 404:
            return NotFound(what, f"{code or 'not found'}{': ' + said if said else ''}", "check name and tag")
        return Error(what, f"{self.where} answered {status}{': ' + said if said else ''}")

    # -- who we are

    def _authorize(self, response: BaseHTTPResponse, what: str) -> str:
        """The Authorization header that the registry wants. Raises Denied, Error."""
        header = ", ".join(response.headers.getlist("WWW-Authenticate"))
        self.drop(response)
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

        try:
            place = urlsplit(realm)
        except ValueError:
            raise Invalid(what, f"{self.where} sends for a token to {shown(realm)}, which is no address") from None
        plain_ok = self._scheme == "http" and (is_loopback(place.netloc) or place.netloc == self.endpoint.host)
        if place.scheme != "https" and not (place.scheme == "http" and plain_ok):
            raise Invalid(what, f"{self.where} sends for a token to {shown(realm)}, which is not safe")
        scope = f"repository:{self.repository}:{self._actions}" if self.repository else ""
        headers, known = {}, self._credentials
        scopes = [scope] * bool(scope) + [f"repository:{self.beside}:pull"] * bool(self.beside)
        fields = [("service", service)] * bool(service) + [("scope", each) for each in scopes]
        try:
            if known.token:
                form = [
                    *(field for field in fields if field[0] != "scope"),
                    *[("scope", " ".join(scopes))] * bool(scopes),
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
            raise Error(what, f"the token server {shown(place.netloc)}: {cause(error)}") from None
        if answer.status != 200:
            said = complaint(self.document(answer, what))[1]
            if answer.status in (401, 403):
                raise Denied(what, f"access denied{': ' + said if said else ''}", f"log in: cloche login {self.where}")
            raise Error(what, f"the token server {shown(place.netloc)} answered {answer.status}")
        try:
            found = loads(self.document(answer, what))
            token = found.get("token") or found["access_token"]
            if not isinstance(token, str) or not token.isascii() or not token.isprintable() or len(token) > 1 << 16:
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise Invalid(what, f"the token server {shown(place.netloc)} gave no token") from None
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


def _pause(asked: str, tries: int) -> float:
    """Seconds to wait: as many as the server says, or until when it says, or longer each time."""
    if asked.isascii() and asked.isdigit():
        return float(asked) if len(asked) < 7 else float(1 << 20)
    if asked:
        from email.utils import parsedate_to_datetime
        from time import time

        try:
            return min(max(0.0, parsedate_to_datetime(asked).timestamp() - time()), float(1 << 20))
        except (ValueError, OverflowError):
            pass  # nonsense is as if nothing had been said
    return float(0.25 * 2**tries)
