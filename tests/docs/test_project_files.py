"""Licence, citation and project file agree."""

import tomllib
from pathlib import Path

import yaml

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
