"""What may come next on a command line, for shells: verbs, flags, their values, names of what is in the store.

`cloche __complete WORDS...` prints a candidate a line, a word on it behind a tab; the last of WORDS is being typed. A
line `:files` says that it may be a file. Nothing here starts the keeper, writes, or complains: a
shell has nobody to complain to. Names are strangers': only plain ones are offered.
"""

from __future__ import annotations

import os

from cloche.cli.flags import ALIASES, GLOBAL, MISSING_VERBS, OWN_NOUNS, VERBS, verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cloche.cli.flags import Row, Verb

    Found = list[tuple[str, str]]

FILES = ":files"
SHELLS = ("bash", "zsh", "fish")
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:@-")

# what the arguments of a verb name; `run`'s first is an image and the others are its command's own
_ARGUMENTS = {
    "images": "create plan rmi tag images history push save",
    "running": "stop kill pause exec attach top port stats",
    "stopped": "start",
    "paused": "unpause",
    "containers": "restart rm wait logs rename update diff cp export inspect commit",
    "networks": "network inspect,network rm,network connect,network disconnect",
    "volumes": "volume inspect,volume rm",
}
_STATES = {
    "running": "status='running'",
    "stopped": "status IN ('created', 'exited')",
    "paused": "paused=1",
    "containers": "1",
}


def complete(words: Sequence[str]) -> list[str]:
    """The lines for what was typed so far, the last word of which may be empty."""
    typed = words[-1] if words else ""
    before, root = _without_globals(list(words[:-1]))
    name = before[0] if before else ""
    if not name:
        found = _flags(GLOBAL) if typed[:1] == "-" else [(each, VERBS[each][1]) for each in VERBS] + _nouns()
        return _lines(found, typed)
    if name in OWN_NOUNS:
        from cloche.cli.nouns import two_words, words_of

        if len(before) == 1:
            return _lines([(each, _summary(f"{name} {each}")) for each in words_of(name)], typed)
        name = two_words(name, before[1])
        before = [name, *before[2:]]
    if not name or (" " not in name and name not in VERBS) or name in MISSING_VERBS.split():
        return []
    return _of_verb(verb(name), before[1:], typed, root)


def _nouns() -> Found:
    return [(each, "more verbs") for each in OWN_NOUNS if each not in VERBS]


def _summary(name: str) -> str:
    from cloche.cli.nouns import SPELLINGS

    try:
        return verb(SPELLINGS.get(name, name)).summary
    except KeyError:
        return ""


def _without_globals(words: list[str]) -> tuple[list[str], str]:
    """The words from the verb on, and the store that was named."""
    root, at = "", 0
    while at < len(words) and words[at][:1] == "-":
        if words[at] == "--root":
            root, at = (words[at + 1] if at + 1 < len(words) else ""), at + 1
        elif words[at][:7] == "--root=":
            root = words[at][7:]
        at += 1
    return words[at:], root


def _of_verb(table: Verb, words: list[str], typed: str, root: str) -> list[str]:
    rows = table.rows()
    short = {row[1]: row for row in rows.values() if row[1]}
    arguments, wants = 0, None
    for word in words:
        if wants:
            wants = None
        elif word[:1] == "-" and word != "-" and not (table.leading and arguments):
            flag = rows.get(ALIASES.get(word[2:], word[2:])) if word[:2] == "--" else short.get(word[-1:])
            wants = flag if flag and "=" not in word and flag[2] != "bool" else None
        else:
            arguments += 1
    if wants:
        return _values(wants, typed, root)
    if table.leading and arguments:
        return [FILES] if table.name != "exec" else []
    if typed[:2] == "--" and "=" in typed:
        flag = rows.get(typed[2:].partition("=")[0])
        begin = typed[: typed.index("=") + 1]
        found = _values(flag, typed[len(begin) :], root) if flag else []
        return [line if line == FILES else begin + line for line in found]
    if typed[:1] == "-":
        return _lines(_flags(rows.values()), typed)
    return _names(table.name, arguments, typed, root)


def _flags(rows: Iterable[Row]) -> Found:
    return [("--" + row[0], row[4] or row[3]) for row in rows]


