// Selects and draws; every number was computed before.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { settings, at, make, number, swatch, nameOf, lineChart, rowChart, table, numbers, figure, section, grid, teller, begin, show, follow, choose } = Charts;
  const ALL = "";
  const state = { env: ALL, task: ALL, metric: data.metric, over: data.axes[0][0], seeds: false, tables: false, off: new Set() };
  settings.names = data.algorithms;

  // -- sections ------------------------------------------------------------------------------------------

  const wanted = (e, t) => (state.env === ALL || data.environments[e] === state.env) && (state.task === ALL || data.tasks[t] === state.task);
  const on = (a) => !state.off.has(nameOf(a));
  const overName = () => data.axes.find(([key]) => key === state.over)[1];
  const named = (own) => nameOf(own.a) + (own.failed ? ` (${own.failed} failed)` : "");
  const placeName = (place) => `${data.environments[place.e]} · ${data.tasks[place.t]}`;

  function scopeShown() {
    const e = data.environments.indexOf(state.env), t = data.tasks.indexOf(state.task);
    return data.scopes.find((s) => s.e === e && s.t === t && s.m === state.metric);
  }

  function aggregates(scope) {
    const rows = scope.rows.filter((r) => on(r.a));
    const columns = [["algorithm", "text"], ["estimate"], ["low"], ["high"], ["runs"], ["failed"]];
    return grid(data.aggregates.map(([key, title, note]) => figure(title, note, (box) => rowChart(box, {
      rows: rows.map((r) => ({ name: named(r), a: r.a, value: r[key] })), base: 0, label: `${title} of ${rows.length} algorithms, with intervals; the numbers are in the table below`,
    }), columns, rows.map((r) => [nameOf(r.a), ...(r[key] || [null, null, null]), r.n, r.failed]))), " four");
  }

  function profile(scope) {
    const lines = scope.profile.lines.filter((l) => on(l.a)), tau = scope.profile.tau;
    return figure("Performance profile", "Share of runs that end above the value below; higher is better.", (box, whole) => lineChart(box, {
      series: lines.map((l) => ({ a: l.a, x: tau, y: l.y, low: l.low, high: l.high })), thin: [], rules: [], range: [0, 1.02], told: teller(whole),
      xName: "normalised " + state.metric, yName: "share of runs", label: `Performance profiles of ${lines.length} algorithms; the numbers are in the table below`,
    }), [["algorithm", "text"], ["above"], ["share"], ["low"], ["high"]],
    () => lines.flatMap((l) => tau.map((x, i) => [nameOf(l.a), x, l.y[i], l.low ? l.low[i] : null, l.high ? l.high[i] : null])));
  }

  function better(scope) {
    const pairs = scope.better.filter((b) => on(b.a) && on(b.b));
    const rows = pairs.map((b) => [nameOf(b.a), nameOf(b.b), ...(b.p || [null, null, null])]);
    return figure("Probability of improvement", "Chance that a run of the first is above a run of the second on the same task; 0.5 is even.", (box) => rowChart(box, {
      rows: pairs.map((b) => ({ name: `${nameOf(b.a)} > ${nameOf(b.b)}`, a: b.a, value: b.p })), base: 0.5, dots: true, range: [0, 1], rules: [{ y: 0.5 }],
      label: `Probability of improvement for ${pairs.length} pairs; the numbers are in the table below`,
    }), [["first", "text"], ["second", "text"], ["probability"], ["low"], ["high"]], rows, pairs.length > 10);
  }

  function ranks(scope) {
    const rows = scope.rows.filter((r) => on(r.a));
    return figure("Mean rank", "1 is best; among all algorithms of these results, whichever are shown.", (box) => rowChart(box, {
      rows: rows.map((r) => ({ name: nameOf(r.a), a: r.a, value: r.rank })), base: 1, dots: true, label: `Mean ranks of ${rows.length} algorithms; the numbers are in the table below`,
    }), [["algorithm", "text"], ["mean rank"], ["low"], ["high"]], rows.map((r) => [nameOf(r.a), ...(r.rank || [null, null, null])]));
  }

  function groupsOf(p) {
    return data.groups.filter((g) => g.p === p && on(g.a));
  }

  function curves(place, p) {
    const m = state.metric, groups = groupsOf(p);
    const series = groups.map((g) => ({ a: g.a, ...((g.curves[m] || {})[state.over] || { x: [], y: [] }) })).filter((s) => s.x.length);
    const thin = !state.seeds ? [] : groups.flatMap((g) => g.runs.filter((r) => r.y[m]).map((r) => ({ a: g.a, seed: r.seed, x: r.x[state.over], y: r.y[m] })));
    const known = place.refs[m] || {};
    const rules = ["novice", "oracle"].filter((k) => known[k] !== undefined && known[k] !== null).map((k) => ({ label: k, y: known[k] }));
    const columns = [["algorithm", "text"], ["seed", "text"], [overName()], [m], ["low"], ["high"]];
    const rows = () => [
      ...series.flatMap((s) => s.x.map((x, i) => [nameOf(s.a), "all", x, s.y[i], s.low ? s.low[i] : null, s.high ? s.high[i] : null])),
      ...thin.flatMap((s) => s.x.map((x, i) => [nameOf(s.a), String(s.seed), x, s.y[i], null, null])),
    ];
    return figure(placeName(place), series.length ? "" : "No evaluations to draw a curve of.", series.length ? (box, whole) => lineChart(box, {
      series, thin, rules, told: teller(whole), xName: overName(), yName: m,
      label: `${m} over ${overName()} on ${placeName(place)}: ${series.length} algorithms; the numbers are in the table below`,
    }) : null, columns, rows);
  }

  function finals(place, p) {
    const m = state.metric, groups = groupsOf(p), known = place.refs[m] || {};
    const rules = ["novice", "oracle"].filter((k) => known[k] !== undefined && known[k] !== null).map((k) => ({ label: k, y: known[k] }));
    const note = rules.map((r) => `${r.label} ${number(r.y)}`).join(", ");
    const rows = groups.map((g) => ({ name: named(g), a: g.a, value: ((g.stats[m] || {}).final) || null }));
    return figure(placeName(place), note ? `Dashed: ${note}.` : "", (box) => rowChart(box, {
      rows, base: 0, rules, label: `Last ${m} on ${placeName(place)}, ${rows.length} algorithms; the numbers are in the table below`,
    }), [["algorithm", "text"], ["mean"], ["low"], ["high"], ["runs"], ["failed"]],
    groups.map((g) => [nameOf(g.a), ...(((g.stats[m] || {}).final) || [null, null, null]), g.done, g.failed]));
  }

  function perTask(places) {
    const m = state.metric;
    const columns = [["environment", "text"], ["task", "text"], ["algorithm", "text"], ["runs"], ["failed"]];
    for (const [, title] of data.quantities) columns.push([title], ["low"], ["high"]);
    columns.push(["success"], ["low"], ["high"]);
    const rows = () => places.flatMap(([place, p]) => groupsOf(p).map((g) => {
      const own = g.stats[m] || {};
      return [data.environments[place.e], data.tasks[place.t], nameOf(g.a), g.done, g.failed,
        ...data.quantities.flatMap(([key]) => own[key] || [null, null, null]), ...((g.stats.success || {}).final || [null, null, null])];
    }));
    return numbers(`every environment, task and algorithm, ${m}`, columns, rows);
  }

  function failures() {
    const rows = data.failed.filter((f) => wanted(f.e, f.t) && on(f.a));
    const columns = ["environment", "task", "algorithm", "seed", "error"];
    const cells = rows.map((f) => [data.environments[f.e], data.tasks[f.t], nameOf(f.a), String(f.seed), f.error]);
    return rows.length ? table(`Failed runs: ${rows.length}`, columns, cells, () => true) : make("p", {}, "No run shown here failed.");
  }

  function draw() {
    begin();
    settings.tables = state.tables;
    const places = data.places.map((place, p) => [place, p]).filter(([place]) => wanted(place.e, place.t));
    const scope = scopeShown(), main = at("figures"), parts = [];
    const way = `Normalised ${state.metric}: the novice is 0, the oracle 1, in each environment and task.`;
    if (scope) {
      parts.push(section("Over all tasks shown", way + (scope.told ? " " + scope.told : ""), aggregates(scope)));
      const pairs = state.metric === data.metric ? "" : `Pairs are compared in ${data.metric} only.`;
      parts.push(section("Side by side", pairs, grid([profile(scope), ...(scope.better.length ? [better(scope)] : []), ...(scope.rows.some((r) => r.rank) ? [ranks(scope)] : [])])));
    } else if (places.length) {
      parts.push(section("Over all tasks shown", `${state.metric} is not normalised here: that takes a novice and an oracle that differ, and at least one run that came to its end.`));
    }
    if (places.length) {
      parts.push(section("Learning curves", `Mean of ${state.metric} over seeds; the band is its interval. Point at a curve, or focus it and use the arrow keys, to read it.`, grid(places.map(([place, p]) => curves(place, p)))));
      parts.push(section("Last evaluation", `Mean of ${state.metric} over seeds, with its interval.`, grid(places.map(([place, p]) => finals(place, p))), perTask(places)));
    }
    parts.push(section("Failed runs", "", failures()));
    parts.push(section("What was run", "", table("What was run and with what", ["", ""], data.about, () => true), ...data.notes.map((n) => make("p", { class: "soft" }, n))));
    show(main, parts);
    const shown = data.algorithms.filter((_, a) => on(a)).length;
    at("shown").textContent = `${places.length} of ${data.places.length} tasks, ${shown} of ${data.algorithms.length} algorithms, ${state.metric} over ${overName()}.`;
  }

  // -- the form, and the address that keeps what it says -----------------------------------------------------

  function remember() {
    const words = new URLSearchParams();
    if (state.env !== ALL) words.set("env", state.env);
    if (state.task !== ALL) words.set("task", state.task);
    if (state.metric !== data.metric) words.set("metric", state.metric);
    if (state.over !== data.axes[0][0]) words.set("over", state.over);
    for (const key of ["seeds", "tables"]) if (state[key]) words.set(key, "1");
    for (const name of state.off) words.append("off", name);
    try { history.replaceState(null, "", "#" + words); } catch (_) { /* some viewers keep no address */ }
  }

  function recall() {
    const words = new URLSearchParams(location.hash.slice(1));
    const pick = (key, known) => { if (known.includes(words.get(key))) state[key] = words.get(key); };
    pick("env", data.environments);
    pick("task", data.tasks);
    pick("metric", data.metrics);
    pick("over", data.axes.map(([key]) => key));
    for (const key of ["seeds", "tables"]) state[key] = words.get(key) === "1";
    for (const name of words.getAll("off")) if (data.algorithms.includes(name)) state.off.add(name);
  }

  const choice = (id, pairs) => choose(id, pairs, state[id], (value) => { state[id] = value; remember(); draw(); });

  function tick(id) {
    at(id).checked = state[id];
    at(id).addEventListener("change", () => { state[id] = at(id).checked; remember(); draw(); });
  }

  recall();
  document.title = data.title;
  at("title").textContent = data.title;
  at("told").textContent = data.told;
  if (data.failed.length) at("told").after(make("p", { class: "failed" }, `${data.failed.length} ${data.failed.length === 1 ? "run" : "runs"} failed; all are listed at the end, and none is in a mean, which flatters an algorithm that fails.`));
  choice("env", [[ALL, "all"], ...data.environments.map((n) => [n, n])]);
  choice("task", [[ALL, "all"], ...data.tasks.map((n) => [n, n])]);
  choice("metric", data.metrics.map((n) => [n, n]));
  choice("over", data.axes);
  tick("seeds");
  tick("tables");
  data.algorithms.forEach((name, a) => {
    const box = make("input", { type: "checkbox" });
    box.checked = on(a);
    box.addEventListener("change", () => { if (box.checked) state.off.delete(name); else state.off.add(name); remember(); draw(); });
    at("algorithms").append(make("label", { class: "tick" }, box, swatch(a), name));
  });
  draw();
  follow(at("figures"));
  document.documentElement.dataset.drawnMs = String(Math.round(performance.now()));
})();
