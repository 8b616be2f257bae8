"""The user's configuration file: /etc/cloche/config.toml, or the one that CLOCHE_CONFIG names.

What its tables mean is said where they are used: [registry."HOST"] by image.registries, [log] by engine.logdrivers,
[cdi] by engine.cdi.
"""

from __future__ import annotations

import os

from cloche.errors import Error, Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

DEFAULT = "/etc/cloche/config.toml"
SECTIONS = ("cdi", "log", "registry")


def config_path(environ: Mapping[str, str] = os.environ) -> str:
    """Where the file is, for messages too."""
    return environ.get("CLOCHE_CONFIG") or DEFAULT


def exists(environ: Mapping[str, str]) -> bool:
    """Whether there is anything to read."""
    return "CLOCHE_CONFIG" in environ or os.path.exists(DEFAULT)


def section(environ: Mapping[str, str], name: str) -> dict[str, Any]:
    """One table of it, empty where there is none. Raises Error; Invalid for a key that nobody knows."""
    import tomllib

    path = config_path(environ)
    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except FileNotFoundError:
        if environ.get("CLOCHE_CONFIG"):
            raise Error(f"read {path}", 2, "CLOCHE_CONFIG names it") from None
        return {}
    except OSError as error:
        raise Error(f"read {path}", error.errno or 5) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"read {path}", f"it is not TOML ({error})") from None
    for key, value in document.items():
        if key not in SECTIONS or not isinstance(value, dict):
            raise Invalid(f"read {path}", f"unknown key {key!r}", f"the tables are {', '.join(SECTIONS)}")
    table: dict[str, Any] = document.get(name, {})
    return table
