"""The keys that leave a container running and give the terminal back: `ctrl-p,ctrl-q`, in Docker's grammar."""

from __future__ import annotations

from cloche.errors import Invalid

DEFAULT = "ctrl-p,ctrl-q"
_CONTROL = {f"ctrl-{chr(code + 96)}": code for code in range(1, 27)}
_CONTROL |= {"ctrl-@": 0, "ctrl-[": 27, "ctrl-\\": 28, "ctrl-]": 29, "ctrl-^": 30, "ctrl-_": 31, "DEL": 127}


def parse_detach_keys(text: str) -> bytes:
    """The bytes that `ctrl-p,ctrl-q` or `a,b` stand for; none for an empty text: no keys detach. Raises Invalid."""
    keys = bytearray()
    for key in text.split(",") if text else ():
        if len(key) == 1 and key.isascii():
            keys += key.encode()
        elif key in _CONTROL:
            keys.append(_CONTROL[key])
        else:
            hint = "a key is one character, DEL, or ctrl- and one of a-z @ [ \\ ] ^ _; commas between them"
            raise Invalid(f"read the detach keys {text}", f"unknown key {key or 'with no name'}", hint)
    return bytes(keys)


class DetachKeys:
    """Looks for the keys in what is typed; a beginning of them is held back until it is clear whether they go on."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self.held = b""

    def feed(self, typed: bytes) -> tuple[bytes, bool]:
        """What is to be passed on, and whether the keys were complete; what was typed after them is dropped."""
        keys = self._keys
        if not keys or (not self.held and keys[0] not in typed):
            return typed, False
        passed = bytearray()
        for at in range(len(typed)):
            held = self.held + typed[at : at + 1]
            while not keys.startswith(held):  # the shortest beginning goes on; what is left may begin them anew
                passed.append(held[0])
                held = held[1:]
            if held == keys:
                self.held = b""
                return bytes(passed), True
            self.held = held
        return bytes(passed), False
