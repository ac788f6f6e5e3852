"""What the manual pages say of options is what the programs say, and take."""
import os
import re
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent.parent
BUILD = Path(os.environ.get("HULL_BUILD", TOP / "build"))
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")

PROGRAMS = {"hull-vmm.1": BUILD / "hull-vmm", "hulld.8": BUILD / "hulld", "hull-ingress.8": BUILD / "hull-ingress",
            "hull-virtiofs.8": BUILD / "hull-virtiofs", "hull-network.8": BUILD / "hull-network",
            "kvmhost.1": TOP / "tools" / "kvmhost", "hull.1": BUILD / "hull"}


def run(*words):
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)


def help_of(program, *words):
    shown = run(program, *words, "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    return shown.stdout


def everything_hull_says():
    overview = help_of(PROGRAMS["hull.1"])
    names = [line[2:20].strip() for line in overview.splitlines() if line[:2] == "  " and line[2:3].isalpha()]
    assert names
    return overview + "".join(help_of(PROGRAMS["hull.1"], *name.split()) for name in names)


@pytest.mark.parametrize("page", PROGRAMS)
def test_a_page_has_the_options_of_its_programs_help_and_no_others(page):
    helped = everything_hull_says() if page == "hull.1" else help_of(PROGRAMS[page])
    written = (TOP / "docs" / f"{page}.scd").read_text().replace("\\", "")
    assert set(OPTION.findall(written)) == set(OPTION.findall(helped))


@pytest.mark.parametrize("page", PROGRAMS)
def test_a_program_takes_the_options_of_its_help(page):
    """Each alone, where it lacks its value or the rest of a command line: what is said then is not that there is none."""
    if page == "hull.1":
        return  # its help is printed from the table that is parsed by
    for option in OPTION.findall(help_of(PROGRAMS[page])):
        words = (["up"] if option in ("--hull", "--bare", "--http", "--https", "--state") else ["run"]) if page == "kvmhost.1" else []
        tried = run(PROGRAMS[page], *words, option, *(["--no-such-option"] if option == "--bare" else []))
        assert not re.search(rf"(unknown|unrecognized|no such) option[^\n]*{option}\b|{option}: (unknown|no such)", tried.stderr), tried.stderr
    assert re.search("unknown|unrecognized|no such", run(PROGRAMS[page], "--no-such-option").stderr)


@pytest.mark.parametrize("page", sorted(path.stem for path in (TOP / "docs").glob("*.scd")))
def test_pages_format_and_refer_to_pages_there_are(page):
    text = (TOP / "docs" / f"{page}.scd").read_text()
    formatted = subprocess.run(["scdoc"], input=text, capture_output=True, text=True, timeout=60)
    assert (formatted.returncode, formatted.stderr) == (0, "")
    for name, section in re.findall(r"\*(hull[a-z-]*|kvmhost)\*\((\d)\)", text):
        assert list((TOP / "docs").glob(f"{name}.{section}.scd*")), f"{name}({section})"  # the build completes some


def commands_in(text):
    """What a page has a reader type of hull's: lists of words, in lines that are indented and in pieces of code."""
    pieces = re.findall(r"^    (.*)$", text, re.M) + re.findall(r"`([^`\n]+)`", text)
    for piece in pieces:
        for command in re.split(r"&&|\||(?<= )#", piece):
            words = command.split()
            if words[1:] and words[0] in ("hull", "build/hull"):
                yield words[1:]


@pytest.mark.parametrize("page", ["README.md", "examples/python-hello/README.md", "examples/node-hello/README.md"])
def test_what_a_readme_has_one_type_is_what_there_is(page):
    overview = help_of(PROGRAMS["hull.1"])
    common = set(OPTION.findall(overview))
    names = {name for line in overview.splitlines() if line.startswith("  ") for name in (line[2:20].strip(), line[21:30].strip())}
    seen = list(commands_in((TOP / page).read_text()))
    assert seen
    for words in seen:
        plain = words[2:] if words[0] == "--project" else words
        name = next((name for name in (" ".join(plain[:2]), plain[0]) if name in names), "")
        assert name or plain == ["--help"], words
        taken = common | set(OPTION.findall(help_of(PROGRAMS["hull.1"], *name.split())))
        assert set(OPTION.findall(" ".join(words))) <= taken, words
