// A head: where it looks on one pair of prompts, in the circuit and in the whole model.
"use strict";

viewer.headPanel = function (name) {
  const { make, data } = viewer;
  const { layer, head, members } = viewer.heads.get(name);
  const attention = data.attention;
  const row = attention ? attention.heads.findIndex(([l, h]) => l === layer && h === head) : -1;
  const shown = { run: attention && attention.circuit ? "circuit" : "model", side: 0, q: NaN, k: NaN };
  const body = make("div", {});
  const nodes = members.filter((i) => data.nodes[i].kind === "node");
  const why = make("div", {});
  const draw = () => {
    viewer.fill(body, ...viewer.pattern(row, shown));
    viewer.fill(why, viewer.why(row, { layer, head }, shown));
  };

  const choice = (legend, field, options) => make("fieldset", { class: "choice" },
    make("legend", {}, legend),
    ...options.map(([value, text]) => {
      const input = make("input", { type: "radio", name: field, value: String(value) });
      input.checked = shown[field] === value;
      input.addEventListener("change", () => {
        shown[field] = value;
        draw();
      });
      return make("label", {}, input, ` ${text}`);
    }));

  if (row >= 0) draw();
  const runs = [["circuit", "circuit"], ["model", "whole model"]];
  return [
    make("h2", { class: "mono" }, name),
    make("p", { class: "soft" }, `head ${head} of layer ${layer}`),
    make("p", { class: "actions" },
      make("button", { type: "button", onclick: () => viewer.centre({ head: name }) }, "Centre in the graph")),
    viewer.groupForm(members),
    row < 0 ? make("p", { class: "soft" }, data.note || "No pattern: the page was made without prompts.")
      : viewer.section("Attention pattern",
        make("div", { class: "choices" },
          choice("Prompt", "side", [[0, "positive"], [1, "negative"]]),
          attention.circuit ? choice("Run", "run", runs) : null),
        body),
    row < 0 ? null : viewer.section("Why it looks there", why),
    nodes.length ? viewer.section("Its nodes", viewer.headNodes(nodes)) : null,
    nodes.length ? null : viewer.graphNode(members),
  ];
};

viewer.headNodes = function (nodes) {
  const { make, data } = viewer;
  const rows = [...nodes].map((i) => make("tr", {}, make("td", {}, viewer.link(i)),
    make("td", { class: "num" }, viewer.number(data.nodes[i].effect, true)),
    make("td", {}, typeof data.nodes[i].effect === "number" ? viewer.bar(data.nodes[i].effect, viewer.maxEffect) : null)));
  return make("table", { class: "edges" },
    make("thead", {}, make("tr", {}, make("th", {}, "node"), make("th", { class: "num" }, "effect, nats"), make("th", {}))),
    make("tbody", {}, ...rows));
};

// In a circuit of residual edges a head is itself a node, with reads and writes.
viewer.graphNode = function (members) {
  const { make } = viewer;
  return make("div", { class: "two" },
    viewer.section("Reads", viewer.edgeTable(members.flatMap((i) => viewer.reads[i]), 0)),
    viewer.section("Writes", viewer.edgeTable(members.flatMap((i) => viewer.writes[i]), 1)));
};

// The pattern as a picture (queries down, keys across) and, in words, what the last token sees.
viewer.pattern = function (row, shown) {
  const { make, data } = viewer;
  const packed = viewer.unpackOnce(data.attention, shown.run);
  const size = packed.shape[2];
  const tokens = data.attention.tokens[shown.side];
  const last = data.attention.last[shown.side];
  const count = last + 1;
  const at = (q, k) => packed.values[((row * 2 + shown.side) * size + q) * size + k] / 255;
  const word = (i) => viewer.visible(viewer.tokenText(tokens[i]));

  const canvas = make("canvas", { class: "pattern", role: "img",
    "aria-label": `Attention of each token (rows) to each token (columns), ${count} tokens` });
  const side = Math.max(7, Math.min(16, Math.floor(358 / count)));
  const [left, top] = [66, 62];
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [left + count * side + 2, top + count * side + 2];
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.font = `${Math.max(6.5, Math.min(10, side))}px ui-monospace, Menlo, Consolas, monospace`;
  context.textBaseline = "middle";
  for (let q = 0; q < count; q++) {
    for (let k = 0; k <= q; k++) {
      const share = at(q, k);
      context.fillStyle = `rgba(11,98,164,${Math.max(share, 0.03).toFixed(3)})`;
      context.fillRect(left + k * side, top + q * side, side - 1, side - 1);
    }
    context.fillStyle = q === last ? viewer.COLOURS.text : viewer.COLOURS.soft;
    context.textAlign = "right";
    context.fillText(viewer.clip(word(q), 9), left - 4, top + (q + 0.5) * side);
    context.save();
    context.translate(left + (q + 0.5) * side, top - 4);
    context.rotate(-Math.PI / 2);
    context.textAlign = "left";
    context.fillText(viewer.clip(word(q), 9), 0, 0);
    context.restore();
  }
  const reading = make("p", { class: "reading", "aria-live": "polite" }, "Point at a cell to read it; a click asks below why.");
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const k = Math.floor((event.clientX - box.left - left) / side);
    const q = Math.floor((event.clientY - box.top - top) / side);
    if (q < 0 || k < 0 || q >= count || k > q) return;
    viewer.fill(reading, make("code", {}, word(q)), ` (${q}) looks at `, make("code", {}, word(k)),
      ` (${k}): ${viewer.number(at(q, k))}`);
  });
  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect();
    const k = Math.floor((event.clientX - box.left - left) / side);
    const q = Math.floor((event.clientY - box.top - top) / side);
    if (q < 0 || k < 0 || q >= count || k > q || !data.attention.products) return;
    [shown.q, shown.k] = [q, k];
    viewer.redrawWhy();
  });
  const order = [...Array(count).keys()].sort((a, b) => at(last, b) - at(last, a)).slice(0, 5);
  const seen = order.filter((k) => at(last, k) > 0.004).map((k) => make("li", {},
    make("code", {}, word(k)), ` at ${k}: ${viewer.number(at(last, k))}`));
  let rest = 1;
  for (let k = 0; k < count; k++) rest -= at(last, k);
  if (rest > 0.02) seen.push(make("li", { class: "soft" }, `nothing (the sink): ${viewer.number(rest)}`));
  return [canvas, reading, make("h4", {}, "The last token looks at"), make("ol", { class: "sees" }, ...seen)];
};
