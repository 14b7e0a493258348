"use strict";
// Draws what moves on the page of a selection. Text only ever enters as text, so that a name may hold anything.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const COLOURS = 8;
  const $ = (id) => document.getElementById(id);
  const sum = (values) => values.reduce((a, b) => a + b, 0);
  const q = data.quadratic;
  const best = q.names.map((name) => data.arms.find((arm) => arm.name === name).weight);
  const colour = (name) => `c${q.names.indexOf(name) % COLOURS}`;
  const state = { w: [...best], from: [...best], active: best.indexOf(Math.max(...best)), inputs: [], outputs: [] };

  function make(tag, attributes = {}, ...children) {
    const drawn = tag.startsWith("svg:");
    const node = drawn ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4)) : document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === "style") for (const [name, v] of Object.entries(value)) node.style.setProperty(name, v);
      else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (value != null && value !== false) node.setAttribute(key, value);
    }
    node.append(...children);
    return node;
  }

  function fixed(value, digits) {
    const options = { minimumFractionDigits: digits, maximumFractionDigits: digits };
    return value == null || !Number.isFinite(value) ? "–" : value.toLocaleString("en", options).replace("-", "−");
  }

  // decimals that show two digits of an error, between 2 and 7, as the command line rounds
  const digits = data.error > 0 ? Math.min(7, Math.max(2, 1 - Math.floor(Math.log10(data.error)))) : 3;

  // ---------------------------------------------------------------------------------------------------- weights

  // L(w) = w'Kw + f'w + c, and the objective in its own unit
  function score(w) {
    const loss = sum(w.map((v, i) => v * (sum(w.map((u, j) => q.K[i][j] * u)) + q.f[i]))) + q.c;
    if (q.own === "inverse") return loss > 0 ? 1 / loss : Infinity; // an unbiased estimate can fall to 0 and below
    return q.own === "negative" ? -loss : loss;
  }

  // weight i becomes value, the others keep their proportions; where they have none, those they had last, or equal ones
  function moved(i, value) {
    const base = [state.w, state.from].find((w) => 1 - w[i] > 1e-9) ?? q.names.map((name, j) => (j === i ? 0 : 1));
    const rest = sum(base) - base[i];
    return base.map((v, j) => (j === i ? value : (v * (1 - value)) / rest));
  }

  function settle(w, active) {
    if (1 - w[active] > 1e-9) state.from = w;
    Object.assign(state, { w, active });
    weigh();
  }

  function sliders() {
    q.names.forEach((name, i) => {
      const id = `weight-${i}`;
      const go = (value) => settle(moved(i, Math.min(1, Math.max(0, value))), i);
      const keys = { ArrowRight: 0.01, ArrowUp: 0.01, ArrowLeft: -0.01, ArrowDown: -0.01, PageUp: 0.1, PageDown: -0.1 };
      const press = (event) => {
        if (!(event.key in keys)) return;
        event.preventDefault();
        go(state.w[i] + keys[event.key] * (event.shiftKey ? 10 : 1));
      };
      const input = make("input", {
        id, type: "range", min: 0, max: 1, step: 0.001, oninput: () => go(Number(input.value)), onkeydown: press,
        onfocus: () => { state.active = i; weigh(); },
      });
      const mark = make("i", { style: { left: `calc(10px + ${best[i]} * (100% - 20px))` } });
      const output = make("output", { for: id });
      state.inputs.push(input);
      state.outputs.push(output);
      const label = make("label", { for: id }, make("i", { class: `swatch ${colour(name)}` }), name);
      $("sliders").append(make("div", { class: `weight ${colour(name)}` }, label, output, make("div", { class: "track" }, mark, input)));
    });
    $("reset").addEventListener("click", () => settle([...best], state.active));
    weigh();
  }

  function weigh() {
    state.w.forEach((v, i) => {
      state.inputs[i].value = v;
      state.inputs[i].style.setProperty("--at", `${100 * v}%`);
      state.inputs[i].setAttribute("aria-valuetext", fixed(100 * v, 1) + " %");
      state.outputs[i].textContent = fixed(100 * v, 1) + " %";
    });
    const now = score(state.w), marked = score(best), apart = now - marked;
    $("score").textContent = fixed(now, digits);
    $("score").dataset.value = now;
    const better = apart > 0 === data.higher;
    if (!Number.isFinite(apart)) $("against").textContent = "too few samples that are alike to tell";
    else $("against").textContent = Math.abs(apart) < 1e-12
      ? "the best weights" : `${fixed(Math.abs(apart), digits)} ${better ? "better" : "worse"} than the best weights, on the same samples`;
    valley(marked);
  }

  function valley(marked) {
    const i = state.active;
    const path = Array.from({ length: 51 }, (_, k) => [k / 50, score(moved(i, k / 50))]).filter((p) => Number.isFinite(p[1]));
    if (!path.length) return $("valley").replaceChildren();
    const y = scale([...path.map((p) => p[1]), marked]);
    const p = plot($("valley"), { low: 0, high: 1, ticks: [[0, "0 %"], [0.5, "50 %"], [1, "100 %"]] }, y);
    if (Number.isFinite(marked)) p.line([[0, marked], [1, marked]], "mark");
    p.line(path, colour(q.names[i]));
    if (Number.isFinite(score(state.w))) p.dot(state.w[i], score(state.w), colour(q.names[i]));
    $("valley-says").textContent = `As the weight of ${q.names[i]} moves and the others keep their proportions; dashed: the best.`;
  }

  // ------------------------------------------------------------------------------------------------------ curve

  function curve() {
    const points = data.curve.filter((p) => p.value != null);
    if (points.length < 2) return leave("curve");
    const band = (sign) => points.map((p) => [p.pulls, p.value + sign * 2 * (p.error ?? 0)]);
    const alone = points.filter((p) => p.single_value != null).map((p) => [p.pulls, p.single_value]);
    // the first few points know little: they must not set the scale
    const late = (line) => line.slice(Math.floor(line.length / 10)).map((p) => p[1]);
    const y = scale([...late(band(1)), ...late(band(-1)), ...late(alone), ...(data.truth ? [data.truth.value] : [])]);
    const last = points.at(-1).pulls;
    const draw = (k) => {
      const p = plot($("line"), { low: 0, high: last, ticks: [[0, "0"], [last, fixed(last, 0)]] }, y);
      p.line([...band(1), ...band(-1).reverse()], "c0 band");
      p.line(alone, "c7 dashed");
      if (data.truth) p.line([[0, data.truth.value], [last, data.truth.value]], "mark");
      p.line(points.map((point) => [point.pulls, point.value]), "c0");
      if (points[k].value >= y.low && points[k].value <= y.high) p.dot(points[k].pulls, points[k].value, "c0");
      $("told").replaceChildren(...told(points[k], data.curve.indexOf(points[k])));
    };
    follow($("line"), points.map((point) => point.pulls / last), draw);
    draw(points.length - 1);
  }

  function num(path, decimals) {
    const value = path.reduce((inner, key) => inner[key], data);
    return make("span", { class: "num", "data-key": JSON.stringify(path) }, fixed(value, decimals));
  }

  function told(point, k) {
    const used = q.names.filter((name) => point.weights[name] >= 0.005);
    const parts = used.flatMap((name, i) => [i ? " + " : "; ", num(["curve", k, "weights", name], 2), ` ${name}`]);
    return [
      "after ", num(["curve", k, "pulls"], 0), " samples: ", num(["curve", k, "value"], digits), " ± ", num(["curve", k, "error"], digits),
      `, ${point.single} alone `, num(["curve", k, "single_value"], digits), ...parts,
    ];
  }

  // the pointer, or the arrow keys, choose one of the places from 0 to 1 on a picture
  function follow(host, places, choose) {
    let k = places.length - 1;
    host.addEventListener("pointermove", (event) => {
      const box = host.getBoundingClientRect(), where = (event.clientX - box.left) / box.width;
      const apart = places.map((place) => Math.abs(place - where));
      choose((k = apart.indexOf(Math.min(...apart))));
    });
    host.addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
      if (!by) return;
      event.preventDefault();
      choose((k = Math.min(places.length - 1, Math.max(0, k + by))));
    });
  }

  // a part of the page that this selection has nothing to show in
  function leave(part) {
    $(part).remove();
    document.querySelector(`nav a[href="#${part}"]`).remove();
  }

  // --------------------------------------------------------------------------------------------------- plotting

  function scale(all) {
    const values = all.filter(Number.isFinite), low = Math.min(...values), span = Math.max(...values) - low || 1;
    return { low: low - 0.08 * span, high: low + 1.08 * span, ticks: [low, low + span].map((v) => [v, fixed(v, digits)]) };
  }

  // Lines are stretched with the box; text is HTML, so that it stays as large as text on any screen.
  function plot(host, x, y) {
    const fx = (v) => (v - x.low) / (x.high - x.low), fy = (v) => 1 - (v - y.low) / (y.high - y.low);
    const picture = make("svg:svg", { viewBox: "0 0 1000 1000", preserveAspectRatio: "none", "aria-hidden": true });
    host.replaceChildren(picture);
    const line = (points, kind) => {
      const d = points.map(([a, b], k) => `${k ? "L" : "M"}${(1000 * fx(a)).toFixed(1)} ${(1000 * fy(b)).toFixed(1)}`).join("");
      picture.append(make("svg:path", { class: kind, d }));
    };
    for (const [v, text] of y.ticks) {
      line([[x.low, v], [x.high, v]], "grid");
      host.append(make("span", { class: "y", style: { top: `${100 * fy(v)}%` } }, text));
    }
    for (const [v, text] of x.ticks) host.append(make("span", { class: "x", style: { left: `${100 * fx(v)}%` } }, text));
    const dot = (a, b, kind) =>
      host.append(make("i", { class: `dot ${kind}`, style: { left: `${100 * fx(a)}%`, top: `${100 * fy(b)}%` } }));
    return { line, dot };
  }

  function theme() {
    const preferred = () => (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    const dark = () => (document.documentElement.dataset.theme ?? preferred()) === "dark";
    const say = () => { $("theme").textContent = dark() ? "Light" : "Dark"; };
    $("theme").addEventListener("click", () => {
      document.documentElement.dataset.theme = dark() ? "light" : "dark";
      say();
    });
    say();
  }

  theme();
  if (q.names.length > 1) sliders();
  else leave("weights");
  curve();
})();
