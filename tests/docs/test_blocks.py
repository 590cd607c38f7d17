"""Every code block of the README and the docs does what its tag says."""

import blocks as runner
import pytest

PAGES = runner.pages()


@pytest.mark.system
@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_the_blocks_of_a_page_run(page, tmp_path):
    assert page.is_file(), f"{page.name} is missing"
    workshop = runner.Workshop(tmp_path)
    for block in runner.blocks(page.read_text(encoding="utf-8"), page.name):
        if block.needs_shared and not runner.SHARED.is_dir():
            continue  # a clone need not have the data sets beside it
        workshop.run(block)


def found(text):
    return runner.blocks(text, "page.md")


def run(text, tmp_path, limit_s=30):
    workshop = runner.Workshop(tmp_path, limit_s)
    for block in found(text):
        workshop.run(block)
    return workshop.cwd


def test_language_tag_file_and_line_are_read():
    (block,) = found("# A page\n\n```python run file=a.py\nx = 1\n\ny = 2\n```\n")
    assert (block.language, block.tag, block.file, block.line) == ("python", "run", "a.py", 3)
    assert block.body == "x = 1\n\ny = 2\n"


def test_a_longer_fence_may_hold_a_shorter_one():
    (block,) = found("````text\n```bash\n```\n````\n")
    assert block.body == "```bash\n```\n"


@pytest.mark.parametrize(
    "info",
    ["", "bash", "python", "toml", "sh run", "bash rnu", "text run", "bash run setup", "bash run file=a"],
)
def test_a_fence_without_its_proper_tag_is_an_error(info):
    with pytest.raises(runner.BlockError, match=r"page\.md:1: "):
        found(f"```{info}\nls\n```\n")


def test_an_open_fence_is_an_error():
    with pytest.raises(runner.BlockError, match="never closed"):
        found("```text\nls\n")


def test_blocks_of_a_page_share_a_folder(tmp_path):
    text = (
        "```python run file=made.py\nopen('a.txt', 'w').write('hello')\n```\n"
        "```bash run\ngrep hello a.txt\npython made.py\ncollm envs debug/ > list.txt\n```\n"
        "```text\nrm -r /\n```\n"
    )
    cwd = run(text, tmp_path)
    assert "debug/echo-v0" in (cwd / "list.txt").read_text()


@pytest.mark.parametrize(
    "text",
    [
        "```bash run\nfalse\n```\n",
        "```bash run\nfalse | cat\n```\n",
        "```python run\nraise SystemExit(3)\n```\n",
        "```bash setup\nmake nonsense\n```\n",
        "```bash setup\npip install collm\n```\n",
        "```bash needs-hub\ncollm envs\n```\n",
        "```bash needs-hub\ncollm train writing/tldr-v0 team.engine=Qwen/Qwen3-0.6B\n```\n",
        "```toml suite\nseed = 1\n```\n",
        "```toml config\n[run]\nsed = 1\n```\n",
    ],
)
def test_a_block_that_fails_is_an_error(text, tmp_path):
    with pytest.raises(runner.BlockError, match=r"page\.md:1: "):
        run(text, tmp_path)


def test_a_block_that_hangs_is_an_error(tmp_path):
    with pytest.raises(runner.BlockError, match=r"longer than 0\.5 s"):
        run("```bash run\nsleep 20\n```\n", tmp_path, limit_s=0.5)


def test_setup_hub_and_config_blocks_pass(tmp_path):
    run(
        "```bash setup\ngit clone somewhere collm && cd collm\nmake demo\nmake check test\n```\n"
        '```toml config\nenv.id = "debug/echo-v0"\n[run]\nseed = 1\n```\n',
        tmp_path,
    )


def test_commands_are_split_and_joined():
    body = "# a comment\ncollm train a \\\n  b=1\ncd x && make y  # why\n"
    assert runner.commands(body) == [["collm", "train", "a", "b=1"], ["cd", "x"], ["make", "y"]]
