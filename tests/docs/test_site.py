"""The site builds without a warning, offline, and what it links to is there."""

import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path.relative_to(ROOT).with_suffix("")
    for path in (ROOT / "docs").rglob("*.md")
    if "_build" not in path.parts
)
ELSEWHERE = ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY", "benchmarks/RUNS", "examples/README")


class Page(HTMLParser):
    """What a page links to, loads and can be jumped to."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.ids, self.tags = set(), set(), set(), set()
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.add(tag)
        self.ids |= {found[key] for key in ("id", "name") if found.get(key)}
        if tag == "a" and found.get("href"):
            self.links.add(found["href"])
        elif found.get("src"):
            self.loads.add(found["src"])
        elif tag == "link" and found.get("rel") != "canonical" and found.get("href"):
            self.loads.add(found["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    words = ("-q", "-W", "--keep-going", "-n", "-b", "html", "-c", "docs", "-d", str(out / "trees"))
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *words, ".", str(out / "html")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return out / "html"


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in site.rglob("*.html")}


@pytest.mark.system
def test_every_page_is_there_and_in_the_contents(site, pages):
    front = pages[site / "docs" / "index.html"]
    for page in (*map(str, PAGES), *ELSEWHERE):
        assert (site / f"{page}.html").is_file(), page
    for page in (*ELSEWHERE, *(str(page) for page in PAGES if len(page.parts) == 2 and page.name != "index")):
        target = f"../{page}.html" if not page.startswith("docs/") else page.removeprefix("docs/") + ".html"
        assert target in front.links, f"docs/index.md does not lead to {page}"


@pytest.mark.system
def test_links_lead_to_pages_files_and_headings(site, pages):
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = pages.get(target)
            anchor = unquote(parts.fragment)
            if not target.exists() or (anchor and known and anchor not in known.ids):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert not broken


@pytest.mark.system
def test_nothing_is_loaded_from_the_network(pages):
    for path, page in pages.items():
        assert not [found for found in page.loads if urlsplit(found).netloc], path


@pytest.mark.system
def test_equations_are_mathml(site, pages):
    for name in ("mc", "collm-cc", "collm-dc"):
        page = pages[site / "docs" / "algorithms" / f"{name}.html"]
        assert {"math", "mfrac" if name == "mc" else "msub"} <= page.tags
        assert "$" not in re.sub(r"<(script|style).*?</\1>", "", page.text, flags=re.DOTALL), name
        assert "\\frac" not in page.text


@pytest.mark.system
def test_the_search_knows_pages_and_names(site):
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert index.startswith("Search.setIndex(")
    for wanted in (
        "docs/quickstart",
        "docs/algorithms/mc",
        "leave_one_out",
        "collm_agents.losses",
        "policy_loss",
    ):
        assert wanted in index, wanted


@pytest.mark.system
def test_the_reference_shows_docstrings(site, pages):
    page = pages[site / "docs" / "reference" / "learning.html"]
    assert "collm_agents.losses.policy_loss" in page.ids
    assert "Policy-gradient loss, summed over rows" in page.text
    papers = pages[site / "docs" / "references.html"]
    assert "reference/learning.html#collm_agents.losses.policy_loss" in papers.links


def conf():
    spec = importlib.util.spec_from_file_location("docs_conf", ROOT / "docs" / "conf.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_contents_follow_from_the_tables_of_the_index():
    text = "# T\n\n## One\n\n| a | [b](b.md) |\n| c | [d](x/d.md#e), [b](b.md) |\n\n## Two\n\n[g](../G.md) [h](https://h.md)\n"
    assert conf().contents(text) == (
        "```{toctree}\n:hidden:\n:caption: One\n\nb.md\nx/d.md\n```\n\n"
        "```{toctree}\n:hidden:\n:caption: Two\n\n../G.md\n```"
    )
