"""The report's page in a browser: what it shows, what it lets in, and how long it takes."""

import sys

import pytest
from benchmark_runs import HOSTILE, made_results
from chromium import Document, ask, chromium, needs_chromium

from collm_agents.report import write_report
from collm_agents.report_numbers import compute

pytestmark = [pytest.mark.system, needs_chromium]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Pages by name, and a browser that opens them."""
    return Shop(tmp_path_factory)


MADE = {
    "plain": lambda: made_results(),
    "hostile": lambda: made_results(algorithms=HOSTILE, environments=(HOSTILE[1],), tasks=(HOSTILE[2], "t")),
    "large": lambda: made_results(
        algorithms=[f"algorithm-{i}" for i in range(10)],
        environments=[f"env/e{i}-v0" for i in range(5)],
        seeds=10,
        more=("parts/a", "parts/b"),
    ),
}


class Shop:
    def __init__(self, factory):
        self.factory, self.profile, self.pages = factory, factory.mktemp("profile"), {}

    def page(self, name):
        if name not in self.pages:
            self.pages[name] = self.factory.mktemp(name)
            with pytest.MonkeyPatch.context() as patch:
                patch.setitem(sys.modules, "matplotlib", None)  # the files are tested elsewhere
                write_report(MADE[name](), self.pages[name])
        return self.pages[name] / "report.html"

    def open(self, name, hash="", **options):
        """What the page holds once it is drawn."""
        dumped = chromium(self.page(name), "--dump-dom", hash=hash, profile=self.profile, **options)
        found = Document(dumped)
        (trouble,) = found.all("p", id="trouble")
        assert "hidden" in trouble, trouble["text"]
        return found

    def ask(self, name, script, *words, hash="", width=1280):
        """What a script finds in the page."""
        folder = self.factory.mktemp("asked")
        return ask(
            self.page(name), script, *words, folder=folder, hash=hash, width=width, profile=self.profile
        )


def figures(document):
    return [e["text"] for e in document.all("h3")]


def test_all_sections_are_drawn(shop):
    found = shop.open("plain")
    assert found.all("title")[0]["text"] == "Benchmark made-up"
    assert [e["text"] for e in found.all("h2")] == [
        "Over all tasks shown",
        "Side by side",
        "Learning curves",
        "Last evaluation",
        "Failed runs",
        "What was run",
    ]
    assert len(found.all("figure")) == 4 + 3 + 4 + 4
    assert "NonFiniteError: loss is nan" in [e["text"] for e in found.all("td")]
    assert "0123abc" in [e["text"] for e in found.all("td")]


def test_it_can_be_read_without_seeing_it(shop):
    found = shop.open("plain", "tables=1")
    drawn = [e for e in found.all("svg") if e.get("role") == "img"]
    assert len(drawn) == len(found.all("figure"))
    assert all(e["aria-label"] for e in drawn)
    assert (
        len(found.all("table")) == len(drawn) + 3
    )  # those of failed runs, of what was run, and of all tasks
    assert len(found.all("caption")) == len(found.all("table"))
    for region in found.all("div", role="region"):
        assert region["tabindex"] == "0"
        assert region["aria-label"]
    for control in (*found.all("select"), *found.all("input")):
        assert "label" in control["under"]
    ids = [e["id"] for e in found.elements if "id" in e]
    assert len(ids) == len(set(ids))
    assert found.all("html")[0]["lang"] == "en"


def test_the_tables_hold_the_numbers_of_the_statistics(shop):
    found = shop.open("plain", "tables=1")
    cells = [e["text"] for e in found.all("td")]
    own = compute(made_results()).overall.aggregates["collm-dc"]["iqm"]
    start = cells.index(f"{own.estimate:.3f}")
    assert cells[start : start + 3] == [f"{value:.3f}" for value in own[:3]]


def test_the_address_keeps_the_filters(shop):
    found = shop.open("plain", "env=coding%2Fadd-mini-v0&metric=success&over=tokens&off=mc&tables=1")
    assert found.all("p", id="shown")[0]["text"] == ("2 of 4 tasks, 2 of 3 algorithms, success over tokens.")
    assert not [name for name in figures(found) if name.startswith("writing/")]
    assert len(found.all("figure")) == 4 + 2 + 2 + 2  # pairs are compared in the report's metric
    assert "mc" not in [e["text"] for e in found.all("th") if e.get("scope") == "row"]
    assert "tokens" in [e["text"] for e in found.all("th") if e.get("scope") == "col"]
    one = shop.open("plain", "env=coding%2Fadd-mini-v0&task=sparse-h2")
    assert figures(one)[-2:] == ["coding/add-mini-v0 · sparse-h2"] * 2


def test_unknown_words_of_an_address_change_nothing(shop):
    found = shop.open("plain", "env=%3Cscript%3E&metric=x&over=y&off=z&seeds=maybe")
    assert found.all("p", id="shown")[0]["text"] == (
        "4 of 4 tasks, 3 of 3 algorithms, score over joint samples."
    )


def test_each_seed_has_a_line_when_asked(shop):
    assert not [e for e in shop.open("plain").all("path") if "seed" in e.get("class", "").split()]
    found = shop.open("plain", "seeds=1")
    assert len([e for e in found.all("path") if "seed" in e.get("class", "").split()]) == 59


def test_hostile_names_are_shown_as_text(shop):
    found = shop.open("hostile", "tables=1&seeds=1")
    assert found.all("title")[0]["text"] == "Benchmark made-up"
    assert len(found.all("script")) == 2
    assert not found.all("img")
    labels = [e["text"].strip() for e in found.all("label")]
    assert set(HOSTILE) <= set(labels)
    assert f"{HOSTILE[1]} · {HOSTILE[2]}" in figures(found)


CLICKS = """
const change = (id, value) => {
  document.getElementById(id).value = value;
  document.getElementById(id).dispatchEvent(new Event("change"));
};
const count = () => document.querySelectorAll("figure").length;
found = [count()];
change("env", "coding/add-mini-v0"); found.push(count());
change("task", "dense-h1"); found.push(count());
document.querySelectorAll("#algorithms input")[1].click();
found.push(document.querySelector("figure").querySelectorAll("rect").length);
document.getElementById("seeds").click();
found.push(document.querySelectorAll("path.seed").length);
document.querySelector("details summary").click();
await new Promise((done) => setTimeout(done, 50));
found.push(document.querySelectorAll("figure table").length, location.hash);
"""


def test_clicks_filter_and_the_address_follows(shop):
    *counts, address = shop.ask("plain", CLICKS)
    assert counts == [15, 11, 9, 2, 10, 1]
    assert address == "#env=coding%2Fadd-mini-v0&task=dense-h1&seeds=1&off=collm-dc"


def test_curves_are_read_with_the_arrow_keys(shop):
    script = """
    const svg = document.querySelectorAll("figure svg[tabindex]")[1];
    svg.focus();
    const press = (key) => svg.dispatchEvent(new KeyboardEvent("keydown", { key }));
    const line = svg.closest("figure").querySelector("[aria-live]");
    press("ArrowRight"); press("ArrowRight"); found = [line.textContent];
    press("End"); found.push(line.textContent);
    """
    second, last = shop.ask("plain", script)
    assert second.startswith("joint samples 128 · collm-cc 1.")
    assert last.startswith("joint samples 1.28k · collm-cc 2.")
    assert last.count("[") == 3


def test_a_download_is_a_csv_that_no_spreadsheet_runs(shop):
    script = """
    let blob; URL.createObjectURL = (b) => { blob = b; return "#"; };
    document.querySelector("details summary").click();
    await new Promise((done) => setTimeout(done, 50));
    document.querySelector("details button").click();
    found = await blob.text();
    """
    header, *rows = shop.ask("hostile", script).removeprefix("\ufeff").split("\r\n")
    assert header == '"algorithm","estimate","low","high","runs","failed"'
    assert len(rows) == 5
    names = [row.rpartition('",')[0][1:] for row in rows if row]
    assert sorted(names) == sorted(
        ("'" if name.startswith("=") else "") + name.replace('"', '""') for name in HOSTILE
    )


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", ["plain", "hostile"])
def test_nothing_runs_over_the_side(shop, name, width):
    script = """
    await new Promise((done) => setTimeout(done, 300));
    found = { window: innerWidth, page: document.documentElement.scrollWidth, out: [] };
    for (const svg of document.querySelectorAll("figure svg")) {
      const frame = svg.getBoundingClientRect();
      for (const text of svg.querySelectorAll("text")) {
        const box = text.getBoundingClientRect();
        const beside = box.left < frame.left - 1 || box.right > frame.right + 1;
        if (beside || box.bottom > frame.bottom + 1) found.out.push(text.textContent);
      }
      if (Math.abs(frame.width - svg.viewBox.baseVal.width) > 1) found.out.push("is scaled");
    }
    """
    found = shop.ask(name, script, hash="tables=1", width=width)
    assert found["window"] == width
    assert found["page"] <= width
    assert found["out"] == []


def test_it_is_dark_where_the_reader_wants_it_dark(shop):
    script = "found = getComputedStyle(document.body).backgroundColor;"
    found = [
        shop.ask("plain", script, f"--blink-settings=preferredColorScheme={scheme}") for scheme in (0, 1)
    ]
    assert found == ["rgb(14, 17, 22)", "rgb(255, 255, 255)"]


def test_a_thousand_runs_open_in_less_than_three_seconds(shop):
    page = shop.page("large")
    assert page.stat().st_size < 6e6
    took = [int(shop.open("large", h).all("html")[0]["data-drawn-ms"]) for h in ("", "seeds=1")]
    assert took[0] < 3000  # from the start of navigation to the last figure
    assert took[1] < 6000
