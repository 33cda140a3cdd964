"""`graphscale completion`: print a script that lets a shell complete commands and options.

In: the name of a shell. Out: a script for it on standard output, made from the parsers of all
commands, so that it knows what they know.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphscale.cli.outputs import Outputs
    from graphscale.cli.terminal import Terminal

_Commands = argparse._SubParsersAction

_EPILOG = """\
To use it, for bash, zsh and fish:
  graphscale completion bash > ~/.local/share/bash-completion/completions/graphscale
  graphscale completion zsh > FOLDER/_graphscale        (a folder of $fpath)
  graphscale completion fish > ~/.config/fish/completions/graphscale.fish
"""


def add_parser(
    commands: _Commands[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add the command and its options to graphscale's parser."""
    parser = commands.add_parser(
        "completion",
        parents=[common],
        help="print a script that lets a shell complete commands and options",
        description="Print a script that lets a shell complete commands and options.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=tuple(_SCRIPTS))
    parser.set_defaults(run=partial(run, commands=commands))


def run(
    options: argparse.Namespace,
    terminal: Terminal,
    outputs: Outputs,
    commands: _Commands[argparse.ArgumentParser],
) -> None:
    """Print the script."""
    script = _SCRIPTS[options.shell]("\n".join(_LINES[options.shell](commands)))
    with terminal.showing(tables=False):
        print(script, end="")


def _options(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    return (action for action in parser._actions if action.option_strings)


def _helps(commands: _Commands[argparse.ArgumentParser]) -> Iterator[tuple[str, str]]:
    """(name, help) of each command."""
    return ((str(each.dest), each.help or "") for each in commands._choices_actions)


def _text(action: argparse.Action) -> str:
    """The help of an option in one line, without what argparse would put in."""
    return " ".join((action.help or "").replace("%%", "%").split())


def _choices(action: argparse.Action) -> str:
    return " ".join(map(str, action.choices or ()))


def _bash_lines(commands: _Commands[argparse.ArgumentParser]) -> Iterator[str]:
    """Cases of "command option" with their words; "command" alone stands for its options."""
    yield f"    ' ') words={shlex.quote(' '.join(commands.choices))} ;;"
    for name, parser in commands.choices.items():
        for action in parser._actions:
            words = shlex.quote(_choices(action))
            if action.choices and action.option_strings:
                cases = "|".join(f"'{name} {option}'" for option in action.option_strings)
                yield f"    {cases}) words={words} ;;"
            elif action.choices:
                yield f"    '{name} ') words={words} ;;"
        listed = " ".join(option for each in _options(parser) for option in each.option_strings)
        yield f"    '{name} -') words={shlex.quote(listed)} ;;"


def _zsh_lines(commands: _Commands[argparse.ArgumentParser]) -> Iterator[str]:
    described = (shlex.quote(f"{name}:{text}") for name, text in _helps(commands))
    yield f"  local -a commands=({' '.join(described)})"
    yield "  if (( CURRENT == 2 )); then _describe command commands; return; fi"
    yield "  case $words[2] in"
    for name, parser in commands.choices.items():
        yield f"    {name}) _arguments \\"
        for action in _options(parser):
            text = _text(action).translate({ord("["): "(", ord("]"): ")", ord(":"): ","})
            value = f":value:{f'({_choices(action)})' if action.choices else '_files'}"
            value = "" if action.nargs == 0 else value
            for option in action.option_strings:
                yield f"      {shlex.quote(f'{option}[{text}]{value}')} \\"
        words = [_choices(each) for each in parser._actions if not each.option_strings]
        yield f"      {shlex.quote(f'*:file:({words[0]})' if any(words) else '*:file:_files')} ;;"
    yield "  esac"


def _fish_lines(commands: _Commands[argparse.ArgumentParser]) -> Iterator[str]:
    for name, text in _helps(commands):
        yield f"complete -c graphscale -n __fish_use_subcommand -f -a {name} -d {shlex.quote(text)}"
    for name, parser in commands.choices.items():
        line = f"complete -c graphscale -n '__fish_seen_subcommand_from {name}'"
        for action in parser._actions:
            if not action.option_strings:
                if action.choices:
                    yield f"{line} -f -a {shlex.quote(_choices(action))}"
                continue
            names = " ".join(
                f"-l {each[2:]}" if each.startswith("--") else f"-s {each[1:]}"
                for each in action.option_strings
            )
            value = f" -x -a {shlex.quote(_choices(action))}" if action.choices else " -r"
            value = "" if action.nargs == 0 else value
            yield f"{line} {names}{value} -d {shlex.quote(_text(action))}"


def _bash(cases: str) -> str:
    # Without a reply, bash completes file names (-o default).
    return f"""\
_graphscale() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}"
  local command="" words="" place
  (( COMP_CWORD > 1 )) && command="${{COMP_WORDS[1]}}"
  case "$previous" in
    -*) place="$command $previous" ;;
    *) place="$command " ;;
  esac
  [[ "$current" == -* ]] && place="$command -"
  case "$place" in
{cases}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _graphscale graphscale
"""


def _zsh(body: str) -> str:
    return f"""\
#compdef graphscale
_graphscale() {{
{body}
}}
if [[ "$funcstack[1]" == _graphscale ]]; then
  _graphscale "$@"
else
  compdef _graphscale graphscale
fi
"""


def _fish(lines: str) -> str:
    return f"{lines}\n"


_LINES = {"bash": _bash_lines, "zsh": _zsh_lines, "fish": _fish_lines}
_SCRIPTS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
