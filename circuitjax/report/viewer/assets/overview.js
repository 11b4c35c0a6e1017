// The circuit as a whole: figures, loss against size, the audit's table.
"use strict";

viewer.overviewPanel = function () {
  const { make, data } = viewer;
  const { counts, calibration, model } = data;
  const grains = { nodes: "nodes", weights: "single weights", edges: "residual edges" };
  const rows = [
    ["Task", data.task || "–"],
    ["Model", `${model.name}: ${model.layers} layers, ${model.heads} heads of ${model.d_head}, ${model.d_model} channels`],
    ["Gates", `on ${grains[data.grain]}${data.ablation ? `, ${data.ablation} ablation` : ""}`],
    ["Nodes", `${counts.nodes.toLocaleString("en")} of ${counts.of_nodes.toLocaleString("en")}`],
    ["Edges", `${counts.edges.toLocaleString("en")} of ${counts.of_edges.toLocaleString("en")}`],
    ["Calibration", `scale ${viewer.number(calibration.scale)}, shift ${viewer.number(calibration.shift)}`],
    ...data.figures,
  ];
  const table = make("table", { class: "facts" }, make("tbody", {}, ...rows.map(([name, value]) =>
    make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, value)))));
  const top = [...viewer.rank.keys()].slice(0, 10);
  return [
    data.note ? make("p", { class: "note" }, data.note) : null,
    viewer.section("This circuit", table),
    viewer.comparePanel(),
    viewer.groupsPanel(),
    data.curve ? viewer.section(`The cut: ${data.curve.measure} against ${data.curve.unit}`, ...viewer.curveChart(data.curve)) : null,
    top.length ? viewer.section("Nodes of largest effect", viewer.headNodes(top)) : null,
    data.audit ? viewer.section(data.audit.title, viewer.auditTable(data.audit)) : null,
  ];
};

const FIELDS = new Set(["group", "figure", "threshold", "passed"]);

viewer.auditTable = function (audit) {
  const { make } = viewer;
  const words = { true: "✓ passed", false: "✗ failed", null: "" };
  const at = Object.fromEntries(audit.columns.map((name, c) => [name, c]));
  // A note stands under the name it belongs to, a group only where it begins.
  const shown = audit.columns.map((_, c) => c).filter((c) => c !== at.note || at.name === undefined);
  const cell = (cells, i, c) => {
    if (c === at.passed) return words[audit.passed[i]] || cells[c];
    if (c === at.group && i && audit.rows[i - 1][c] === cells[c]) return "";
    return cells[c];
  };
  const note = (cells) => at.note !== undefined && cells[at.note]
    ? make("div", { class: "soft small" }, cells[at.note]) : null;
  const row = (cells, i) => make("tr", { class: audit.passed[i] === false ? "failed" : "" },
    ...shown.map((c) => {
      if (c === at.name) return make("th", { scope: "row" }, cells[c], note(cells));
      const name = audit.columns[c];
      return make("td", { class: FIELDS.has(name) ? name : null }, cell(cells, i, c));
    }));
  return make("div", { class: "scroll" }, make("table", { class: "audit" },
    make("thead", {}, make("tr", {}, ...shown.map((c) => make("th", { scope: "col" }, audit.columns[c])))),
    make("tbody", {}, ...audit.rows.map(row))));
};

// Loss (logarithmic) against size (logarithmic, with a place for 0), one line for each job.
viewer.curveChart = function (curve) {
  const { make } = viewer;
  const [width, height, left, bottom, top, right] = [380, 236, 40, 34, 22, 12];
  const sizes = curve.jobs.flatMap((job) => job.points.map((point) => point[0]));
  const most = sizes.reduce((a, b) => Math.max(a, b), 1);
  const losses = curve.jobs.flatMap((job) => job.points.map((point) => point[2])).filter((x) => x > 0);
  const marks = [curve.target, curve.unpruned].filter((x) => x > 0);
  const low = Math.max(1e-4, Math.min(...losses, ...marks) / 1.6);
  const high = Math.max(1, Math.min(20, losses.reduce((a, b) => Math.max(a, b), 1) * 1.3));
  const x = (k) => left + (Math.log1p(k) / Math.log1p(most)) * (width - left - right);
  const clamp = (loss) => Math.min(high, Math.max(low, loss));
  const y = (loss) =>
    top + (1 - Math.log(clamp(loss) / low) / Math.log(high / low)) * (height - top - bottom);
  const svg = make("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `${curve.measure} against ${curve.unit}` });
  const label = (text, tx, ty, anchor, kind) =>
    svg.append(make("text", { x: tx, y: ty, "text-anchor": anchor, class: kind || "tick" }, text));
  for (let power = 0; 10 ** power <= most; power++) {
    const at = 10 ** power;
    svg.append(make("line", { x1: x(at), x2: x(at), y1: top, y2: height - bottom, class: "grid" }));
    label(at >= 1000 ? `${at / 1000}k` : String(at), x(at), height - bottom + 13, "middle");
  }
  label("0", x(0), height - bottom + 13, "middle");
  for (let power = -4; power <= 1; power++) {
    const at = 10 ** power;
    if (at < low || at > high) continue;
    svg.append(make("line", { x1: left, x2: width - right, y1: y(at), y2: y(at), class: "grid" }));
    label(String(at), left - 5, y(at) + 3, "end");
  }
  label(curve.unit, (left + width - right) / 2, height - 4, "middle");
  label(`${curve.measure}, nats`, 4, 10, "start");
  const rule = (loss, kind, text) => {
    if (!(loss > 0)) return;
    svg.append(make("line", { x1: left, x2: width - right, y1: y(loss), y2: y(loss), class: kind }));
    label(text, width - right - 2, y(loss) - 4, "end", "mark");
  };
  rule(curve.target, "target", `target ${curve.target}`);
  rule(curve.unpruned, "whole", "whole model");
  const colours = ["#0b62a4", "#c4500a", "#007a5a", "#a04a86", "#3f8fc4", "#9a6b00", "#333"];
  const dashes = ["", "6 3", "2 2", "8 3 2 3"];
  const legend = curve.jobs.map((job, i) => {
    const chosen = i === curve.chosen;
    const look = { stroke: colours[i % colours.length], "stroke-dasharray": dashes[i % dashes.length],
      "stroke-width": chosen ? 2.4 : 1.2, fill: "none" };
    svg.append(make("polyline", { ...look, points: job.points.map((p) => `${x(p[0])},${y(p[2])}`).join(" ") }));
    if (chosen && job.k !== null) {
      const at = x(job.k);
      svg.append(make("line", { x1: at, x2: at, y1: top, y2: height - bottom, class: "cut" }));
      const end = at > width * 0.6;
      label(`k = ${job.k}`, at + (end ? -4 : 4), top + 10, end ? "end" : "start", "mark strong");
    }
    const sample = make("svg", { width: 26, height: 8, "aria-hidden": "true" },
      make("line", { ...look, x1: 0, x2: 26, y1: 4, y2: 4 }));
    const where = job.k === null ? ", cut, then closed one by one" : `, k = ${job.k}`;
    const cut = job.reached ? where : ", target not met";
    return make("li", {}, sample, ` ${job.label}${cut}${chosen ? " (this circuit)" : ""}`);
  });
  const tail = "Calibrated loss on validation pairs of the first k of each ranking; clean-up removes some afterwards.";
  return [svg, make("ul", { class: "keys" }, ...legend), make("p", { class: "soft" }, tail)];
};
