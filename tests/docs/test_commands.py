"""Every documented command, option, config key, script and file exists, and every block says whether it is run."""

import pytest

from tests.docs.pages import REPOSITORY, RUN, SHELL, Block, blocks, inline_code, pages, read
from tests.docs.programs import WrongCommandError, check, check_inline, check_yaml
from tests.docs.shell import calls

REPORT = "tests/docs/pages.py says how a block is marked"
LANGUAGES = (*RUN, "yaml", "json", "text")


def shown_files(found: list[Block]) -> dict[str, str]:
    return {block.file: block.text for block in found if block.file}


def problems(page: str, text: str) -> list[str]:
    """Everything that is wrong with a document."""
    found = blocks(page, text)
    files = shown_files(found)
    wrong = []
    for block in found:
        if block.language not in LANGUAGES:
            got = repr(block.language) if block.language else "no language"
            wrong.append(f"{block.place}: got {got}, expected one of {LANGUAGES}: sh for commands, text to show")
        if block.note and block.note[0] == "run by":
            wrong += [f"{block.place}: {problem}" for problem in stale(block)]
        try:
            if block.language == "yaml":
                check_yaml(block.text, block.place)
            for call in calls(block.text) if block.language == SHELL and not is_new(block) else ():
                check(call, files)
        except (WrongCommandError, ValueError) as error:
            wrong.append(f"{block.place}: {error}")
    for line, code in inline_code(text):
        try:
            check_inline(code)
        except (WrongCommandError, ValueError) as error:
            wrong.append(f"{page}:{line}: `{code}`: {error}")
    return wrong


def is_new(block: Block) -> bool:
    return block.note is not None and block.note[0] == "run only"


def stale(block: Block) -> list[str]:
    """Why the tests that are said to run a block do not."""
    wrong, texts = [], []
    for place in block.note[1].split(", "):
        path, _, name = place.partition("::")
        file = REPOSITORY / path
        if not file.is_file():
            wrong.append(f"run by {path}, which is not there")
            continue
        texts.append(file.read_text(encoding="utf-8"))
        if name and f"def {name}(" not in texts[-1]:
            wrong.append(f"run by {name}, which is not in {path}")
    together = "\n".join(texts)
    for call in calls(block.text) if not wrong else ():
        words = call.words[1:]
        needed = [f'"{words[0]}"'] if words and call.program in ("knowrl", "prefect") else []
        options = [word.partition("=")[0] for word in words if word.startswith("--")]
        needed += [option for option in options if option not in ("--set", "--config", "--host")]
        needed = [call.program, *words] if call.program == "make" else needed
        missing = [item for item in needed if item not in together]
        wrong += [f"run by {block.note[1]}, which has no {item} for `{' '.join(call.words)}`" for item in missing]
    return wrong


@pytest.mark.parametrize("page", pages())
def test_all_commands_exist(page):
    assert problems(page, read(page)) == [], REPORT


def test_blocks_are_found():
    found = [block for page in pages() for block in blocks(page, read(page))]
    assert sum(block.language == SHELL for block in found) > 20
    assert sum(block.language in RUN and block.is_run for block in found) > 10


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("knowrl rum", "rum"),
        ("knowrl run --confg smoke", "--confg"),
        ("knowrl run --config smok", "smok"),
        ("knowrl run --set rl.klcoef=1", "klcoef"),
        ("knowrl run --set rl.clip=7", "rl.clip"),
        ("knowrl run --set rl=7", "section"),
        ("knowrl fork demo other --at 1/updat", "updat"),
        ("knowrl fork demo other", "--at"),
        ("knowrl evaluate --benchmark selfawre", "selfawre"),
        ("knowrl evaluate --model m --views feasible_frst", "feasible_frst"),
        ("knowrl status --config unknown.yaml", "unknown.yaml"),
        ("knowrl seeds chek", "chek"),
        ("FOO=1 .venv/bin/knowrl statu | head", "statu"),
        ("cd x && knowrl verify", "'run'"),
        ("knowrl run \\\n  --set rl.clipp=0.1", "clipp"),
        ("make demoo", "demoo"),
        ("prefect deploment run knowrl/train", "deploment"),
        ("prefect deployment run knowrl/trian", "trian"),
        ("prefect deployment run knowrl/train -p profil=smoke", "profil"),
        ('prefect deployment run knowrl/train -p \'config={"rl": {"clipp": 1}}\'', "clipp"),
        ("prefect deployment run knowrl/train --wach", "--wach"),
        ("prefect worker start --pool knwrl", "knwrl"),
        ("mlflow ui --backend-stor x", "--backend-stor"),
        ("python benchmarks/fault.py", "fault.py"),
        ("python benchmarks/faults.py --round 3", "--round"),
        ("python -m knowrl_core.nothing", "nothing"),
        ("pytest tests/unit/test_nothing.py", "test_nothing"),
        ("pip install 'knowrl[s4]'", "s4"),
        ("docker compose --profile gpus up", "gpus"),
        ("docker compose exec workr ls", "workr"),
        ("deepspeed --module knowrl_core.rl.distributed.rnk", "rnk"),
        ("deepspeed --hostfil h --module knowrl_core.rl.distributed.rank", "--hostfil"),
        ("knwrl run", "knwrl"),
        ("knowrl run 'open", "quotation"),
    ],
)
def test_a_wrong_command_is_found(command, named):
    [problem] = problems("x.md", f"<!-- not run: example -->\n```sh\n{command}\n```\n")
    assert problem.startswith("x.md:2: ")
    assert named in problem


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("`rl.klcoef`", "rl.klcoef"),
        ("`rl.clip: 7`", "rl.clip"),
        ("`consensus.reward.rule: majorty`", "consensus.reward.rule"),
        ("`knowrl rum`", "rum"),
        ("`knowrl resume RUN --frm 1/update`", "--frm"),
        ("```\nls\n```", "no language"),
        ("```bash\nls\n```", "'bash'"),
        ("```yaml\nrl: {clipp: 0.1}\n```", "clipp"),
        ("<!-- run by: tests/e2e/test_nothing.py -->\n```sh\nknowrl status\n```", "not there"),
        ("<!-- run by: tests/e2e/test_fork.py::test_nothing -->\n```sh\nknowrl status\n```", "test_nothing"),
        ("<!-- run by: tests/e2e/test_shards.py -->\n```sh\nknowrl remove demo --force\n```", "remove"),
    ],
)
def test_other_mistakes_are_found(text, named):
    found = problems("x.md", text)
    assert found
    assert all(named in problem for problem in found[:1])


def test_files_that_a_page_shows_are_known():
    page = "```yaml\n# mine.yaml\nrl: {clip: 0.1}\n```\n\n```sh\nknowrl run --config mine.yaml --set rl.clip=0.3\n```\n"
    assert problems("x.md", page) == []
    [problem] = problems("x.md", page.replace("rl.clip=0.3", "rl.clip=3"))
    assert "rl.clip" in problem
