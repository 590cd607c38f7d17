// One run: selects and draws what was thinned before, and takes episodes out of their blocks when they are looked at.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { settings, at, make, number, swatch, lineChart, rowChart, table, figure, section, grid, teller, begin, show, follow, choose } = Charts;
  const AXES = [["joint_samples", "joint samples"], ["wall_s", "wall time (s)"]];
  const ROW = 52; // height of a row of the list in pixels, as in the style
  const PIECE = 4000; // characters of a text that are shown at once
  const MORE = 100000; // and that a button adds
  const PART = 20000; // and that are laid out together
  const ODD = /([\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb])/;
  const index = data.episodes, total = index.at.length;
  const state = { over: "joint_samples", signal: "score", tables: false, evaluation: "", outcome: "", order: "played", task: "", episode: 0 };
  const { update, eval: evaluated } = data.kinds;

  // -- figures -------------------------------------------------------------------------------------------

  const axisName = () => AXES.find(([key]) => key === state.over)[1];
  const line = (kind, name) => kind.lines[name] && { x: kind.x[state.over], ...kind.lines[name] };
  const plain = (name) => name.replace(/^(parts|measured)\//, "").replaceAll("_", " ");

  // wanted: [[name to show, kind of row, metric]]
  function chart(title, note, wanted, unit, references = null) {
    const series = wanted.map(([name, kind, metric]) => ({ name, ...line(kind, metric) })).filter((s) => s.y).map((s, a) => ({ ...s, a }));
    if (!series.length) return null;
    const rules = references === null ? [] : Object.entries(data.references).filter(([, own]) => typeof own[references] === "number").map(([label, own]) => ({ label, y: own[references] }));
    const rows = () => series.flatMap((s) => s.x.map((x, i) => [s.name, x, s.y[i], s.low ? s.low[i] : null, s.high ? s.high[i] : null]).filter((row) => row[2] !== null));
    const whole = figure(title, note, (box, own) => lineChart(box, {
      series, thin: [], rules, told: teller(own), xName: axisName(), yName: unit,
      label: `${title} over ${axisName()}: ${series.map((s) => s.name).join(", ")}; the numbers are in the table below`,
    }), [["line", "text"], [axisName()], [unit], ["low"], ["high"]], rows);
    whole.querySelector(".chart").after(make("ul", { class: "legend" }, ...series.map((s) => make("li", {}, swatch(s.a), s.name))));
    return whole;
  }

  const both = (name, unit = plain(name)) => chart(plain(name), "", [["evaluation", evaluated, name], ["training", update, name]], unit, name);
  const under = (kind, head) => Object.keys(kind.lines).filter((name) => name.startsWith(head) && !/\/t\d+$/.test(name));

  function parts(head, title, kind, of) {
    return chart(`${title}, ${of}`, "", under(kind, head).map((name) => [plain(name), kind, name]), "value");
  }

  function byAgent(metric, title, unit) {
    const names = Object.keys(update.lines).filter((name) => name.startsWith(metric + "/") && /\/t\d+$/.test(name));
    const turns = [...new Set(names.map((name) => +name.match(/\/t(\d+)$/)[1]))].sort((a, b) => a - b);
    return turns.map((t) => chart(turns.length > 1 ? `${title}, turn ${t + 1}` : title, "", names.filter((name) => name.endsWith("/t" + t)).map((name) => [name.split("/").slice(1, -1).join("/"), update, name]), unit));
  }

  function spent() {
    const rows = Object.entries(data.phases_s).sort((a, b) => b[1] - a[1]);
    const sum = rows.reduce((s, [, v]) => s + v, 0);
    if (!rows.length) return null;
    return figure("The whole run", "Seconds of the main thread by phase, evaluations included.", (box) => rowChart(box, {
      rows: rows.map(([name, v], a) => ({ name: `${name.replaceAll("_", " ")}, ${((100 * v) / sum).toFixed(0)} %`, a, value: [v, null, null] })), base: 0,
      label: `Seconds of the run by phase, ${rows.length} phases; the numbers are in the table below`,
    }), [["phase", "text"], ["seconds"], ["share"]], rows.map(([name, v]) => [name, v, v / sum]));
  }

  const SHARES = ["truncated_replies", "empty_replies", "clipped_prompts", "truncated_episodes"];

  function drawFigures() {
    begin();
    settings.tables = state.tables;
    const add = (title, note, figures) => {
      const drawn = figures.filter(Boolean);
      return drawn.length ? [section(title, note, grid(drawn))] : [];
    };
    const dashed = Object.keys(data.references).length ? ` Dashed: ${Object.keys(data.references).join(" and ")}, scripted agents on the same tasks.` : "";
    const sections = [
      ...add("Learning curves", `Evaluations with their 95 % intervals over tasks, beside the samples of training.${dashed} Point at a curve, or focus it and use the arrow keys, to read it.`, ["score", "success", "return", "reward"].map((name) => both(name))),
      ...add("Reward parts", "What the score is made of, and quantities that are measured and not paid.", [
        parts("parts/", "Parts", evaluated, "in evaluations"), parts("parts/", "Parts", update, "in training"),
        parts("measured/", "Measured", evaluated, "in evaluations"), parts("measured/", "Measured", update, "in training"),
      ]),
      ...add("Replies", "Length by agent in training, and shares that were cut, empty or clipped.", [
        ...byAgent("reply_tokens", "Reply length by agent", "tokens"),
        chart("Reply length of all", "", [["evaluation", evaluated, "reply_tokens"], ["training", update, "reply_tokens"]], "tokens"),
        chart("Shares in training", "", SHARES.map((name) => [plain(name), update, name]), "share"),
        chart("Shares in evaluations", "", SHARES.map((name) => [plain(name), evaluated, name]), "share"),
      ]),
      ...add("Time", "Where it went, and how much was done in it.", [
        spent(),
        chart("An update by phase", "", data.phases.map((name) => [name.replaceAll("_", " "), update, name + "_s"]), "seconds"),
        chart("Tokens drawn", "", [["training", update, "tokens_per_s"]], "tokens per second"),
        chart("Joint samples", "", [["training", update, "samples_per_s"]], "per second"),
      ]),
    ];
    const known = [...new Set([...Object.keys(evaluated.lines), ...Object.keys(update.lines)])].sort();
    if (known.length) {
      if (!known.includes(state.signal)) state.signal = known[0];
      const select = make("select", { id: "signal" });
      const form = make("form", { "aria-label": "Which signal" }, make("label", {}, "Signal ", select));
      sections.push(section("Any signal", "Everything that the run recorded; docs/signals.md says what each one means.", form, make("div", { class: "grid" }, both(state.signal, "value"))));
    }
    show(at("figures"), sections);
    if (known.length) choose("signal", known.map((name) => [name, name]), state.signal, (value) => { state.signal = value; remember(); drawFigures(); at("signal").focus(); });
  }

  // -- the list of episodes: only the rows in sight are made ------------------------------------------------

  let shown = [], place = 0, row0 = -1, row1 = -1; // episodes in the list, the chosen place, and the rows that are made

  function sift() {
    const wanted = state.task.toLowerCase();
    shown = [];
    for (let e = 0; e < total; e++) {
      if (state.evaluation !== "" && index.at[e] !== +state.evaluation) continue;
      if (state.outcome === "success" && !index.success[e]) continue;
      if (state.outcome === "none" && index.success[e]) continue;
      if (state.outcome === "cut" && !index.cut[e]) continue;
      if (wanted && !index.task[e].toLowerCase().includes(wanted)) continue;
      shown.push(e);
    }
    const way = { low: 1, high: -1 }[state.order];
    if (way) shown.sort((a, b) => way * (index.score[a] - index.score[b]) || a - b);
    if (state.order === "newest") shown.reverse();
    at("shown").textContent = total ? `${shown.length} of ${total} episodes.` : "This run kept no episodes; track.samples says how many each evaluation keeps.";
    at("rows").style.height = shown.length * ROW + "px";
    row0 = row1 = -1;
    at("rows").replaceChildren();
    pick(Math.max(0, shown.indexOf(state.episode)));
  }

  const outcome = (e) => (index.success[e] ? "success" : "no success");

  function rowOf(i) {
    const e = shown[i];
    const own = make("div", { class: "row", role: "option", id: "row" + i, "aria-setsize": shown.length, "aria-posinset": i + 1, "aria-selected": i === place ? "true" : "false" },
      make("span", { dir: "auto" }, ...marked(index.task[e].slice(0, 200))),
      make("small", {}, `score ${number(index.score[e])} · ${outcome(e)}${index.cut[e] ? " · cut" : ""} · ${index.turns[e]} ${index.turns[e] === 1 ? "turn" : "turns"} · at ${index.at[e]}`));
    own.style.top = i * ROW + "px";
    return own;
  }

  function fillList() {
    const list = at("list"), room = Math.ceil(list.clientHeight / ROW);
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4), last = Math.min(shown.length, first + room + 9);
    if (first !== row0 || last !== row1) {
      [row0, row1] = [first, last];
      at("rows").replaceChildren(...Array.from({ length: Math.max(0, last - first) }, (_, i) => rowOf(first + i)));
    }
    for (const own of at("rows").children) own.setAttribute("aria-selected", own.id === "row" + place ? "true" : "false");
    if (shown.length && place >= first && place < last) list.setAttribute("aria-activedescendant", "row" + place);
    else list.removeAttribute("aria-activedescendant");
  }

  function pick(i) {
    place = Math.max(0, Math.min(shown.length - 1, i));
    const list = at("list"), top = place * ROW;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
    fillList();
    soon();
  }

  let asked = false;
  function soon() { // some drawings a second, however fast keys repeat
    if (asked) return;
    asked = true;
    setTimeout(() => { asked = false; drawEpisode(); }, 30);
  }

  // -- an episode ----------------------------------------------------------------------------------------

  const blocks = new Map();

  function episode(e) {
    let low = 0, high = index.starts.length - 1;
    while (low < high) { const middle = (low + high + 1) >> 1; if (index.starts[middle] <= e) low = middle; else high = middle - 1; }
    if (!blocks.has(low)) {
      const block = at("block" + low);
      if (!block || (document.readyState === "loading" && !block.nextElementSibling)) return null; // the browser has not come to its end
      if (blocks.size > 8) blocks.delete(blocks.keys().next().value);
      blocks.set(low, JSON.parse(block.textContent));
    }
    return blocks.get(low)[e - index.starts[low]];
  }

  // Characters that show nothing, or turn what stands around them, are written out.
  function marked(text) {
    return text.split(ODD).filter((piece) => piece !== "").map((piece) => (ODD.test(piece) ? make("span", { class: "odd" }, "U+" + piece.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")) : piece));
  }

  function texts(text, kind, label) {
    if (!text) return [make("p", { class: "none" }, text === "" ? "(nothing)" : "(not kept)")];
    const own = make("pre", { class: kind, dir: "auto", tabindex: "0", role: "group", "aria-label": label });
    let done = 0;
    const add = (count) => { // in parts of their own, so that those out of sight cost nothing; cut at a line's end if there is one
      const goal = Math.min(text.length, done + count);
      while (done < goal) {
        let end = Math.min(goal, done + PART);
        const line = end < text.length ? text.lastIndexOf("\n", end - 1) + 1 : 0;
        if (line > done + PART / 2) end = line;
        else if (end < text.length && /[\ud800-\udbff]/.test(text[end - 1])) end++;
        own.append(make("div", {}, ...marked(text.slice(done, end))));
        done = end;
      }
    };
    add(PIECE);
    if (done >= text.length) return [own];
    const button = make("button", { type: "button" });
    const tell = () => { button.textContent = `Show more (${done.toLocaleString("en")} of ${text.length.toLocaleString("en")} characters)`; };
    button.addEventListener("click", () => { add(MORE); if (done >= text.length) { own.focus(); button.remove(); } else tell(); });
    tell();
    return [own, button];
  }

  function agentBox(name, own, turn) {
    const facts = [];
    if (typeof own.tokens === "number") facts.push(own.tokens ? `${own.tokens} tokens` : "scripted");
    if (own.cut) facts.push("cut at the limit");
    if (own.clipped) facts.push("prompt clipped to fit");
    return make("div", { class: "agent" }, make("h5", {}, ...marked(name), ...(facts.length ? [make("span", { class: "soft" }, " · " + facts.join(" · "))] : [])),
      make("p", { class: "tag" }, "saw"), ...texts(own.sees, "sees", `What ${name} saw in turn ${turn}`),
      make("p", { class: "tag" }, "wrote"), ...texts(own.says, "says", `What ${name} wrote in turn ${turn}`));
  }

  function scored(turn) {
    const told = [];
    if (turn.score !== null) told.push(`score ${number(turn.score)}`);
    if (turn.reward !== null) told.push(`reward ${number(turn.reward)}`);
    const rows = [...Object.entries(turn.parts).map(([name, v]) => [name, "paid", v]), ...Object.entries(turn.measured).map(([name, v]) => [name, "measured", v])];
    const found = [make("p", {}, told.length ? told.join(" · ") : "This run kept no scores by turn.")];
    const paid = Object.entries(turn.parts).map(([name, v]) => `${name} ${number(v)}`).join(", ");
    if (paid) found.push(make("p", { class: "soft" }, "Parts: " + paid));
    if (rows.length) {
      const fold = make("details", {}, make("summary", {}, "How it was scored"));
      fold.addEventListener("toggle", () => { if (fold.childElementCount === 1) fold.append(table("Parts of the turn's score", ["part", "kind", "value"], rows, (j) => j < 2)); });
      found.push(fold);
    }
    return found;
  }

  function pictureOf(turn, n) {
    if (!turn.picture) return [];
    const fold = make("details", {}, make("summary", {}, "As text"), make("pre", {}, turn.picture.text));
    return [make("div", { class: "picture" }, make("img", { src: "data:image/png;base64," + turn.picture.png, alt: `What stands after turn ${n}; the same is below as text` }), ...(turn.picture.text ? [fold] : []))];
  }

  function drawEpisode() {
    const box = at("episode");
    if (!shown.length) { box.replaceChildren(make("p", { class: "none" }, total ? "No episode is like that." : "Nothing to show.")); return; }
    const e = shown[place];
    state.episode = e;
    remember();
    const step = (text, by) => {
      const button = make("button", { type: "button" }, text);
      button.disabled = place + by < 0 || place + by >= shown.length;
      button.addEventListener("click", () => { pick(place + by); drawEpisode(); const again = [...box.querySelectorAll(".bar button")].find((b) => b.textContent === text && !b.disabled); (again || box).focus({ preventScroll: true }); });
      return button;
    };
    const turns = episode(e);
    if (!turns) {
      box.replaceChildren(make("p", { class: "none" }, document.readyState === "loading" ? "Reading the episodes …" : "The page is cut off: this episode is not in it."));
      if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", soon, { once: true });
      return;
    }
    box.setAttribute("aria-label", `Episode ${place + 1} of ${shown.length}`);
    box.replaceChildren(
      make("div", { class: "bar" }, make("h3", { dir: "auto" }, `Episode ${place + 1} of ${shown.length}: `, ...marked(index.task[e].slice(0, 400))), step("Previous", -1), step("Next", 1)),
      make("p", {}, make("span", { class: index.success[e] ? "good" : "bad" }, outcome(e)), ` · score ${number(index.score[e])}${typeof data.high === "number" ? ` of ${number(data.high)}` : ""} · evaluated at ${index.at[e]} joint samples`),
      ...(turns.length ? [] : [make("p", { class: "none" }, "This conversation holds no turn.")]),
      ...turns.map((turn, t) => make("section", { class: "turn", "aria-label": `Turn ${t + 1}` }, make("h4", {}, `Turn ${t + 1}`), ...scored(turn), ...pictureOf(turn, t + 1),
        make("div", { class: "agents" }, ...Object.entries(turn.agents).map(([name, own]) => agentBox(name, own, t + 1))))),
    );
  }

  // -- the forms, the keys, and the address that keeps what they say -----------------------------------------

  const KEPT = { over: "joint_samples", signal: "score", evaluation: "", outcome: "", order: "played", task: "" };

  function remember() {
    const words = new URLSearchParams();
    for (const [key, usual] of Object.entries(KEPT)) if (state[key] !== usual) words.set(key, state[key]);
    if (state.tables) words.set("tables", "1");
    if (state.episode) words.set("episode", String(state.episode + 1));
    try { history.replaceState(null, "", "#" + words); } catch (_) { /* some viewers keep no address, and browsers bound how often it changes */ }
  }

  function recall() {
    const words = new URLSearchParams(location.hash.slice(1));
    for (const key of Object.keys(KEPT)) if (words.has(key)) state[key] = words.get(key);
    if (!AXES.some(([key]) => key === state.over)) state.over = KEPT.over;
    if (!index.at.includes(+state.evaluation)) state.evaluation = "";
    if (!OUTCOMES.some(([key]) => key === state.outcome)) state.outcome = "";
    if (!ORDERS.some(([key]) => key === state.order)) state.order = "played";
    state.tables = words.get("tables") === "1";
    state.episode = Math.max(0, Math.min(total - 1, (parseInt(words.get("episode"), 10) || 1) - 1));
  }

  const OUTCOMES = [["", "all"], ["success", "success"], ["none", "no success"], ["cut", "a reply was cut"]];
  const ORDERS = [["played", "as played"], ["newest", "newest first"], ["low", "lowest score first"], ["high", "highest score first"]];
  recall();
  document.title = data.title;
  at("title").textContent = data.title;
  at("told").textContent = data.told;
  at("told").after(...data.notes.map((note) => make("p", { class: "soft" }, note)));
  choose("over", AXES, state.over, (value) => { state.over = value; remember(); drawFigures(); });
  at("tables").checked = state.tables;
  at("tables").addEventListener("change", () => { state.tables = at("tables").checked; remember(); drawFigures(); });
  drawFigures();
  for (const [id, pairs] of [["outcome", OUTCOMES], ["order", ORDERS]]) choose(id, pairs, state[id], (value) => { state[id] = value; sift(); });
  const evaluations = [...new Set(index.at)].sort((a, b) => a - b);
  choose("evaluation", [["", "all"], ...evaluations.map((n) => [String(n), `${n} joint samples`])], state.evaluation, (value) => { state.evaluation = value; sift(); });
  at("task").value = state.task;
  at("task").addEventListener("input", () => { state.task = at("task").value; sift(); });
  for (const form of document.querySelectorAll("form")) form.addEventListener("submit", (event) => event.preventDefault());
  at("list").addEventListener("scroll", fillList, { passive: true });
  at("list").addEventListener("click", (event) => {
    const own = event.target.closest(".row");
    if (own) pick(+own.id.slice(3));
  });
  at("list").addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(at("list").clientHeight / ROW) - 1);
    const to = { ArrowDown: place + 1, ArrowUp: place - 1, PageDown: place + page, PageUp: place - page, Home: 0, End: shown.length - 1 }[event.key];
    if (to !== undefined) { event.preventDefault(); pick(to); }
    if (event.key === "Enter" && shown.length) { event.preventDefault(); drawEpisode(); at("episode").focus(); }
  });
  at("episode").addEventListener("keydown", (event) => { if (event.key === "Escape") at("list").focus(); });
  at("settings").append(section("Settings and versions", "", table("Settings of the run, and what it was made with", ["name", "value"], data.about, () => true)));
  for (const head of document.querySelectorAll("main h2")) at("places").append(make("a", { href: "#" + head.id }, head.textContent));
  at("places").addEventListener("click", (event) => { // the address keeps the choices, so a place is gone to without it
    const link = event.target.closest("a");
    if (!link) return;
    event.preventDefault();
    const head = at(link.getAttribute("href").slice(1));
    head.tabIndex = -1;
    head.focus();
    head.scrollIntoView();
  });
  sift();
  follow(at("figures"));
  document.documentElement.dataset.drawnMs = String(Math.round(performance.now()));
})();
