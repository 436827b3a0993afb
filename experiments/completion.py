"""Completion of the command line by a shell: what a word that was begun may become.

It answers at every press of a key, so it loads nothing heavy.
"""

import dataclasses
import types
import typing
from collections.abc import Iterator, Sequence

from dhm.registry import unknown
from experiments import config, names, pools

ASK, SCRIPT = "--complete", "--completion"
OPTIONS = ("--help", "--json", SCRIPT)
VALUES = {**names.KNOWN, "pool": tuple(pools.names()), "seeds": ("auto",), "pool.gpus": ("auto", "all", "none")}

_BASH = """\
_dhm_run() {
    local line=${COMP_LINE:0:COMP_POINT} before= found words
    local word=${line##*[[:space:]]}
    read -ra words <<< "$line"
    [[ -z $word ]] && words+=("")
    # Where '=' parts words, what stands before it stays as it is.
    [[ $word == *=* && $COMP_WORDBREAKS == *=* ]] && before=${word%%=*}=
    COMPREPLY=()
    while IFS= read -r found; do
        COMPREPLY+=("${found#"$before"}")
    done < <("${words[0]}" --complete "${words[@]:1}" 2>/dev/null)
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=.] ]] && compopt -o nospace 2>/dev/null
}
complete -o default -F _dhm_run dhm-run
"""
_ZSH = """\
_dhm_run() {
    local -a found
    found=(${(f)"$("${words[1]}" --complete "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    if (( $#found )); then
        compadd -S '' -- ${(M)found:#*[=.]}
        compadd -- ${found:#*[=.]}
    else
        compset -P '*='
        _files
    fi
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
compdef _dhm_run dhm-run
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH}


def answer(arguments: Sequence[str]) -> str | None:
    """What a shell is told: the script that it is to run, or the words that fit; none where no shell asks.

    Raises:
        ValueError: a script for no shell, or for one that there is nothing for.
    """
    asked, *words = arguments or [""]
    if asked == ASK:
        return "".join(f"{word}\n" for word in choices(words))
    if asked != SCRIPT:
        return None
    if len(words) != 1:
        raise ValueError(f"{SCRIPT} wants a shell: {' or '.join(_SCRIPTS)}")
    if words[0] not in _SCRIPTS:
        raise unknown("shell", words[0], _SCRIPTS)
    return _SCRIPTS[words[0]]


def choices(words: Sequence[str]) -> list[str]:
    """What the last of the words may become: whole words, or settings as far as their next dot.

    Args:
        words: of the command line, without the command.
    """
    begun = words[-1] if words else ""
    name, equals, _ = begun.partition("=")
    given = dict(word.split("=", 1) for word in words[:-1] if "=" in word)
    if equals:
        found = [f"{name}={value}" for value in _values(name, given)]
    else:
        of_factors = [f"{part}.{name}" for part in ("factors", "baseline") for name in names.FACTORS]
        settings = [*_settings(given.get("pool", "local")), *of_factors]
        level = begun.count(".") + 1
        parts = [(setting.split(".")[:level], setting) for setting in settings]
        found = [setting + "=" if ".".join(part) == setting else ".".join(part) + "." for part, setting in parts]
        found += [option for option in OPTIONS if begun.startswith("-")]
    return sorted({word for word in found if word.startswith(begun)})


def _values(name: str, given: dict[str, str]) -> Sequence[str]:
    if name == "grid":
        return [*names.GRIDS, *names.of_folder(given.get("grid_dir"))]
    if name in VALUES:
        return VALUES[name]
    kinds = dict(_leaves(config.Settings)) | {f"pool.{part}": kind for part, kind in _pool(given.get("pool", "local"))}
    return ("true", "false") if kinds.get(name) is bool else ()


def _settings(pool: str) -> list[str]:
    found = [name for name, _ in _leaves(config.Settings) if name not in ("defaults", "factors", "baseline")]
    return [*found, *(f"pool.{name}" for name, _ in _pool(pool) if name != "kind")]


def _pool(kind: str) -> Iterator[tuple[str, object]]:
    return _leaves(pools.config_of(kind if kind in pools.names() else "local"))


def _leaves(cls: typing.Any, path: str = "") -> Iterator[tuple[str, object]]:
    """The settings of a part, and their types; the pool's depend on which it is."""
    for name, kind in typing.get_type_hints(cls).items():
        inner = kind
        if typing.get_origin(kind) in (typing.Union, types.UnionType):
            inner = next(part for part in typing.get_args(kind) if part is not types.NoneType)
        if dataclasses.is_dataclass(inner) and not (path == "" and name == "pool"):
            yield from _leaves(inner, f"{path}{name}.")
        else:
            yield f"{path}{name}", inner
