"""What the README and the pages say to type, paste or open, against what is there."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from docs.generate import app
from pipelines.beam_options import beam_options
from rerank_core.config.night import Config, parse_config
from rerank_core.config.training import load_training_config

ROOT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
FENCED = re.compile(r"(<!-- not run: .+? -->\n+)?^([ ]*)```(\w*)\n(.*?)^\2```", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A block of code on a page."""

    page: str
    language: str
    text: str
    runs: bool  # no comment "<!-- not run: WHY -->" is above it

    def __str__(self) -> str:
        return f"{self.page}: {self.text.strip().splitlines()[0] if self.text.strip() else ''}"


def blocks(page: str, text: str) -> list[Block]:
    """The fenced blocks of a page, without the indentation that they have in lists."""
    return [
        Block(page, language, re.sub(f"^{indent}", "", block, flags=re.MULTILINE), not skipped)
        for skipped, indent, language, block in FENCED.findall(text)
    ]


def shell(text: str) -> list[str]:
    """Lines of shell blocks without prompts, continued lines joined; and short commands within the text."""
    indented = "\n".join(re.findall(r"^ {4,}(\S.*)$", FENCED.sub("", text), re.MULTILINE))
    fenced = [
        block.text for block in blocks("", text) if block.language in ("", "sh", "bash", "shell", "console")
    ]
    lines = [
        line.strip().removeprefix("$ ").strip()
        for block in [*fenced, indented]
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return lines + re.findall(r"(?<!`)`((?:make|nightrank|python -m) [^`\n]+)`", text)


def commands(program: str, pages: dict[str, str] = PAGES) -> list[Any]:
    """(page, words) of every command that runs `program`, comments, pipes and variables left out."""
    found = {}
    for page, text in pages.items():
        for line in shell(text):
            for part in re.split(r"\s*(?:&&|\|\||;|\|)\s*", line.split(" #")[0]):
                words = (
                    shlex.split(part)
                    if part.count("'") % 2 == 0 and part.count('"') % 2 == 0
                    else part.split()
                )
                while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # VARIABLE=value make ...
                    words = words[1:]
                if words and words[0].rpartition("/")[2] == program:
                    found[f"{page}: {' '.join(words)}"] = pytest.param(
                        words[1:], id=f"{page}: {' '.join(words)}"
                    )
    return list(found.values())


BLOCKS = [block for page, text in PAGES.items() for block in blocks(page, text)]


@pytest.mark.parametrize("words", commands("make"))
def test_a_make_command_is_a_target(words: list[str]) -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {word for word in words if "=" not in word and not word.startswith("-")} <= targets


@pytest.mark.parametrize("words", commands("nightrank"))
def test_a_nightrank_command_parses(words: list[str]) -> None:
    group = get_command(app)
    if "--" in words:
        beam_options([word for word in words[words.index("--") + 1 :] if word != "..."])
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


@pytest.mark.parametrize("words", [one for one in commands("python") if one.values[0][:1] == ["-m"]])
def test_a_module_that_is_run_is_there(words: list[str]) -> None:
    standard = {"venv"}
    assert words[1] in standard or importlib.util.find_spec(words[1]) is not None


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.language == "toml"], ids=str)
def test_a_toml_block_is_a_configuration(block: Block, tmp_path: Path) -> None:
    raw = tomllib.loads(block.text)
    night = {field for field in Config.__dataclass_fields__ if field in raw}
    if night == set(raw) and not isinstance(raw.get("output"), str):
        parse_config(raw)
    elif "stages" in raw and "model" in raw:
        load_training_config(_written(tmp_path, block.text))
    else:  # a part of a training, beside what every training needs
        needed, stage = (
            'model = "base"\noutput = "model"\n',
            '\n[[stages]]\nname = "one"\nruns = ["output"]\n',
        )
        match raw.get("stages"):
            case None:
                text = needed + block.text + stage
            case dict():  # [stages.tags], of the stage above it
                text = needed + stage + block.text
            case _:
                text = needed + block.text
        load_training_config(_written(tmp_path, text))


def _written(folder: Path, text: str) -> Path:
    (folder / "train.toml").write_text(text, encoding="utf-8")
    return folder / "train.toml"


# A block that imports something is there to be pasted; another is an excerpt.
PYTHON = [
    one for one in BLOCKS if one.language == "python" and re.search("^(import|from) ", one.text, re.MULTILINE)
]


@pytest.mark.parametrize("block", [one for one in PYTHON if one.runs], ids=str)
def test_a_python_block_runs(
    block: Block, night: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(night.output, tmp_path / "output")  # what the blocks read
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    exec(compile(block.text, block.page, "exec"), {"__name__": "__main__"})


def links(text: str) -> list[str]:
    outside = FENCED.sub("", text)
    return re.findall(r"\]\(([^)\s]+)\)", outside) + re.findall(r'(?:src|href)="([^"]+)"', outside)


LINKS = sorted({(page, link) for page, text in PAGES.items() for link in links(text) if "://" not in link})


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_a_link_leads_somewhere(page: str, link: str) -> None:
    file, _, heading = link.partition("#")
    target = (ROOT / page).parent / file if file else ROOT / page
    assert target.exists()
    assert target.resolve().is_relative_to(ROOT)
    if heading:
        assert heading in _headings(target.read_text(encoding="utf-8"))


def _headings(text: str) -> set[str]:
    """What forges and Sphinx call a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


FOLDERS = "benchmarks|docs|examples|pipelines|rerank_core|sample_data|schemas|tests"
NAMED = sorted(
    {
        (page, path)
        for page, text in PAGES.items()
        for path in re.findall(rf"`((?:{FOLDERS})/[\w./-]*)`", text)
        if not re.search(r"/(test_)?my\w+", path)  # the reader's own, on the page about extending
    }
)


@pytest.mark.parametrize(("page", "path"), NAMED)
def test_a_named_file_is_there(page: str, path: str) -> None:
    assert (ROOT / path).exists()


def test_the_readme_is_short() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 130


def test_the_patterns_find_what_they_look_for() -> None:
    listed = "1. In a list:\n\n       nightrank show Q \\\n           --run R # why\n\n   ```toml\n   [log]\n   ```\n"
    python = "```python\nx = 1\n```\n\n<!-- not run: a reason -->\n```python\ny = 1\n```\n"
    page = {"page": f"`make demo`\n\n{listed}\n{python}"}
    assert [one.values[0] for one in commands("make", page)] == [["demo"]]
    assert [one.values[0] for one in commands("nightrank", page)] == [["show", "Q", "--run", "R"]]
    assert [(one.language, one.text, one.runs) for one in blocks("page", page["page"])] == [
        ("toml", "[log]\n", True),
        ("python", "x = 1\n", True),
        ("python", "y = 1\n", False),
    ]
