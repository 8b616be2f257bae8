"""Who we are to a registry: Docker's own file, config.json, and the helpers that it names.

    {"auths": {"host:port": {"auth": base64 of USER:PASSWORD, "identitytoken": ...}},
     "credsStore": HELPER, "credHelpers": {"host": HELPER}}

A helper is the program docker-credential-HELPER, told what to do on its standard input. The file is written aside,
readable by nobody else, and renamed. Source: docker/cli config, docker-credential-helpers.
"""

from __future__ import annotations

import os

from cloche.errors import Error, Invalid
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

HUB = "https://index.docker.io/v1/"  # the key of docker.io, for historical reasons
_HELPER_WAIT = 60  # seconds: it may ask a person
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")


class Credentials(Value):
    """user and password; or a token that is changed for others (user `<token>` in Docker's helpers)."""

    user: str = ""
    password: str = ""
    token: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.user!r}, ...)"  # never in a log, a traceback or a notebook

    def basic(self) -> str:
        """As an Authorization header has them."""
        from base64 import b64encode

        return "Basic " + b64encode(f"{self.user}:{self.password}".encode()).decode()


def path(environ: Mapping[str, str]) -> str:
    """Where the file is."""
    directory = environ.get("DOCKER_CONFIG") or os.path.join(environ.get("HOME") or "/root", ".docker")
    return os.path.join(directory, "config.json")


def key_of(domain: str) -> str:
    """Under what a registry is in the file."""
    return HUB if domain in ("docker.io", "index.docker.io", "registry-1.docker.io") else domain


def find(file: str, domain: str) -> Credentials:
    """What the file or its helpers have for a registry; empty for nothing. Raises Invalid, Error."""
    document = _read(file)
    if helper := _helper(document, domain):
        return _ask(helper, key_of(domain))
    wanted = key_of(domain)
    for key, entry in _auths(document).items():
        if (key == wanted or _host(key) == domain) and isinstance(entry, dict):
            return _decoded(entry, file)
    return Credentials()


def store(file: str, domain: str, credentials: Credentials) -> str:
    """Keep them; returns where. Raises Invalid, Error."""
    document = _read(file)
    if helper := _helper(document, domain):
        user = credentials.user if not credentials.token else "<token>"
        secret = credentials.token or credentials.password
        _run(helper, "store", _json({"ServerURL": key_of(domain), "Username": user, "Secret": secret}))
        return f"docker-credential-{helper}"
    from base64 import b64encode

    entry = {"auth": b64encode(f"{credentials.user}:{credentials.password}".encode()).decode()}
    if credentials.token:
        entry["identitytoken"] = credentials.token
    document["auths"] = {**_auths(document), key_of(domain): entry}
    _write(file, document)
    return file


def forget(file: str, domain: str) -> bool:
    """Remove them; whether there were some. Raises Invalid, Error."""
    document = _read(file)
    if helper := _helper(document, domain):
        _run(helper, "erase", key_of(domain))
    auths = _auths(document)
    gone = [key for key in auths if key == key_of(domain) or _host(key) == domain]
    if gone:
        document["auths"] = {key: entry for key, entry in auths.items() if key not in gone}
        _write(file, document)
    return bool(gone or helper)


def _host(key: str) -> str:
    """Docker's older files have addresses as keys: https://host/v1/."""
    return key.partition("://")[2].partition("/")[0] if "://" in key else key


def _auths(document: dict[str, Any]) -> dict[str, Any]:
    found = document.get("auths", {})
    return found if isinstance(found, dict) else {}


def _helper(document: dict[str, Any], domain: str) -> str:
    helpers = document.get("credHelpers", {})
    name = helpers.get(domain, "") if isinstance(helpers, dict) else ""
    name = name or document.get("credsStore", "")
    if name and (not isinstance(name, str) or not _NAME.issuperset(name)):
        raise Invalid("use a credential helper", f"{str(name)[:80]!r} is no helper's name", "see config.json")
    return str(name)


def _read(file: str) -> dict[str, Any]:
    from json import loads

    try:
        with open(file, "rb") as stream:
            found = loads(stream.read(1 << 20))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise Error(f"read {file}", error.errno or 5) from None
    except ValueError as error:
        raise Invalid(
            f"read {file}", f"it is not JSON ({error})", "docker and podman write it; mend or remove it"
        ) from None
    if not isinstance(found, dict):
        raise Invalid(f"read {file}", "it is not an object of JSON")
    return found


def _decoded(entry: dict[str, Any], file: str) -> Credentials:
    from base64 import b64decode

    token = str(entry.get("identitytoken", ""))
    try:
        user, _, password = b64decode(str(entry.get("auth", "")), validate=True).decode().partition(":")
    except ValueError:
        raise Invalid(f"read {file}", "an entry of auths is damaged", "log in again: cloche login") from None
    return Credentials(
        user or str(entry.get("username", "")), password.rstrip("\0") or str(entry.get("password", "")), token
    )


def _json(document: object) -> str:
    from json import dumps

    return dumps(document)


def _write(file: str, document: dict[str, Any]) -> None:
    from json import dumps

    aside = f"{file}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(file), 0o700, exist_ok=True)
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fd, "w", encoding="utf-8") as stream:
            stream.write(dumps(document, indent="\t") + "\n")
            stream.flush()
            os.fsync(fd)
        os.rename(aside, os.path.realpath(file))
    except OSError as error:
        raise Error(f"write {file}", error.errno or 5) from None


def _ask(helper: str, key: str) -> Credentials:
    from json import loads

    text = _run(helper, "get", key, may_lack=True)
    if not text:
        return Credentials()
    try:
        found = loads(text)
        user, secret = str(found["Username"]), str(found["Secret"])
    except (ValueError, KeyError, TypeError):
        raise Invalid(f"ask docker-credential-{helper}", "its answer cannot be read") from None
    return Credentials(token=secret) if user == "<token>" else Credentials(user, secret)


def _run(helper: str, verb: str, text: str, may_lack: bool = False) -> str:
    import subprocess

    what = f"run docker-credential-{helper} {verb}"
    try:
        done = subprocess.run(
            [f"docker-credential-{helper}", verb], input=text, capture_output=True, text=True, timeout=_HELPER_WAIT
        )
    except FileNotFoundError:
        raise Error(what, "there is no such program in PATH", "install it, or take it out of config.json") from None
    except subprocess.TimeoutExpired:
        raise Error(what, f"no answer within {_HELPER_WAIT} s") from None
    if done.returncode:
        if may_lack and "credentials not found" in done.stdout + done.stderr:
            return ""
        said = "".join(c for c in (done.stdout + done.stderr).strip()[:200] if c.isprintable())
        raise Error(what, said or f"it ended with {done.returncode}")
    return done.stdout
