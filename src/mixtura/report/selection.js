"use strict";
// Draws what moves on the page of a selection, with the tools of kit.js.
(() => {
  const { COLOURS, data, $, sum, fixed, digitsOf, num, leave, plot, scale, follow, bench } = kit();
  const q = data.quadratic, digits = digitsOf(data.error);
  const colour = (name) => `c${q.names.indexOf(name) % COLOURS}`;

  // ---------------------------------------------------------------------------------------------------- weights

  // L(w) = w'Kw + f'w + c, and the objective in its own unit
  function score(w) {
    const loss = sum(w.map((v, i) => v * (sum(w.map((u, j) => q.K[i][j] * u)) + q.f[i]))) + q.c;
    if (q.own === "inverse") return loss > 0 ? 1 / loss : Infinity; // an unbiased estimate can fall to 0 and below
    return q.own === "negative" ? -loss : loss;
  }

  function says(apart) {
    if (!Number.isFinite(apart)) return ["too few samples that are alike to tell"];
    if (Math.abs(apart) < 1e-12) return ["the best weights"];
    const better = apart > 0 === data.higher;
    return [`${fixed(Math.abs(apart), digits)} ${better ? "better" : "worse"} than the best weights, on the same samples`];
  }

  function weights() {
    if (q.names.length < 2) return leave("weights");
    const best = q.names.map((name) => data.arms.find((arm) => arm.name === name).weight);
    const valley = (name) => `As the weight of ${name} moves and the others keep their proportions; dashed: the best.`;
    bench({ names: q.names, best, colour, score, digits, says, valley });
  }

  // ------------------------------------------------------------------------------------------------------ curve

  function curve() {
    const points = data.curve.filter((p) => p.value != null);
    if (points.length < 2) return leave("curve");
    const band = (sign) => points.map((p) => [p.pulls, p.value + sign * 2 * (p.error ?? 0)]);
    const alone = points.filter((p) => p.single_value != null).map((p) => [p.pulls, p.single_value]);
    // the first few points know little: they must not set the scale
    const late = (line) => line.slice(Math.floor(line.length / 10)).map((p) => p[1]);
    const y = scale([...late(band(1)), ...late(band(-1)), ...late(alone), ...(data.truth ? [data.truth.value] : [])], digits);
    const last = points.at(-1).pulls;
    const draw = (k) => {
      const p = plot($("line"), { low: 0, high: last, ticks: [[0, "0"], [last, fixed(last, 0)]] }, y);
      p.line([...band(1), ...band(-1).reverse()], { class: "c0 band" });
      p.line(alone, { class: "c7 dashed" });
      if (data.truth) p.line([[0, data.truth.value], [last, data.truth.value]], { class: "mark" });
      p.line(points.map((point) => [point.pulls, point.value]), { class: "c0" });
      if (points[k].value >= y.low && points[k].value <= y.high) p.dot(points[k].pulls, points[k].value, "c0");
      $("told").replaceChildren(...told(points[k], data.curve.indexOf(points[k])));
    };
    const nearest = (f) => {
      const apart = points.map((point) => Math.abs(point.pulls / last - f));
      return apart.indexOf(Math.min(...apart));
    };
    follow($("line"), $("line"), nearest, points.length, draw, points.length - 1);
    draw(points.length - 1);
  }

  function told(point, k) {
    const used = q.names.filter((name) => point.weights[name] >= 0.005);
    const parts = used.flatMap((name, i) => [i ? " + " : "; ", num(["curve", k, "weights", name], 2), ` ${name}`]);
    return [
      "after ", num(["curve", k, "pulls"], 0), " samples: ", num(["curve", k, "value"], digits), " ± ", num(["curve", k, "error"], digits),
      `, ${point.single} alone `, num(["curve", k, "single_value"], digits), ...parts,
    ];
  }

  weights();
  curve();
})();
