"""Licence, citation and project file agree."""

import tomllib
from pathlib import Path

import yaml

from collm_agents.cli import OVERVIEW
from collm_agents.records import read_results

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_the_citation_has_what_the_format_asks_for_and_the_projects_own_facts():
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["message"]
    assert CITATION["title"] == "CoLLM"
    assert CITATION["type"] == "software"
    assert str(CITATION["version"]) == PROJECT["version"]
    assert CITATION["license"] == PROJECT["license"]
    assert [author["name"] for author in CITATION["authors"]] == [
        author["name"] for author in PROJECT["authors"]
    ]


def test_the_citation_leads_to_the_paper():
    (paper,) = CITATION["references"]
    assert paper["type"] == "article"
    assert paper["url"] == "https://arxiv.org/abs/2601.21972"
    assert [author["family-names"] for author in paper["authors"]] == ["Liu", "Chen", "Amiri", "Amato"]
    assert paper["identifiers"][0]["value"] == "arXiv:2601.21972"
    assert paper["title"] in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_licence_is_the_one_that_is_named():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert PROJECT["license"] == "Apache-2.0"
    assert PROJECT["license-files"] == ["LICENSE"]
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_every_example_is_in_the_list_of_examples():
    listed = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    names = [file.name for file in sorted((ROOT / "examples").glob("*.py"))]
    assert [name for name in names if f"[{name}]({name})" not in listed] == []


def test_every_suite_is_in_the_table_of_suites():
    table = (ROOT / "docs" / "bench.md").read_text(encoding="utf-8").partition("| suite | runs |")[2]
    names = [file.stem for file in sorted((ROOT / "collm_agents" / "suites").glob("*.toml"))]
    assert [name for name in names if f"`{name}`" not in table.partition("\n\n")[0]] == []


def test_the_code_of_a_stopped_run_is_told_where_exit_codes_are():
    assert "128 + N" in OVERVIEW
    assert "128 + N" in (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")


def test_the_page_on_reproducing_counts_the_runs_that_the_file_holds():
    text = (ROOT / "docs" / "reproducing.md").read_text(encoding="utf-8")
    runs = len(read_results(ROOT / "benchmarks" / "results" / "mini-core.json").records)
    assert f"the comparison over five seeds, {runs} runs |" in text
