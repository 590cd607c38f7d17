"use strict";
// What the pages share: elements, line and row charts, tables of numbers, figures. Texts only ever become text nodes.
const Charts = (() => {
  const DASHES = ["", "7 3", "2 3", "9 3 2 3"];
  const CHAR = 6.7; // a generous width of one character at 12 px
  const settings = { names: [], tables: false }; // names by colour; whether tables are open from the start
  let redraws = []; // what a change of width draws again

  const at = (id) => document.getElementById(id);

  window.addEventListener("error", (event) => {
    at("trouble").hidden = false;
    at("trouble").textContent = "This page failed to draw: " + event.message;
  });

  // -- elements ------------------------------------------------------------------------------------------

  function make(name, attributes = {}, ...children) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children.map((child) => (child instanceof Node ? child : String(child))));
    return node;
  }

  function shape(name, attributes = {}, ...children) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children.map((child) => (child instanceof Node ? child : String(child))));
    return node;
  }

  const minus = (text) => text.replace("-", "−");
  const decimals = (size) => (size >= 100 ? 0 : size >= 10 ? 1 : size >= 0.1 ? 2 : size >= 0.01 ? 3 : 4);

  function number(value) {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    if (size >= 1e15 || (size > 0 && size < 1e-4)) return minus(value.toExponential(2));
    return minus(Number.isInteger(value) ? String(value) : value.toFixed(decimals(size) + 1));
  }

  function short(value) {
    const size = Math.abs(value);
    for (const [unit, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
      if (size >= unit) return String(+(value / unit).toPrecision(4)).replace("-", "−") + letter;
    }
    return String(+value.toPrecision(4)).replace("-", "−");
  }

  const has = (triple) => triple && triple[0] !== null;
  function told(triple) {
    if (!has(triple)) return "–";
    const places = decimals(Math.max(...triple.map(Math.abs))); // of null, 0
    const text = (value) => minus((Math.abs(value) < 0.5 * 10 ** -places ? 0 : value).toFixed(places));
    return text(triple[0]) + (triple[1] === null ? "" : ` [${text(triple[1])}, ${text(triple[2])}]`);
  }

  const cut = (text, room) => ([...text].length <= room ? text : [...text].slice(0, Math.max(1, room - 1)).join("") + "…");
  const nameOf = (a) => settings.names[a];
  const nameOfSeries = (s) => (s.name === undefined ? nameOf(s.a) : s.name);
  const colour = (a) => "c" + (a % 8);
  const dash = (a) => DASHES[Math.floor(a / 8) % DASHES.length];

  function marker(a, x, y, size = 3.5) {
    const r = size, points = {
      1: [[-r, -r], [r, -r], [r, r], [-r, r]], 2: [[0, -r * 1.3], [r * 1.2, r], [-r * 1.2, r]],
      3: [[0, -r * 1.4], [r * 1.4, 0], [0, r * 1.4], [-r * 1.4, 0]], 4: [[0, r * 1.3], [r * 1.2, -r], [-r * 1.2, -r]],
    }[a % 5];
    if (!points) return shape("circle", { cx: x, cy: y, r, fill: "currentColor" });
    return shape("polygon", { points: points.map(([u, v]) => `${x + u},${y + v}`).join(" "), fill: "currentColor" });
  }

  function swatch(a) {
    const own = shape("svg", { width: 26, height: 12, "aria-hidden": "true", class: colour(a) });
    own.append(shape("path", { d: "M0 6H26", stroke: "currentColor", "stroke-width": 2.5, "stroke-dasharray": dash(a) }), marker(a, 13, 6, 4));
    return own;
  }

  // -- scales --------------------------------------------------------------------------------------------

  function ticks(low, high, wanted) {
    const rough = (high - low) / Math.max(1, wanted), power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= rough * 0.999) || rough;
    const found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(+(i * step).toPrecision(12));
    return found;
  }

  function span(values, pad = 0.05) {
    const known = values.filter((v) => v !== null && v !== undefined && Number.isFinite(v));
    let low = known.reduce((a, b) => Math.min(a, b), Infinity), high = known.reduce((a, b) => Math.max(a, b), -Infinity);
    if (!known.length) [low, high] = [0, 1];
    if (low === high) { const room = Math.abs(low) * 0.1 || 0.5; [low, high] = [low - room, high + room]; }
    const room = (high - low) * pad;
    return [low - room, high + room];
  }

  // -- charts --------------------------------------------------------------------------------------------

  // series: [{a, x, y, low, high}], with a name where `a` is no place in the settings' names; thin: [{a, x, y}]; rules: [{label, y}]
  function lineChart(box, spec) {
    const width = Math.max(240, box.clientWidth), height = 230;
    const lines = [...spec.series, ...spec.thin];
    const [x0, x1] = span(lines.flatMap((s) => s.x), 0);
    const ys = lines.flatMap((s) => [...s.y, ...(s.low || []), ...(s.high || [])]).concat(spec.rules.map((r) => r.y));
    const [y0, y1] = spec.range || span(ys);
    const yTicks = ticks(y0, y1, 5), xTicks = ticks(x0, x1, Math.floor(width / 80));
    const left = 12 + Math.max(...yTicks.map((t) => short(t).length), 1) * CHAR, right = 18, top = 26, bottom = 40;
    const X = (v) => left + ((v - x0) / (x1 - x0)) * (width - left - right);
    const Y = (v) => height - bottom - ((v - y0) / (y1 - y0)) * (height - top - bottom);
    const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": spec.label, tabindex: "0" });
    svg.append(shape("text", { x: 2, y: 13, class: "soft" }, spec.yName));
    for (const t of yTicks) {
      svg.append(shape("path", { d: `M${left} ${Y(t)}H${width - right}`, class: "rule" }));
      svg.append(shape("text", { x: left - 5, y: Y(t) + 4, "text-anchor": "end", class: "soft" }, short(t)));
    }
    for (const t of xTicks) svg.append(shape("text", { x: X(t), y: height - bottom + 16, "text-anchor": "middle", class: "soft" }, short(t)));
    svg.append(shape("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle", class: "soft" }, spec.xName));
    for (const rule of spec.rules) svg.append(shape("path", { d: `M${left} ${Y(rule.y)}H${width - right}`, class: "mark" }));
    const path = (xs, f, step) => {
      let d = "", pen = "M";
      xs.forEach((x, i) => {
        const v = f(i);
        if (v === null || v === undefined) { pen = "M"; return; }
        d += (pen === "L" && step ? `H${X(x).toFixed(1)}V${Y(v).toFixed(1)}` : `${pen}${X(x).toFixed(1)} ${Y(v).toFixed(1)}`);
        pen = "L";
      });
      return d;
    };
    for (const s of spec.series) {
      const known = s.x.map((_, i) => i).filter((i) => s.low && s.low[i] !== null && s.high[i] !== null);
      if (known.length < 2) continue;
      const edge = [...known.map((i) => [s.x[i], s.high[i]]), ...known.reverse().map((i) => [s.x[i], s.low[i]])];
      const points = edge.map(([x, v]) => `${X(x).toFixed(1)},${Y(v).toFixed(1)}`).join(" ");
      svg.append(shape("polygon", { points, fill: "currentColor", "fill-opacity": 0.16, class: "band " + colour(s.a) }));
    }
    for (const s of spec.thin) {
      svg.append(shape("path", { d: path(s.x, (i) => s.y[i]), class: "seed " + colour(s.a), stroke: "currentColor", "stroke-width": 0.9, "stroke-opacity": 0.6, fill: "none", "stroke-dasharray": dash(s.a) }));
    }
    for (const s of spec.series) {
      const group = shape("g", { class: colour(s.a) }, shape("title", {}, nameOfSeries(s)));
      group.append(shape("path", { d: path(s.x, (i) => s.y[i]), stroke: "currentColor", "stroke-width": 2, fill: "none", "stroke-dasharray": dash(s.a), "stroke-linejoin": "round" }));
      if (s.x.length <= 25) s.x.forEach((x, i) => { if (s.y[i] !== null) group.append(marker(s.a, X(x), Y(s.y[i]), 2.8)); });
      svg.append(group);
    }
    let last = -Infinity;
    for (const rule of [...spec.rules].sort((a, b) => b.y - a.y)) {
      const y = Math.max(Y(rule.y) - 4, last + 12);
      svg.append(shape("text", { x: width - right, y, "text-anchor": "end", class: "soft halo" }, rule.label));
      last = y;
    }
    box.replaceChildren(svg);
    readout(svg, spec, { X, x0, x1, left, right, top, width, bottom: height - bottom });
  }

  function readout(svg, spec, frame) {
    const grid = [...new Set(spec.series.flatMap((s) => s.x))].sort((a, b) => a - b);
    const hair = shape("path", { class: "mark", visibility: "hidden" });
    svg.append(hair);
    let index = -1;
    const show = (i) => {
      if (!grid.length) return;
      index = Math.max(0, Math.min(grid.length - 1, i));
      const x = grid[index];
      hair.setAttribute("d", `M${frame.X(x)} ${frame.top}V${frame.bottom}`);
      hair.setAttribute("visibility", "visible");
      const parts = [`${spec.xName} ${short(x)}`];
      for (const s of spec.series) {
        const near = s.x.reduce((best, v, j) => (Math.abs(v - x) < Math.abs(s.x[best] - x) ? j : best), 0);
        const close = Math.abs(s.x[near] - x) <= (frame.x1 - frame.x0) / 40;
        if (s.x.length && close) parts.push(`${nameOfSeries(s)} ${told([s.y[near], s.low ? s.low[near] : null, s.high ? s.high[near] : null])}`);
      }
      spec.told.textContent = parts.join(" · ");
    };
    svg.addEventListener("pointermove", (event) => {
      const area = svg.getBoundingClientRect();
      const x = frame.x0 + (((event.clientX - area.left) * (frame.width / area.width) - frame.left) / (frame.width - frame.left - frame.right)) * (frame.x1 - frame.x0);
      show(grid.reduce((best, v, j) => (Math.abs(v - x) < Math.abs(grid[best] - x) ? j : best), 0));
    });
    svg.addEventListener("keydown", (event) => {
      const way = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: grid.length - 1 }[event.key];
      if (way !== undefined) { event.preventDefault(); show(way); }
    });
  }

  // rows: [{name, a, value: [estimate, low, high]}]; a bar from `base`, a line over the interval
  function rowChart(box, spec) {
    const width = Math.max(240, box.clientWidth), row = 36, top = 4, bottom = 24, height = top + spec.rows.length * row + bottom;
    const known = spec.rows.filter((r) => has(r.value));
    const rules = spec.rules || [];
    const [v0, v1] = spec.range || span([spec.base, ...known.flatMap((r) => r.value), ...rules.map((r) => r.y)], 0.03);
    const X = (v) => 8 + ((v - v0) / (v1 - v0)) * (width - 16);
    const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": spec.label });
    for (const t of ticks(v0, v1, Math.floor(width / 60))) {
      svg.append(shape("path", { d: `M${X(t)} ${top}V${height - bottom}`, class: "rule" }));
      const end = X(t) < 16 ? "start" : X(t) > width - 16 ? "end" : "middle";
      svg.append(shape("text", { x: end === "start" ? 2 : end === "end" ? width - 2 : X(t), y: height - 8, "text-anchor": end, class: "soft" }, short(t)));
    }
    for (const rule of rules) svg.append(shape("path", { d: `M${X(rule.y)} ${top}V${height - bottom}`, class: "mark" }));
    spec.rows.forEach((r, i) => {
      const y = top + i * row, words = told(r.value), room = Math.floor((width - 12 - words.length * CHAR) / CHAR) - 1;
      const group = shape("g", { class: r.a === null ? "c5" : colour(r.a) }, shape("title", {}, `${r.name}: ${words}`));
      if (has(r.value)) {
        const [value, low, high] = r.value, from = X(spec.base), to = X(value), middle = y + 25;
        if (spec.dots !== true) group.append(shape("rect", { x: Math.min(from, to), y: middle - 6, width: Math.max(0.5, Math.abs(to - from)), height: 12, fill: "currentColor", "fill-opacity": 0.35, class: "bar" }));
        if (low !== null) group.append(shape("path", { d: `M${X(low)} ${middle}H${X(high)}M${X(low)} ${middle - 4}v8M${X(high)} ${middle - 4}v8`, stroke: "currentColor", "stroke-width": 2, fill: "none" }));
        group.append(r.a === null ? shape("circle", { cx: to, cy: middle, r: 4, fill: "currentColor" }) : marker(r.a, to, middle, 4));
      }
      group.append(shape("text", { x: 4, y: y + 13, class: "halo" }, cut(r.name, room)));
      group.append(shape("text", { x: width - 4, y: y + 13, "text-anchor": "end", class: "halo" }, words));
      svg.append(group);
    });
    box.replaceChildren(svg);
  }

  // -- figures: a chart, its numbers as a table, the numbers as a file ---------------------------------------

  function table(title, columns, rows, isText) {
    const head = make("tr", {}, ...columns.map((c, j) => make("th", { scope: "col", class: isText(j) ? "text" : "number" }, c)));
    const body = make("tbody");
    for (const row of rows) {
      body.append(make("tr", {}, ...row.map((cell, j) => {
        const attributes = j === 0 ? { scope: "row", class: isText(j) ? "text" : "number" } : { class: isText(j) ? "text" : "number" };
        return make(j === 0 ? "th" : "td", attributes, typeof cell === "number" || cell === null || cell === undefined ? number(cell) : cell);
      })));
    }
    const whole = make("table", {}, make("caption", {}, title), make("thead", {}, head), body);
    return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table: " + title }, whole);
  }

  function csv(columns, rows) {
    const cell = (value) => {
      if (value === null || value === undefined) return "";
      if (typeof value === "number") return String(value);
      const text = /^[=+\-@\t\r]/.test(value) ? "'" + value : value; // a spreadsheet would run it
      return `"${text.replaceAll('"', '""')}"`;
    };
    return [columns, ...rows].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
  }

  function save(title, columns, rows) {
    const address = URL.createObjectURL(new Blob(["\ufeff", csv(columns, rows)], { type: "text/csv" }));
    const link = make("a", { href: address, download: (title.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 60) || "figure") + ".csv" });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  }

  function numbers(title, columns, rows) {
    const made = typeof rows === "function" ? rows : () => rows;
    const isText = (j) => columns[j][1] === "text";
    const names = columns.map((c) => c[0]);
    const fold = make("details", {}, make("summary", {}, "Numbers"));
    fold.firstChild.append(make("span", { class: "soft" }, ": " + title));
    const fill = () => {
      if (fold.childElementCount > 1) return;
      const button = make("button", { type: "button" }, "Download CSV");
      button.setAttribute("aria-label", "Download CSV: " + title);
      button.addEventListener("click", () => save(title, names, made()));
      fold.append(button, table(title, names, made(), isText));
    };
    fold.addEventListener("toggle", fill);
    if (settings.tables) { fold.open = true; fill(); }
    return fold;
  }

  function figure(title, note, draw, columns, rows, tall = false) {
    const box = make("div", { class: "chart" });
    if (tall) for (const [key, value] of [["class", "chart scroll"], ["tabindex", "0"], ["role", "region"], ["aria-label", "Chart: " + title]]) box.setAttribute(key, value);
    const whole = make("figure", {}, make("figcaption", {}, make("h3", {}, title), ...(note ? [make("p", {}, note)] : [])), box);
    if (draw) redraws.push(() => draw(box, whole));
    whole.append(numbers(title, columns, rows));
    return whole;
  }

  function section(title, note, ...children) {
    const id = "s-" + title.toLowerCase().replace(/[^a-z]+/g, "-");
    return make("section", { "aria-labelledby": id }, make("h2", { id }, title), ...(note ? [make("p", { class: "soft" }, note)] : []), ...children);
  }

  const grid = (figures, more = "") => make("div", { class: "grid" + more }, ...figures);

  function teller(whole) {
    let line = whole.querySelector(".told");
    if (!line) {
      line = make("p", { class: "told", "aria-live": "polite" });
      whole.querySelector(".chart").after(line);
    }
    line.textContent = "";
    return line;
  }

  // Puts sections into a place and draws their charts; `begin` comes before the sections are made.
  function begin() { redraws = []; }

  function show(place, parts) {
    place.replaceChildren(...parts);
    for (const again of redraws) again();
  }

  function follow(place) {
    let width = place.clientWidth;
    new ResizeObserver(() => {
      if (place.clientWidth === width) return;
      width = place.clientWidth;
      for (const again of redraws) again();
    }).observe(place);
  }

  function choose(id, pairs, value, changed) {
    at(id).replaceChildren(...pairs.map(([key, text]) => { const o = make("option", {}, text); o.value = key; return o; }));
    at(id).value = value;
    at(id).addEventListener("change", () => changed(at(id).value));
  }

  return { settings, at, make, shape, number, short, cut, swatch, nameOf, lineChart, rowChart, table, numbers, figure, section, grid, teller, begin, show, follow, choose };
})();
