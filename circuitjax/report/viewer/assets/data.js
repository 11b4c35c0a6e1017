// The page's data: read once, unpacked, and indexed. Everything else hangs on the object `viewer`.
"use strict";
const viewer = {};

viewer.data = JSON.parse(document.getElementById("data").textContent);

// A packed array: {values (typed array), shape, scale}. See packing.py.
viewer.unpack = function (packed) {
  const bytes = Uint8Array.from(atob(packed.base64), (c) => c.charCodeAt(0));
  const types = { u1: Uint8Array, i1: Int8Array, u2: Uint16Array, i4: Int32Array };
  const values = new types[packed.type](bytes.buffer);
  return { values, shape: packed.shape, scale: packed.scale };
};

// An element with attributes and children; text only ever becomes text.
viewer.make = function (tag, attributes, ...children) {
  const svg = viewer.svgTags.has(tag);
  const node = svg
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
};
viewer.svgTags = new Set(["svg", "g", "path", "line", "rect", "circle", "text", "polyline"]);

viewer.fill = function (parent, ...children) {
  parent.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
};

// A number in at most four characters of precision, with its sign where asked for.
viewer.number = function (value, signed = false) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  let text;
  if (size === 0) text = "0";
  else if (size < 1e-4) text = size.toExponential(0);
  else text = size >= 100 ? size.toFixed(0) : String(Number(size.toPrecision(3)));
  const sign = value < 0 ? "−" : signed && size > 0 ? "+" : "";
  return sign + text;
};

// How a token looks in running text: blanks at its ends and line ends become visible.
viewer.tokenText = function (id) {
  const text = viewer.data.tokens[id];
  return text === undefined ? `token ${id}` : text;
};
viewer.visible = function (text) {
  if (text === "") return "∅";
  return text
    .replace(/\r?\n/g, "↵")
    .replace(/\t/g, "→")
    .replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, "�")
    .replace(/ /g, "·");
};

viewer.SITES = {
  "attn.act_in": { place: 0, words: "attention read", short: "reads" },
  "attn.q": { place: 1, words: "query channel", short: "q" },
  "attn.k": { place: 1, words: "key channel", short: "k" },
  "attn.v": { place: 1, words: "value channel", short: "v" },
  "attn.resid_delta": { place: 2, words: "attention write", short: "writes" },
  "mlp.act_in": { place: 3, words: "MLP read", short: "reads" },
  "mlp.gate": { place: 3.5, words: "gate", short: "gates" },
  "mlp.up": { place: 3.5, words: "up projection", short: "up projections" },
  "mlp.post_act": { place: 4, words: "neuron", short: "neurons" },
  "mlp.resid_delta": { place: 5, words: "MLP write", short: "writes" },
};

viewer.index = function () {
  const { data } = viewer;
  const nodes = data.nodes;
  viewer.reads = nodes.map(() => []); // edges that end in a node
  viewer.writes = nodes.map(() => []); // edges that leave it
  data.edges.forEach(([source, target], edge) => {
    viewer.writes[source].push(edge);
    viewer.reads[target].push(edge);
  });
  const size = (edge) => -Math.abs(data.edges[edge][2] ?? 0);
  for (const list of [...viewer.reads, ...viewer.writes]) list.sort((a, b) => size(a) - size(b));
  viewer.byId = new Map(nodes.map((node, place) => [node.id, place]));
  const sizes = (values) => Float64Array.from(values, (value) => Math.abs(value)).sort();
  viewer.weightSizes = sizes(data.edges.map((edge) => edge[2] ?? 0));
  viewer.maxWeight = viewer.weightSizes.at(-1) ?? 0;
  const effects = nodes.map((node) => node.effect).filter((x) => typeof x === "number");
  viewer.effectSizes = sizes(effects);
  viewer.maxEffect = viewer.effectSizes.at(-1) ?? 0;
  viewer.hasEffects = effects.length > 0;
  const order = nodes.map((_, place) => place).filter((p) => typeof nodes[p].effect === "number");
  order.sort((a, b) => Math.abs(nodes[b].effect) - Math.abs(nodes[a].effect));
  viewer.rank = new Map(order.map((place, rank) => [place, rank + 1]));
  // Residual channel -> who writes and who reads it, in forward order.
  viewer.rails = new Map();
  nodes.forEach((node, place) => {
    if (!node.site || !/(act_in|resid_delta)$/.test(node.site)) return;
    if (!viewer.rails.has(node.index)) viewer.rails.set(node.index, { writers: [], readers: [] });
    const rail = viewer.rails.get(node.index);
    (node.site.endsWith("act_in") ? rail.readers : rail.writers).push(place);
  });
  // Heads, by name: their nodes.
  viewer.heads = new Map();
  nodes.forEach((node, place) => {
    if (node.head === undefined) return;
    const name = `${node.layer}.h${node.head}`;
    if (!viewer.heads.has(name)) {
      viewer.heads.set(name, { name, layer: node.layer, head: node.head, members: [] });
    }
    viewer.heads.get(name).members.push(place);
  });
};

// Where a node comes in the forward pass; equal for all that act at once.
viewer.time = function (node) {
  if (node.kind === "embedding" || node.kind === "positions") return -1;
  if (node.kind === "logits") return 1e6;
  if (node.kind === "head") return node.layer * 6 + 1;
  if (node.kind === "mlp") return node.layer * 6 + 4;
  return node.layer * 6 + viewer.SITES[node.site].place;
};

// One word for a place in the graph, for labels and for the blind.
viewer.words = function (node) {
  if (node.kind === "embedding") return "token embedding";
  if (node.kind === "positions") return "position embedding";
  if (node.kind === "logits") return "logits";
  if (node.kind === "head") return `head ${node.head} of layer ${node.layer}`;
  if (node.kind === "mlp") return `MLP of layer ${node.layer}`;
  const site = viewer.SITES[node.site].words;
  if (node.head !== undefined) {
    return `${site} ${node.channel} of head ${node.head}, layer ${node.layer}`;
  }
  if (node.site === "mlp.post_act") return `${site} ${node.index}, layer ${node.layer}`;
  return `${site} of ${viewer.channel(node.index)}, layer ${node.layer}`;
};

// Concatenated positions are channels beyond the residual stream's.
viewer.channel = function (index) {
  const width = viewer.data.model.d_model;
  return index < width ? `residual channel ${index}` : `position channel ${index - width}`;
};

viewer.label = function (node) {
  if (node.kind !== "node") return node.id;
  if (node.head !== undefined) return `${viewer.SITES[node.site].short}${node.channel}`;
  return node.site === "mlp.post_act" ? `n${node.index}` : String(node.index);
};

viewer.index();
