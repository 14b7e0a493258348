"use strict";
// Draws the curve of p-values, with the tools of kit.js.
(() => {
  const { data, $, plot } = kit();
  const shares = { low: 0, high: 1, ticks: [[0, "0 %"], [0.5, "50 %"], [1, "100 %"]] };
  const { line } = plot($("curve"), shares, shares);
  line([[0, 0], [1, 1]], { class: "mark" });
  line(data.curve, { class: "accent" });
})();
