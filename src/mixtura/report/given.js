"use strict";
// What the page of a run with targets draws instead of samples: calibration, and the density of the targets given the inputs.
// With the tools of kit.js; run.js stands behind it and calls it.
function answers({ data, $, make, leave, fixed, num, percent, plot, SHARES, follow }, { colour, selected }) {
  const choice = data.verdict.choice;
  const called = (name) => (name === "blend" ? "the blend of the verdict" : name);

  function calibration() {
    const drawn = [...new Set(data.given.calibrated.flatMap((c) => Object.keys(c.models)))];
    if (!drawn.length) return leave("calibration");
    const names = [choice, ...drawn.filter((name) => name !== choice)];
    $("model").append(...names.map((name) => make("option", { value: name }, called(name))));
    $("model").addEventListener("change", ranks);
    ranks();
  }

  function ranks() {
    $("ranks").replaceChildren(...data.given.calibrated.flatMap((c, i) => (c.models[selected()] ? [ranked(c, i)] : [])));
  }

  // one target: the histogram of its ranks, and the share of truths inside its central intervals
  function ranked(c, i) {
    const { histogram, coverage } = c.models[selected()], levels = data.given.levels;
    const kind = selected() === "blend" ? "whole" : colour(selected());
    const bars = make("div", { class: "plot" }), curve = make("div", { class: "plot" });
    const top = 1.15 * Math.max(...histogram, c.band[1]), n = histogram.length;
    const h = plot(bars, { low: 0, high: 1, ticks: [[0, "0"], [0.5, "½"], [1, "1"]] }, { low: 0, high: top, ticks: [[0, "0"], [1 / n, "even"]] });
    h.area([[0, c.band[0]], [1, c.band[0]], [1, c.band[1]], [0, c.band[1]]], { class: "band quiet" });
    histogram.forEach((v, k) => h.area([[k / n, 0], [k / n, v], [(k + 1) / n, v], [(k + 1) / n, 0]], { class: `bin ${kind}` }));
    const p = plot(curve, SHARES, SHARES);
    const ends = (by) => [0, ...levels, 1].map((level) => [level, Math.min(1, Math.max(0, level + by))]);
    p.area([...ends(-c.reach), ...ends(c.reach).reverse()], { class: "band quiet" });
    p.line([[0, 0], [1, 1]], { class: "mark" });
    p.line([[0, 0], ...levels.map((level, k) => [level, coverage[k]]), [1, 1]], { class: kind });
    const says = make("p", { class: "readout", "aria-live": "polite" });
    const at = ["given", "calibrated", i, "models", selected(), "coverage"];
    const tell = (k) => says.replaceChildren(`Central intervals of ${fixed(100 * levels[k], 0)} % hold `, percent([...at, k], 1),
      " of the truths.");
    tell(17);
    const rows = make("p", { class: "aside" }, "Ranks of ", num(["given", "calibrated", i, "n"]), " unseen rows among draws, 0 lowest.");
    const left = make("figure", { class: "card" }, make("h3", {}, "Ranks of the truths"), bars, rows);
    const label = { class: "card", tabindex: 0, role: "group", "aria-roledescription": "curve", "aria-label": `Coverage of ${c.name}` };
    const right = make("figure", label, make("h3", {}, "Truths inside, against the interval's level"), curve, says);
    follow(right, curve, (f) => Math.min(levels.length - 1, Math.max(0, Math.round(f * (levels.length + 1)) - 1)), levels.length, tell);
    const heading = data.given.calibrated.length > 1 ? [make("h3", {}, c.name)] : [];
    return make("div", {}, ...heading, make("div", { class: "beside" }, left, right));
  }

  function portraits() {
    if (!data.given.portraits.length) return leave("density");
    $("portraits").append(...data.given.portraits.map(portrayed));
  }

  function portrayed(p) {
    const host = make("div", { class: "plot field" });
    const field = plot(host, { low: 0, high: p.x.cells, ticks: p.x.ticks }, { low: 0, high: p.y.cells, ticks: p.y.ticks });
    const top = Math.max(...p.p.flat(), 1e-12);
    p.p.forEach((column, i) => column.forEach((v, j) => {
      if (v > 0.002 * top) field.cell(i, j, Math.sqrt(v / top).toFixed(2));
    }));
    p.points.forEach(([x, y]) => field.point(x, y));
    const held = p.others ? `, the input that matters most; ${p.others === 1 ? "the other stands" : `the other ${p.others} stand`} at ` +
      "medians and commonest levels" : "";
    const seen = p.points.length ? " Points: unseen rows." : "";
    const made = p.drawn ? ` From ${p.drawn} draws each, smoothed over neighbouring cells.` : "";
    const what = `${p.target} (up) given ${p.input} (across)`;
    const says = `Of ${called(choice)}, ${what}${held}. The stronger the colour, the likelier.${made}${seen}`;
    const picture = make("figure", { role: "group", "aria-label": `${p.target} given ${p.input}` }, host,
      make("figcaption", {}, says));
    const rows = make("div", { class: "cards" }, ...p.rows.map((row) => slice(p, row)));
    return make("div", {}, make("h3", {}, `${p.target} given ${p.input}`), picture,
      make("h3", {}, `Some unseen rows: ${p.target} given all inputs; dashed, the truth`), rows);
  }

  // the density of one row, with its truth
  function slice(p, row) {
    const host = make("div", { class: "plot" }), top = 1.08 * Math.max(...row.p, 1e-12);
    const s = plot(host, { low: 0, high: p.y.cells, ticks: p.y.ticks }, { low: 0, high: top, ticks: [] });
    const steps = row.p.flatMap((v, k) => [[k, v], [k + 1, v]]);
    s.area([[0, 0], ...steps, [p.y.cells, 0]], { class: "under" });
    s.line(steps, { class: "accent" });
    if (row.truth != null && row.truth > 0 && row.truth < p.y.cells) s.line([[row.truth, 0], [row.truth, top]], { class: "mark" });
    return make("figure", { class: "card" }, host, make("p", { class: "aside" }, `${row.given}: ${p.target} was ${row.said}`));
  }

  calibration();
  portraits();
}
