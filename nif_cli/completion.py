"""What TAB offers in bash, zsh and fish. Names of files are handed over as they are, a line each; no shell
expands them, and each is quoted where it is put into the line: a file may be called `$(rm -r x)`."""

from __future__ import annotations

import os

from nif_cli.words import KEY, holds_a_path

MOST = 1000  # names that anybody looks through

SCRIPTS = {
    "bash": r"""_nif() {
    local cur=${COMP_WORDS[COMP_CWORD]} word
    COMPREPLY=()
    while IFS= read -r word; do
        COMPREPLY+=("$(printf %q "$word")")
    done < <(COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_POINT="$COMP_POINT" nif -sc query=bash 2>/dev/null)
    [[ ${COMPREPLY[0]} == *[=./] ]] && compopt -o nospace
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -F _nif nif""",
    "zsh": r"""_nif() {
    local -a found
    local line="${BUFFER[1,CURSOR]}"
    found=("${(@f)$(COMP_LINE="$line" COMP_POINT=$CURSOR nif -sc query=zsh 2>/dev/null)}")
    [[ -n $found[1] ]] && compadd -U -S '' -- "${found[@]}"
}
compdef _nif nif""",
    "fish": "complete -c nif -f -a"
    " '(COMP_LINE=(commandline -cp | string collect) nif -sc query=fish 2>/dev/null)'",
}


def last_word(line: str) -> str:
    """The word at the end of the line, its quotes and backslashes undone; nothing is expanded."""
    word, quote, k = "", "", 0
    while k < len(line):
        c = line[k]
        if quote:
            if c == quote:
                quote = ""
            elif c == "\\" and quote == '"' and line[k + 1 : k + 2] in ('"', "\\", "$", "`"):
                k += 1
                word += line[k]
            else:
                word += c
        elif c in "'\"":
            quote = c
        elif c == "\\":
            k += 1
            word += line[k : k + 1]
        elif c in " \t\n":
            word = ""
        else:
            word += c
        k += 1
    return word


def files(word: str) -> list[str] | None:
    """The words that the names of files make of `key=the beginning of a path`; None where no path is
    typed."""
    found = KEY.fullmatch(word)
    if not found or not holds_a_path(found["key"]):
        return None
    folder, start = os.path.split(found["value"])
    before = word[: len(word) - len(start)]
    names = []
    try:
        with os.scandir(os.path.expanduser(folder) or ".") as entries:
            for entry in entries:
                hidden = entry.name.startswith(".") and not start.startswith(".")
                if entry.name.startswith(start) and not hidden and entry.name.isprintable():
                    names.append(before + entry.name + "/" * entry.is_dir())
                if len(names) > MOST:
                    break
    except OSError:
        return []
    return sorted(names)
