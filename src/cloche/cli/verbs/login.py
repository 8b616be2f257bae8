"""login: keep who we are to a registry, once it has let us in."""

from __future__ import annotations

import os
import sys

from cloche.errors import Error, Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def server(parsed: Parsed) -> str:
    """The registry that is meant: host and port."""
    text = parsed.arguments[0] if parsed.arguments else "docker.io"
    host = text.partition("://")[2] if "://" in text else text
    host = host.partition("/")[0]
    if not host or any(not c.isprintable() or c in " @" for c in host):
        raise Invalid(f"log in to {text!r}", "it is no registry", "HOST[:PORT]")
    return "docker.io" if host in ("index.docker.io", "registry-1.docker.io") else host


def _password(parsed: Parsed) -> str:
    if parsed.on("password-stdin"):
        if parsed.text("password"):
            raise Invalid("--password and --password-stdin are mutually exclusive")
        if not parsed.text("username"):
            raise Invalid("Must provide --username with --password-stdin")
        return sys.stdin.read().rstrip("\r\n")
    if parsed.text("password"):
        print("cloche: note: passwords on the command line are seen by others: use --password-stdin", file=sys.stderr)
        return parsed.text("password")
    if not sys.stdin.isatty():
        raise Invalid("log in", "standard input is no terminal", "use --username and --password-stdin")
    from getpass import getpass

    return getpass("Password: ")


def main(parsed: Parsed) -> int:
    """See `cloche login --help`."""
    from cloche.image import credentials
    from cloche.image.registries import endpoints
    from cloche.image.registry import Registry

    host = server(parsed)
    user = parsed.text("username")
    if not user:
        if not sys.stdin.isatty():
            raise Invalid("log in", "standard input is no terminal", "use --username and --password-stdin")
        user = input("Username: ")
    password = _password(parsed)
    if not user or not password:
        raise Invalid("log in", "username and password are needed", "")
    who = credentials.Credentials(user, password)
    endpoint = endpoints(host, os.environ)[-1]
    try:
        Registry(endpoint, "", who).ping()
    except Error as error:
        raise Error(f"log in to {host}", f"{error.what}: {error.cause}" if error.cause else error.what) from None
    where = credentials.store(credentials.path(os.environ), host, who)
    if where.endswith("config.json"):
        print(f"cloche: note: the password is kept as it is in {where}, readable by you alone", file=sys.stderr)
    print("Login Succeeded")
    return 0
