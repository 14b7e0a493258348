"use strict";
// What every page draws with. Text only ever enters as text, so that a name may hold anything. Every number that is one of the
// data's carries its path there (data-key), which is how the tests hold a page to its data.
function kit() {
  const COLOURS = 8; // in style.css
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const at = (path) => path.reduce((value, key) => (value == null ? null : value[key]), data);
  const sum = (values) => values.reduce((a, b) => a + b, 0);
  const range = (n) => Array.from({ length: n }, (_, k) => k);

  // ------------------------------------------------------------------------------------------------- elements

  function make(tag, attributes = {}, ...children) {
    const drawn = tag.startsWith("svg:");
    const node = drawn ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4)) : document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === "style") for (const [name, v] of Object.entries(value)) node.style.setProperty(name, v);
      else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (value != null && value !== false) node.setAttribute(key, value);
    }
    node.append(...children.filter((child) => child != null));
    return node;
  }

  // a picture that fills its box, whatever that box is; said by its label or, without one, by the text around it
  function stretched(kind, wide, tall, label, ...shapes) {
    const said = label == null ? { "aria-hidden": true } : { role: "img", "aria-label": label };
    return make("svg:svg", { class: kind, viewBox: `0 0 ${wide} ${tall}`, preserveAspectRatio: "none", ...said }, ...shapes);
  }

  function fixed(value, digits) {
    const options = { minimumFractionDigits: digits, maximumFractionDigits: digits };
    return Number.isFinite(value) ? value.toLocaleString("en", options).replace("-", "−") : "–";
  }

  // decimals that show two digits of an error, between 2 and 7, as the command line rounds
  function digitsOf(error) {
    return error > 0 ? Math.min(7, Math.max(2, 1 - Math.floor(Math.log10(error)))) : 3;
  }

  function num(path, digits = 0) {
    return make("span", { class: "num", "data-key": JSON.stringify(path) }, fixed(at(path), digits));
  }

  function percent(path, digits = 0) {
    const shown = fixed(100 * at(path), digits) + " %";
    return make("span", { class: "num", "data-key": JSON.stringify(path), "data-scale": 100 }, shown);
  }

  // a part of the page that there is nothing to show in
  function leave(part) {
    $(part).remove();
    document.querySelector(`nav a[href="#${part}"]`).remove();
  }

  // ------------------------------------------------------------------------------------------------- plotting

  // Lines are stretched with the box; text is HTML, so that it stays as large as text on any screen.
  function plot(host, x, y) {
    const fx = (v) => (v - x.low) / (x.high - x.low), fy = (v) => 1 - (v - y.low) / (y.high - y.low);
    const picture = stretched("", 1000, 1000, null);
    const line = (points, attributes) => {
      const d = points.map(([a, b], k) => `${k ? "L" : "M"}${(1000 * fx(a)).toFixed(1)} ${(1000 * fy(b)).toFixed(1)}`).join("");
      picture.append(make("svg:path", { ...attributes, d }));
    };
    const label = (kind, where, text) => make("span", { class: kind, style: where }, text);
    host.replaceChildren(picture);
    for (const [v, text] of y.ticks) {
      line([[x.low, v], [x.high, v]], { class: "grid" });
      host.append(label("y", { top: `${100 * fy(v)}%` }, text));
    }
    for (const [v, text] of x.ticks) host.append(label("x", { left: `${100 * fx(v)}%` }, text));
    const dot = (a, b, c) => {
      host.append(make("i", { class: `dot ${c}`, style: { left: `${100 * fx(a)}%`, top: `${100 * fy(b)}%` } }));
    };
    const area = (points, attributes) => {
      line(points, attributes);
      picture.lastChild.setAttribute("d", picture.lastChild.getAttribute("d") + "Z");
    };
    // a cell of a field whose axes count cells, and a point on it
    const cell = (i, j, opacity) => {
      const at = { x: 1000 * fx(i), y: 1000 * fy(j + 1), width: 1000 / x.high, height: 1000 / y.high };
      picture.append(make("svg:rect", { ...at, "fill-opacity": opacity }));
    };
    const point = (a, b) => dot(a, b, "point");
    return { line, dot, area, cell, point };
  }

  // an axis that holds all finite values, with a tick at either end
  function scale(all, digits) {
    const values = all.filter(Number.isFinite), low = Math.min(...values), span = Math.max(...values) - low || 1;
    return { low: low - 0.08 * span, high: low + 1.08 * span, ticks: [low, low + span].map((v) => [v, fixed(v, digits)]) };
  }

  const SHARES = { low: 0, high: 1, ticks: [[0, "0 %"], [0.5, "50 %"], [1, "100 %"]] };

  // the pointer over a picture, or the arrow keys on its card, choose one of n places, from k on
  function follow(card, picture, place, n, tell, k = -1) {
    picture?.addEventListener("pointermove", (event) => {
      const box = picture.getBoundingClientRect();
      tell((k = Math.max(0, place((event.clientX - box.left) / box.width))));
    });
    card.addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!by) return;
      event.preventDefault();
      tell((k = Math.min(n - 1, Math.max(0, k + by))));
    });
  }

  // ---------------------------------------------------------------------------------------- weights that move

  // Sliders of the names' weights, marked at `best`, and what they come to: their score, to so many digits; `says`, given how far
  // it is above that of the marks, is what stands below it, and `valley`, given a name, what stands below the score along that
  // name's weight. Returns the weights as they stand, `w`; `changed` hears of every change.
  function bench({ names, best, colour, score, digits, says, valley, changed = () => {} }) {
    const state = { w: [...best], from: [...best], active: best.indexOf(Math.max(...best)) };
    const inputs = [], outputs = [];

    // weight i becomes value, the others keep their proportions; where they have none, those they had last, or equal ones
    function moved(i, value) {
      const base = [state.w, state.from].find((w) => 1 - w[i] > 1e-9) ?? names.map((name, j) => (j === i ? 0 : 1));
      const rest = sum(base) - base[i];
      return base.map((v, j) => (j === i ? value : (v * (1 - value)) / rest));
    }

    function settle(w, active) {
      if (1 - w[active] > 1e-9) state.from = w;
      Object.assign(state, { w, active });
      weigh();
      changed();
    }

    function slider(name, i) {
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
      inputs.push(input);
      outputs.push(output);
      const label = make("label", { for: id }, make("i", { class: `swatch ${colour(name)}` }), name);
      return make("div", { class: `weight ${colour(name)}` }, label, output, make("div", { class: "track" }, mark, input));
    }

    function weigh() {
      state.w.forEach((v, i) => {
        inputs[i].value = v;
        inputs[i].style.setProperty("--at", `${100 * v}%`);
        inputs[i].setAttribute("aria-valuetext", fixed(100 * v, 1) + " %");
        outputs[i].textContent = fixed(100 * v, 1) + " %";
      });
      const now = score(state.w), marked = score(best);
      $("score").textContent = fixed(now, digits);
      $("score").dataset.value = now;
      $("against").replaceChildren(...says(now - marked));
      along(marked);
    }

    // the score along the path that the slider last touched moves on
    function along(marked) {
      const i = state.active, c = colour(names[i]);
      const path = range(51).map((k) => [k / 50, score(moved(i, k / 50))]).filter((p) => Number.isFinite(p[1]));
      if (!path.length) return $("valley").replaceChildren();
      const p = plot($("valley"), SHARES, scale([...path.map((p) => p[1]), marked], digits));
      if (Number.isFinite(marked)) p.line([[0, marked], [1, marked]], { class: "mark" });
      p.line(path, { class: c });
      if (Number.isFinite(score(state.w))) p.dot(state.w[i], score(state.w), c);
      $("valley-says").textContent = valley(names[i]);
    }

    $("sliders").append(...names.map(slider));
    $("reset").addEventListener("click", () => settle([...best], state.active));
    weigh();
    return state;
  }

  // ---------------------------------------------------------------------------------------------- light and dark

  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const say = () => { $("theme").textContent = dark() ? "Light" : "Dark"; };
  $("theme").addEventListener("click", () => { document.documentElement.dataset.theme = dark() ? "light" : "dark"; say(); });
  system.addEventListener("change", say);
  say();

  return { COLOURS, data, $, sum, range, make, stretched, fixed, digitsOf, num, percent, leave, plot, scale, SHARES, follow, bench };
}
