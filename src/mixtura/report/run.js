"use strict";
// Draws what moves on the page of a run, with the tools of kit.js.
(() => {
  const tools = kit();
  const { COLOURS, data, $, sum, range, make, stretched, fixed, digitsOf, num, percent, leave, plot, follow } = tools;
  const images = data.kind === "images";
  const nouns = images ? "images" : "rows";
  // not the names of models, which are file names
  const VERDICT = "/verdict", BENCH = "/bench";

  // -------------------------------------------------------------------------------------------------- colours

  const judged = data.scores.filter((s) => s.status === "fitted" || s.status === "samples only").map((s) => s.name);
  const colour = (name) => `c${judged.indexOf(name) % COLOURS}`;
  const dashed = (name) => (judged.indexOf(name) >= COLOURS ? " dashed" : "");
  const swatch = (name) => make("i", { class: `swatch ${colour(name)}` });

  // ------------------------------------------------------------------------------------------- what stands still

  async function copy(event) {
    const code = event.target.previousElementSibling;
    getSelection().selectAllChildren(code);
    const done = await navigator.clipboard?.writeText(code.textContent).then(() => true, () => false);
    event.target.textContent = done ? "Copied" : "Selected";
  }

  // by a column, first its better end first, then the other; rows without a number last
  function sort(heading, column) {
    const once = heading.getAttribute("aria-sort");
    const up = once ? once !== "ascending" : heading.firstElementChild.dataset.better === "lower";
    const value = (row) => row.cells[column]?.dataset.value;
    const key = (row) => (value(row) ? Number(value(row)) : up ? Infinity : -Infinity);
    const rows = [...$("board").tBodies[0].rows].sort((a, b) => (up ? key(a) - key(b) : key(b) - key(a)) || 0);
    $("board").tBodies[0].append(...rows);
    for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", up ? "ascending" : "descending");
  }

  function leaderboard() {
    [...$("board").tHead.rows[0].cells].forEach((heading, k) => {
      heading.firstElementChild?.addEventListener("click", () => sort(heading, k));
    });
    $("every").addEventListener("click", () => $("every").setAttribute("aria-pressed", $("board").classList.toggle("every")));
    document.querySelectorAll(".copy").forEach((button) => button.addEventListener("click", copy));
  }

  // ---------------------------------------------------------------------------------------- weights that move

  const q = data.quadratic ?? { names: [], weights: [] };
  const weights = q.names.length > 1 && !data.given ? bench() : { w: q.weights };

  // MMD²(w) = w'Qw − 2 b'w + c
  function distance(w) {
    return sum(w.map((v, i) => v * (sum(w.map((u, j) => q.Q[i][j] * u)) - 2 * q.b[i]))) + q.c;
  }

  function bench() {
    const digits = Math.min(7, digitsOf(data.verdicts.mmd.value_error) + 1);
    return tools.bench({
      names: q.names, best: q.weights, colour, score: distance, digits,
      says: (apart) => {
        const than = `${fixed(Math.abs(apart), digits)} ${apart > 0 ? "worse" : "better"} than `;
        return [`${Math.abs(apart) < 1e-12 ? "" : than}the weights of the run, on `, num(["quadratic", "rows"]),
          ` unseen ${nouns}; such a distance is known to about `, num(["verdicts", "mmd", "value_error"], digits), "."];
      },
      valley: (name) => `MMD² as the weight of ${name} moves and the others keep their proportions; dashed: the weights of the run.`,
      changed: () => { if (selected() === BENCH) requestAnimationFrame(samples); },
    });
  }

  // ---------------------------------------------------------------------------------------------------- ticks

  function ticks(low, high, about) {
    const raw = (high - low) / about, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
    const digits = Math.max(0, -Math.floor(Math.log10(step)));
    const first = Math.ceil(low / step), count = Math.floor(high / step) - first + 1;
    return range(count).map((k) => [(first + k) * step, fixed((first + k) * step, digits)]);
  }

  function logTicks(low, high) {
    const digits = high - low > 2.2 ? [1] : [1, 2, 5];
    const powers = range(12).map((k) => k - 4);
    const values = powers.flatMap((power) => digits.map((d) => d * 10 ** power)).map((v) => [Math.log10(v), v]);
    return values.filter(([at]) => at >= low && at <= high).map(([at, v]) => [at, fixed(v, v < 1 ? Math.ceil(-at) : 0)]);
  }

  // ---------------------------------------------------------------------------------------------- real beside generated

  const selected = () => $("model").value;
  const blended = () => selected() === VERDICT || selected() === BENCH;
  const called = () => (blended() ? { [VERDICT]: "the blend", [BENCH]: "the blend above" }[selected()] : selected());

  // [name, weight] of all that what is selected is made of
  function parts() {
    if (selected() === BENCH) return q.names.map((name, i) => [name, weights.w[i]]);
    return selected() === VERDICT ? Object.entries(data.verdict.weights) : [[selected(), 1]];
  }

  function picker() {
    const option = (value, text) => make("option", { value }, text);
    const blend = data.verdict.choice === "blend";
    if (blend) $("model").append(option(VERDICT, "the blend of the verdict"));
    $("model").append(...judged.map((name) => option(name, name)));
    if (q.names.length > 1) $("model").append(option(BENCH, "the blend above, as its weights stand"));
    $("model").value = blend ? VERDICT : data.verdict.best;
    $("model").addEventListener("change", samples);
  }

  function samples() {
    $("seen").replaceChildren(...(images ? gallery() : [...histograms(), ...pairs()]));
  }

  // A tile of a sprite, as a background: the grid reflows, the file stays one image.
  function tile(sprite, k) {
    const { across, side, shape } = data.images;
    const down = Math.ceil(sprite.n / across), part = (index, count) => (count > 1 ? (100 * index) / (count - 1) : 0);
    return make("div", {
      class: "tile",
      style: {
        "aspect-ratio": `${shape[2]} / ${shape[1]}`, "background-image": `url(${sprite.png})`,
        "background-size": `${100 * across}% ${100 * down}%`,
        "background-position": `${part(k % across, across)}% ${part(Math.floor(k / across), down)}%`,
      },
    });
  }

  function tiles(label, made) {
    return make("div", { class: data.images.side <= 32 ? "tiles coarse" : "tiles", role: "img", "aria-label": label }, ...made);
  }

  // Of a blend, tile k comes from the model whose stretch of the weights holds the k-th of an even sequence in [0, 1).
  function drawnFrom(k) {
    let left = (k * 0.6180339887 + 0.5) % 1;
    const found = parts().find(([, weight]) => (left -= weight) < 0) ?? parts()[0];
    return data.images.models[found[0]];
  }

  function gallery() {
    const { models, real } = data.images, name = called();
    const pair = (k) => make("div", { class: "twin" }, tile(drawnFrom(k).samples, k), tile(drawnFrom(k).nearest, k));
    const least = (part) => Math.min(...parts().map(([model]) => models[model][part].n));
    const seen = range(real.n).map((k) => tile(real, k));
    const made = range(least("samples")).map((k) => tile(drawnFrom(k).samples, k));
    const says = `Nearest in the features that samples are judged by, ${data.features}. A copy would stand above its original.`;
    return [
      make("div", { class: "beside" },
        make("figure", {}, make("h3", {}, "Real, unseen"), tiles("Real images", seen)),
        make("figure", {}, make("h3", {}, `By ${name}`), tiles(`Images by ${name}`, made))),
      make("h3", {}, "Samples, each above the training image nearest to it"),
      make("p", { class: "aside" }, says),
      tiles(`Images by ${name}, each above its nearest training image`, range(least("nearest")).map(pair)),
    ];
  }

  // shares of the chosen model, or of the blend: a mixture's histogram is the mixture of the histograms
  function share(models, read) {
    return sum(parts().map(([name, weight]) => weight * read(models[name])));
  }

  function histograms() {
    const t = data.table;
    const of = t.columns.length < t.total
      ? [`The ${t.columns.length} of `, num(["table", "total"]), ` columns where ${t.by} is furthest from the real rows. `] : [];
    const intro = make("p", { class: "intro" }, ...of, "Filled: ", num(["table", "rows", "real"]),
      ` unseen rows. Line: ${called()}. Point at a bin, or focus a figure and use the arrow keys.`);
    const cards = t.columns.map((c, i) => (c.kind === "number" ? numbers(c, i) : categories(c, i)));
    return [intro, make("div", { class: "cards" }, ...cards)];
  }

  function numbers(c, i) {
    const n = c.labels.length, whole = c.labels.at(-1) === "missing" && n > 1 ? n - 1 : n;
    const x = (k) => (k < whole ? k : k + 0.6), made = c.labels.map((_, k) => share(c.models, (m) => m[k]));
    const top = Math.max(...c.real, ...made, 1e-9), y = (v) => (1 - (0.97 * v) / top).toFixed(4);
    const cursor = make("svg:rect", { class: "cursor", y: 0, width: 1, height: 1, visibility: "hidden" });
    const steps = made.map((v, k) => `${k % whole ? "L" : "M"}${x(k)} ${y(v)}H${x(k) + 1}`).join("");
    const picture = stretched("small-plot", x(n - 1) + 1, 1, null,
      ...c.real.map((v, k) => make("svg:rect", { x: x(k) + 0.04, width: 0.92, y: y(v), height: 1 - y(v) })),
      make("svg:path", { d: steps }), cursor);
    const readout = make("p", { class: "readout", "aria-live": "polite" });
    const span = (text, flex) => make("span", { style: { flex } }, text);
    const gone = whole < n ? span("missing", 1.6) : null;
    const ends = make("div", { class: "ends" }, span(c.ends[0], whole / 2), span(c.ends[1], whole / 2), gone);
    const tell = (k) => {
      cursor.setAttribute("x", x(k));
      cursor.setAttribute("visibility", "visible");
      readout.replaceChildren(...told(c, i, k, made[k]));
    };
    const card = figure(c, picture, ends, readout);
    follow(card, picture, (f) => Math.min(n - 1, Math.floor(f * (x(n - 1) + 1))), n, tell);
    return card;
  }

  function figure(c, ...inside) {
    const attributes = { class: "card", tabindex: 0, role: "group", "aria-roledescription": "histogram", "aria-label": c.name };
    return make("figure", attributes, make("h3", {}, c.name), ...inside);
  }

  function told(c, i, k, made) {
    const generated = blended() ? fixed(100 * made, 1) + " %" : percent(["table", "columns", i, "models", selected(), k], 1);
    return [`${c.labels[k]}: real `, percent(["table", "columns", i, "real", k], 1), `, ${called()} `, generated];
  }

  function categories(c, i) {
    const made = c.labels.map((_, k) => share(c.models, (m) => m[k]));
    const top = Math.max(...c.real, ...made, 1e-9), x = (v) => (97 * v) / top;
    const readout = make("p", { class: "readout", "aria-live": "polite" });
    const bar = (k) => [make("svg:rect", { width: x(c.real[k]), height: 10 }), make("svg:path", { d: `M${x(made[k])} 0V10` })];
    const levels = c.labels.map((label, k) =>
      make("div", { class: "level" }, make("span", {}, label), stretched("", 100, 10, null, ...bar(k))));
    const card = figure(c, ...levels, readout);
    const tell = (k) => readout.replaceChildren(...told(c, i, k, made[k]));
    follow(card, null, null, levels.length, tell);
    levels.forEach((level, k) => level.addEventListener("pointerenter", () => tell(k)));
    return card;
  }

  function pairs() {
    if (!data.table.pairs.length) return [];
    const cards = data.table.pairs.map((p) => {
      const made = p.real.map((column, i) => column.map((_, j) => share(p.models, (m) => m[i][j])));
      const both = `${p.y.name} by ${p.x.name}`, names = make("h3", {}, `↑ ${p.y.name}`, make("br"), `→ ${p.x.name}`);
      const heats = [heat(p.real, "heat real", `Real rows, ${both}`), heat(made, "heat", `${called()}, ${both}`)];
      return make("figure", { class: "card" }, names, make("div", { class: "heats" }, ...heats));
    });
    const says = `Unseen rows on the left, ${called()} on the right; the stronger the colour, the more rows.`;
    const heading = make("h3", {}, "The columns that depend most on one another");
    return [heading, make("p", { class: "aside" }, says), make("div", { class: "cards" }, ...cards)];
  }

  function heat(cells, kind, label) {
    const wide = cells.length, tall = cells[0].length, top = Math.max(...cells.flat(), 1e-9);
    const shade = (v) => Math.sqrt(v / top).toFixed(2);
    const rects = cells.flatMap((column, i) => column.map((v, j) =>
      v > 0 ? make("svg:rect", { x: i, y: tall - 1 - j, width: 1, height: 1, "fill-opacity": shade(v) }) : null));
    return stretched(kind, wide, tall, label, ...rects);
  }

  // ------------------------------------------------------------------------------------------ learning curves

  const learning = { by: 1, cursor: null };

  const along = (point) => Math.log10(Math.max(point[learning.by], 1e-4));

  function curves() {
    const all = Object.values(data.curves).flat().map(along);
    let low = Math.min(...all), high = Math.max(...all);
    if (high - low < 0.1) [low, high] = [low - 0.1, high + 0.1];
    const where = learning.cursor == null ? null : low + learning.cursor * (high - low);
    $("curves").replaceChildren(...Object.keys(data.curves).map((name) => curve(name, low, high, where)));
  }

  // the steep beginning of a curve is cut off: it would hide all that follows
  function curve(name, low, high, where) {
    const points = data.curves[name], later = points.slice(Math.floor(points.length / 8)).map((p) => p[2]);
    const pad = 0.1 * (Math.max(...later) - Math.min(...later)) || 1;
    const y = { low: Math.min(...later) - pad, high: Math.max(...later) + pad };
    const host = make("div", { class: "plot" });
    const p = plot(host, { low, high, ticks: logTicks(low, high) }, { ...y, ticks: ticks(y.low, y.high, 3) });
    if (where != null) p.line([[where, y.low], [where, y.high]], { class: "mark" });
    p.line(points.map((point) => [along(point), point[2]]), { class: colour(name) + dashed(name) });
    const apart = points.map((point) => Math.abs(along(point) - (where ?? Infinity)));
    const k = where == null ? points.length - 1 : apart.indexOf(Math.min(...apart));
    if (points[k][2] >= y.low) p.dot(along(points[k]), points[k][2], colour(name));
    const when = [num(["curves", name, k, learning.by], learning.by), learning.by ? " s" : " steps"];
    const says = make("p", { class: "aside", "aria-live": "polite" }, num(["curves", name, k, 2], 2), " at ", ...when);
    return make("figure", { class: "card" }, make("h3", {}, swatch(name), name), host, says);
  }

  function learn() {
    if (!Object.keys(data.curves).length) return leave("learning");
    [["by-steps", 0], ["by-seconds", 1]].forEach(([id, by]) => $(id).addEventListener("click", () => {
      learning.by = by;
      for (const button of [$("by-steps"), $("by-seconds")]) button.setAttribute("aria-pressed", button.id === id);
      curves();
    }));
    const tell = (k) => { learning.cursor = k / 100; curves(); };
    follow($("curves"), null, null, 101, tell);
    $("curves").addEventListener("pointermove", (event) => {
      const box = event.target.closest(".plot")?.getBoundingClientRect();
      if (box) tell(Math.min(100, Math.max(0, (100 * (event.clientX - box.left)) / box.width)));
    });
    curves();
  }

  // ------------------------------------------------------------------------------------------------- the page

  leaderboard();
  if (data.given) {
    answers(tools, { colour, selected });
  } else {
    if (q.names.length < 2) leave("weights");
    picker();
    samples();
  }
  learn();
})();