def _values(row: Row, typed: str, root: str) -> list[str]:
    """What a flag may be given."""
    name, _, kind, placeholder, _ = row
    if kind == "choice":
        return _lines([(each, "") for each in placeholder.split("|")], typed)
    if name == "restart":
        return _lines([(each, "") for each in ("no", "on-failure", "always", "unless-stopped")], typed)
    if name in ("pid", "ipc", "uts", "cgroupns", "userns"):
        words = [word for word in placeholder.split("|") if word.islower() and ":" not in word]
        return _lines([(each, "") for each in words], typed)
    if name == "network":
        return _lines([*((each, "") for each in ("none", "host")), *_stored("networks", root)], typed)
    if name == "volumes-from":
        return _lines(_stored("containers", root), typed)
    if name == "volume" and "/" not in typed:
        return [*_lines(_stored("volumes", root), typed), FILES]
    files = ("volume", "env-file", "label-file", "cidfile", "output", "input", "add", "root", "device", "mount")
    return [FILES] if name in files else []


def _names(name: str, arguments: int, typed: str, root: str) -> list[str]:
    """What an argument may be."""
    if name in ("run", "create", "plan"):
        return _lines(_stored("images", root), typed)
    if name in ("network connect", "network disconnect"):
        return _lines(_stored("containers" if arguments else "networks", root), typed)
    if name == "exec" and arguments:
        return []
    for kind, verbs in _ARGUMENTS.items():
        if name in (verbs.split(",") if "," in verbs else verbs.split()):
            found = _lines(_stored(kind, root), typed)
            if name == "inspect":
                found += _lines([*_stored("images", root), *_stored("volumes", root)], typed)
            return [*found, FILES] if name == "cp" else found
    if name == "completion":
        return _lines([(each, "") for each in SHELLS], typed)
    return [FILES] if name in ("load", "pack", "import") else []


def _lines(found: Found, typed: str) -> list[str]:
    """Those that begin so, each once; no line of a stranger's making."""
    kept = {word: about for word, about in found if word.startswith(typed) and _PLAIN.issuperset(word)}
    return [f"{word}\t{''.join(c for c in about if c.isprintable())}" for word, about in kept.items()]


def _stored(kind: str, root: str) -> Found:
    """Names of what is in the store."""
    from cloche.engine.sqlite import sqlite3
    from cloche.engine.store import locate

    path = locate(root or None).root + "/db"
    if not os.path.exists(path):
        return []
    try:
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=0.2)
        try:
            if kind == "images":
                from cloche.oci.reference import parse

                rows = db.execute("SELECT reference FROM tags WHERE instr(reference, '@') = 0").fetchall()
                return [(parse(row[0]).familiar().removesuffix(":latest"), "image") for row in rows]
            if kind in ("networks", "volumes"):
                return [(row[0], kind[:-1]) for row in db.execute(f"SELECT name FROM {kind} ORDER BY name")]
            where = _STATES[kind]
            query = f"SELECT name, image, status FROM containers WHERE {where} ORDER BY created DESC"
            return [(row[0], f"{row[2]}, {row[1]}") for row in db.execute(query)]
        finally:
            db.close()
    except sqlite3.Error:
        return []  # it is being made, or of another version


SCRIPTS = {
    "bash": r"""# bash completion of cloche
_cloche() {
    local cur words cword line
    if declare -F _get_comp_words_by_ref >/dev/null; then
        _get_comp_words_by_ref -n =: cur words cword
    else
        words=("${COMP_WORDS[@]}") cword=$COMP_CWORD cur=${COMP_WORDS[COMP_CWORD]}
    fi
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
            :files) compopt -o default 2>/dev/null ;;
            *) COMPREPLY+=("${line%%$'\t'*}") ;;
        esac
    done < <("${words[0]}" __complete "${words[@]:1:cword}" 2>/dev/null)
    if declare -F __ltrim_colon_completions >/dev/null; then __ltrim_colon_completions "$cur"; fi
}
complete -F _cloche cloche
""",
    "zsh": r"""#compdef cloche
_cloche() {
    local -a found
    local line files
    for line in "${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        if [[ $line == :files ]]; then
            files=1
        elif [[ -n $line ]]; then
            found+=("${${line%%$'\t'*}//:/\:}:${line#*$'\t'}")
        fi
    done
    (( $#found )) && _describe -V cloche found
    if [[ -n $files ]]; then _files; fi
}
if [[ $funcstack[1] == _cloche ]]; then _cloche "$@"; else compdef _cloche cloche; fi
""",
    "fish": r"""# fish completion of cloche
function __cloche_complete
    set -l typed (commandline -opc) (commandline -ct)
    $typed[1] __complete $typed[2..-1] 2>/dev/null
end
complete -c cloche -f -a '(__cloche_complete | string match -v :files)'
complete -c cloche -n '__cloche_complete | string match -q :files' -F
""",
}
