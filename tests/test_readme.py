"""The README's commands, options and links, against what is there."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from pipelines.beam_options import beam_options
from pipelines.cli.app import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = "\n".join(re.findall(r"^ {4}(\S.*)$", FENCED.sub("", README), re.MULTILINE))
BLOCKS = [*FENCED.findall(README), ("", INDENTED)]
# Lines of shell blocks without their prompts, continued lines joined; and short commands within the text.
SHELL = [
    line.strip().removeprefix("$ ").strip()
    for language, block in BLOCKS
    if language in ("", "sh", "bash", "shell", "console")
    for line in block.replace("\\\n", " ").splitlines()
] + re.findall(r"(?<!`)`((?:make|nightrank) [^`\n]+)`", README)
LINKS = re.findall(r"\]\(([^)\s]+)\)", README) + re.findall(r'(?:src|href)="([^"]+)"', README)


def commands(program: str) -> list[list[str]]:
    """The words of every command of the README that runs `program`, comments and pipes left out."""
    found = []
    for line in SHELL:
        for part in re.split(r"\s*(?:&&|\|\||;|\|)\s*", line.split(" #")[0]):
            words = shlex.split(part, posix=True) if part.count("'") % 2 == 0 else part.split()
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # VARIABLE=value make ...
                words = words[1:]
            if words and words[0].rpartition("/")[2] == program:
                found.append(words[1:])
    return found


@pytest.mark.parametrize("words", commands("make"), ids=" ".join)
def test_a_make_command_is_a_target(words: list[str]) -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {word for word in words if "=" not in word and not word.startswith("-")} <= targets


@pytest.mark.parametrize("words", commands("nightrank"), ids=" ".join)
def test_a_nightrank_command_parses(words: list[str]) -> None:
    group = get_command(app)
    if "--" in words:
        beam_options(words[words.index("--") + 1 :])
        words = words[: words.index("--")]
    if words and not words[0].startswith("-"):
        name, *rest = words
        assert name in group.commands, f"nightrank has no command {name!r}"  # type: ignore[attr-defined]
        assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0
        command = group.commands[name]  # type: ignore[attr-defined]
    else:
        rest, command = words, group
    known = {
        option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]
    }
    used = {word.split("=")[0] for word in rest if word.startswith("-")}
    assert used <= known | {"--help"}


@pytest.mark.parametrize(
    "words", [words for words in commands("python") if words[:1] == ["-m"]], ids=" ".join
)
def test_a_module_that_is_run_is_there(words: list[str]) -> None:
    assert importlib.util.find_spec(words[1]) is not None


@pytest.mark.parametrize("link", sorted({link.split("#")[0] for link in LINKS if "://" not in link} - {""}))
def test_a_linked_file_is_there(link: str) -> None:
    assert (ROOT / link).exists()


def test_linked_headings_are_there() -> None:
    headings = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert {link[1:] for link in LINKS if link.startswith("#")} <= slugs


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:[\w.-]+/)+[\w.-]*\.\w{2,5})`", README))))
def test_a_named_file_is_there(path: str) -> None:
    written = ("demo_output/", "demo_index/")  # by `make demo`
    assert path.startswith(written) or (ROOT / path).exists()


def test_the_commands_are_found() -> None:
    # The patterns above, on a text of the kind that they read.
    assert README.startswith("# Nightrank")
    assert commands("make") or "make " not in README
    assert commands("nightrank") or "nightrank nightly" not in README
