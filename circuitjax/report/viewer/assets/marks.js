// Marks: one SVG shape for every node and a frame for every head, which mouse and keyboard can reach.
// One of them is in the order of Tab; the arrow keys go from one to the next.
"use strict";

// Shapes of unit size by site: a node is told by its shape, not only by its column.
viewer.SHAPES = {
  "attn.act_in": "M1,0A1,1,0,1,1,-1,0A1,1,0,1,1,1,0Z",
  "attn.q": "M0,-1.15L1.05,0.75L-1.05,0.75Z",
  "attn.k": "M0,1.15L1.05,-0.75L-1.05,-0.75Z",
  "attn.v": "M0,-1.25L1.1,0L0,1.25L-1.1,0Z",
  "attn.resid_delta": "M1.3,0L-0.75,1.05L-0.75,-1.05Z",
  "mlp.act_in": "M1,0A1,1,0,1,1,-1,0A1,1,0,1,1,1,0Z",
  "mlp.post_act": "M-0.95,-0.95L0.95,-0.95L0.95,0.95L-0.95,0.95Z",
  "mlp.resid_delta": "M1.3,0L-0.75,1.05L-0.75,-1.05Z",
};
viewer.SHAPES.other = viewer.SHAPES["attn.act_in"];

// Effect as a shade: from white (none) to deep green; size says it too.
viewer.shade = function (effect) {
  if (typeof effect !== "number" || !viewer.maxEffect) return "#f4f6f8";
  const share = Math.sqrt(Math.min(1, Math.max(0, effect) / viewer.maxEffect));
  const mix = (from, to) => Math.round(from + (to - from) * share);
  return `rgb(${mix(255, 0)},${mix(255, 82)},${mix(255, 60)})`;
};
viewer.scaleOf = function (effect) {
  if (typeof effect !== "number" || !viewer.maxEffect) return 1;
  return 0.8 + 0.65 * Math.sqrt(Math.abs(effect) / viewer.maxEffect);
};

viewer.describe = function (i) {
  const node = viewer.data.nodes[i];
  const parts = [node.id, viewer.words(node)];
  if (typeof node.effect === "number") parts.push(`effect ${viewer.number(node.effect, true)} nats`);
  parts.push(`${viewer.reads[i].length} edges in, ${viewer.writes[i].length} out`);
  return parts.join(", ");
};

viewer.buildMarks = function () {
  const { make, place, data } = viewer;
  const layer = make("g", { id: "world" });
  viewer.world = layer;
  viewer.markOf = [];
  viewer.boxOf = new Map();
  for (const box of place.boxes) {
    const rect = make("rect", {
      class: "head",
      x: box.x,
      y: box.y,
      width: box.width,
      height: box.height,
      rx: 7,
      role: "button",
      tabindex: -1,
      "data-head": box.name,
      "aria-label": `Head ${box.head} of layer ${box.layer}, ${box.members.length} nodes: attention pattern`,
    });
    const text = make("text", { class: "head-name", x: box.x + box.width / 2, y: box.y + 14 }, `h${box.head}`);
    viewer.boxOf.set(box.name, rect);
    layer.append(rect, text);
  }
  data.nodes.forEach((node, i) => {
    const boxed = node.kind === "node" && node.head !== undefined;
    const negative = typeof node.effect === "number" && node.effect < -0.01 * viewer.maxEffect;
    const shape = make("path", {
      class: `node${negative ? " harms" : ""}`,
      d: viewer.SHAPES[node.site] || viewer.SHAPES.other,
      role: "button",
      tabindex: -1,
      "data-node": i,
      "aria-label": viewer.describe(i),
    });
    // Inside a head the mark stands left, its name right of it.
    if (boxed) place.x[i] -= viewer.INSET;
    const size = place.radius * viewer.scaleOf(node.effect);
    shape.setAttribute("transform", `translate(${place.x[i]},${place.y[i]}) scale(${size})`);
    shape.style.fill = viewer.shade(node.effect);
    viewer.markOf.push(shape);
    layer.append(shape);
  });
  viewer.ring = make("circle", { id: "ring", r: 1, hidden: true });
  layer.append(viewer.ring);
  viewer.fill(viewer.svg, layer);
  viewer.markCompared();
  viewer.markGroups();
  viewer.orderMarks();
};

// Columns of things that can be reached, top to bottom: a head's frame, then its nodes.
viewer.orderMarks = function () {
  const { place, data } = viewer;
  viewer.grid = place.columns.map(({ time }) => {
    const items = [];
    data.nodes.forEach((node, i) => {
      if (viewer.time(node) === time && viewer.isShown[i]) {
        items.push({ node: i, y: place.y[i], element: viewer.markOf[i] });
      }
    });
    for (const box of place.boxes) {
      if (box.layer * 6 + 1 !== time || !box.members.some((i) => viewer.isShown[i])) continue;
      items.push({ head: box.name, y: box.y, element: viewer.boxOf.get(box.name) });
    }
    return items.sort((a, b) => a.y - b.y);
  });
  viewer.grid = viewer.grid.filter((column) => column.length);
  const kept = viewer.current && viewer.find(viewer.current);
  viewer.setCurrent(kept ? viewer.grid[kept[0]][kept[1]] : viewer.grid[0]?.[0] ?? null);
};

viewer.find = function (item) {
  for (let column = 0; column < viewer.grid.length; column++) {
    const row = viewer.grid[column].findIndex((other) => other.element === item.element);
    if (row >= 0) return [column, row];
  }
  return null;
};

viewer.itemOf = function (element) {
  return viewer.grid.flat().find((item) => item.element === element) || null;
};

// The one thing that Tab reaches.
viewer.setCurrent = function (item) {
  if (viewer.current) viewer.current.element.setAttribute("tabindex", "-1");
  viewer.current = item;
  if (item) item.element.setAttribute("tabindex", "0");
};

viewer.step = function (key) {
  const found = viewer.current && viewer.find(viewer.current);
  if (!found) return;
  let [column, row] = found;
  const y = viewer.grid[column][row].y;
  if (key === "ArrowUp") row = Math.max(0, row - 1);
  if (key === "ArrowDown") row = Math.min(viewer.grid[column].length - 1, row + 1);
  if (key === "Home") [column, row] = [0, 0];
  if (key === "End") [column, row] = [viewer.grid.length - 1, 0];
  if (key === "ArrowLeft" || key === "ArrowRight") {
    column = Math.min(viewer.grid.length - 1, Math.max(0, column + (key === "ArrowLeft" ? -1 : 1)));
    const distance = (item) => Math.abs(item.y - y);
    row = column === found[0] ? row : viewer.grid[column].reduce(
      (best, item, i, list) => (distance(item) < distance(list[best]) ? i : best), 0);
  }
  const item = viewer.grid[column][row];
  viewer.setCurrent(item);
  item.element.focus({ preventScroll: true });
  viewer.reveal(item);
};

viewer.keyOnMarks = function (event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (/^Arrow|^Home$|^End$/.test(event.key)) {
    event.preventDefault();
    viewer.step(event.key);
  } else if (event.key === "Enter" || event.key === " ") {
    const item = viewer.itemOf(event.target);
    if (!item) return;
    event.preventDefault();
    viewer.select(item);
  }
};

viewer.showRing = function (item) {
  const { ring, place } = viewer;
  if (!item || item.node === undefined) {
    ring.setAttribute("hidden", "");
    return;
  }
  ring.removeAttribute("hidden");
  ring.setAttribute("cx", place.x[item.node]);
  ring.setAttribute("cy", place.y[item.node]);
  ring.setAttribute("r", place.radius * 2.4);
};
