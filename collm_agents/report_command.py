"""The verb `report`: tables, figures and a page from the results of a benchmark.

For `cli`, which dispatches to it. Works without torch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from collm_envs.errors import InputError


def build_report(parser: argparse.ArgumentParser) -> None:
    """Arguments of `report`."""
    parser.add_argument("results", metavar="RESULTS", help="results file, or a folder with results.json")
    parser.add_argument(
        "--out", metavar="FOLDER", help="where the report goes (default a folder report beside the results)"
    )
    parser.add_argument("--metric", default="score", help="what the tables are about (default score)")


def run_report(args: argparse.Namespace) -> int:
    """Write the report and print where it is."""
    from collm_agents.records import read_results
    from collm_agents.report import write_report

    source = Path(args.results)
    results = read_results(source)
    if not results.records:
        raise InputError(f"{source}: the results hold no run; `collm bench` makes some")
    folder = Path(args.out) if args.out else (source if source.is_dir() else source.parent) / "report"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder} is a file, not a folder")
    files = write_report(results, folder, metric=args.metric)
    failed = f", {len(results.failed)} failed" if results.failed else ""
    print(f"{len(results.records)} runs{failed}; {len(files)} files in {folder}")
    print(f"  tables  {folder / 'report.md'}\n  page    {folder / 'report.html'}")
    return 0
