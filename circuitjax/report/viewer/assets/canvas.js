// Lines and labels, on two canvases under the marks: rails and edges on one, what is selected and all
// labels on the other. Thousands of
// edges are a handful of paths, one for each sign and width; they are built when the filter changes,
// not when the view moves.
"use strict";

viewer.COLOURS = {
  positive: "#0b62a4",
  negative: "#c4500a",
  neutral: "#5b6470",
  rail: "#e6e9ed",
  carried: "#8d96a3",
  text: "#1b2430",
  soft: "#667080",
};
viewer.WIDTHS = [0.7, 1.1, 1.7, 2.5, 3.6]; // pixels

viewer.widthClass = function (weight) {
  if (weight === null || !viewer.maxWeight) return 1;
  const share = Math.sqrt(Math.abs(weight) / viewer.maxWeight);
  return Math.min(viewer.WIDTHS.length - 1, Math.floor(share * viewer.WIDTHS.length));
};

viewer.trace = function (path, edge) {
  const { x, y, radius } = viewer.place;
  const [source, target] = viewer.data.edges[edge];
  // From inside a head a line leaves at the frame, not through the node's name.
  const { kind, head } = viewer.data.nodes[source];
  const out = kind === "node" && head !== undefined ? viewer.INSET + viewer.BOX / 2 : radius;
  const [x1, y1, x2, y2] = [x[source] + out, y[source], x[target] - radius, y[target]];
  const bend = Math.max(12, (x2 - x1) * 0.45);
  path.moveTo(x1, y1);
  path.bezierCurveTo(x1 + bend, y1, x2 - bend, y2, x2, y2);
};

// {key: {path, sign, width, count}} of some edges.
viewer.batches = function (edges) {
  const batches = new Map();
  for (const edge of edges) {
    const weight = viewer.data.edges[edge][2];
    const sign = weight === null ? "neutral" : weight < 0 ? "negative" : "positive";
    const width = viewer.widthClass(weight);
    const key = `${sign}${width}`;
    if (!batches.has(key)) batches.set(key, { path: new Path2D(), sign, width, count: 0 });
    const batch = batches.get(key);
    viewer.trace(batch.path, edge);
    batch.count += 1;
  }
  return [...batches.values()].sort((a, b) => a.width - b.width);
};

viewer.strokeBatches = function (context, batches, zoom, strong, plain) {
  for (const { path, sign, width } of batches) {
    context.strokeStyle = viewer.COLOURS[sign];
    // Zoomed in, lines keep their width on the screen; zoomed out they get thinner, but slowly.
    context.lineWidth = (viewer.WIDTHS[width] * (strong ? 1.35 : 1)) / Math.sqrt(zoom * Math.max(zoom, 1));
    // Dashes cost time: while a dense graph moves they are left out.
    context.setLineDash(sign === "negative" && !plain ? [6 / zoom, 4.5 / zoom] : []);
    context.stroke(path);
  }
  context.setLineDash([]);
};

viewer.resizeCanvas = function (canvas, height = viewer.size.height) {
  const ratio = window.devicePixelRatio || 1;
  const { width } = viewer.size;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
};

// The rails' ends, before the first column and behind the last.
viewer.railStart = () => viewer.place.columns[0].x - 44 / Math.min(1, viewer.view.k);
viewer.railEnd = () => viewer.place.columns.at(-1).x + 44 / Math.min(1, viewer.view.k);

// Rails: pale where a channel only passes, darker from the first kept write to the last kept read.
viewer.railPaths = function () {
  const { place } = viewer;
  const pale = new Path2D();
  const dark = new Path2D();
  for (const { channel, y } of place.rails) {
    const start = viewer.railStart();
    const end = viewer.railEnd();
    pale.moveTo(start, y);
    pale.lineTo(end, y);
    const { writers, readers } = viewer.rails.get(channel);
    const shown = (list) => list.filter((node) => viewer.isShown[node]).map((i) => place.x[i]);
    const from = shown(writers);
    const to = shown(readers);
    // Tokens write every channel, logits read every one; what lies between is the circuit's.
    if (to.length) {
      dark.moveTo(start, y);
      dark.lineTo(Math.max(...to), y);
    }
    if (from.length) {
      dark.moveTo(Math.min(...from), y);
      dark.lineTo(end, y);
    }
  }
  return { pale, dark };
};

// All edges that the filters leave, in batches; anew after a filter or a layout changed.
viewer.rebuildLines = function () {
  const { data } = viewer;
  viewer.shownEdges = [];
  data.edges.forEach(([source, target, weight], edge) => {
    if (!viewer.isShown[source] || !viewer.isShown[target]) return;
    if (Math.abs(weight ?? Infinity) < viewer.leastWeight) return;
    viewer.shownEdges.push(edge);
  });
  viewer.lineBatches = viewer.batches(viewer.shownEdges);
  viewer.rebuildLit();
};

// What belongs to the selected or hovered thing, drawn above the rest.
viewer.rebuildLit = function () {
  const focus = viewer.hovered ?? viewer.selected;
  viewer.litEdges = [];
  viewer.litRails = [];
  if (focus) {
    const members = new Set(focus.head ? viewer.heads.get(focus.head).members : [focus.node]);
    const isShown = new Set(viewer.shownEdges);
    for (const node of members) {
      for (const edge of [...viewer.reads[node], ...viewer.writes[node]]) {
        if (isShown.has(edge)) viewer.litEdges.push(edge);
      }
      const { site, index } = viewer.data.nodes[node];
      if (site && /(act_in|resid_delta)$/.test(site)) viewer.litRails.push({ node, channel: index });
    }
  }
  viewer.litBatches = viewer.batches(viewer.litEdges);
};

viewer.draw = function () {
  const { view, place } = viewer;
  const context = viewer.resizeCanvas(viewer.canvas);
  const zoom = view.k;
  context.save();
  context.translate(view.x, view.y);
  context.scale(zoom, zoom);
  const rails = viewer.railPaths();
  context.lineWidth = 1 / zoom;
  context.strokeStyle = viewer.COLOURS.rail;
  context.stroke(rails.pale);
  context.lineWidth = (place.gap * zoom < 8 ? 0.7 : 1.2) / zoom;
  context.strokeStyle = viewer.COLOURS.carried;
  context.stroke(rails.dark);
  const dense = viewer.shownEdges.length > 1200;
  const dimmed = Boolean(viewer.hovered ?? viewer.selected);
  context.globalAlpha = dimmed ? 0.16 : viewer.shownEdges.length > 3500 ? 0.38 : dense ? 0.55 : 0.85;
  viewer.strokeBatches(context, viewer.lineBatches, zoom, false, viewer.moving && dense);
  context.globalAlpha = 1;
  context.restore();
  viewer.drawLabels(viewer.drawLit());
  viewer.drawHeadings();
  viewer.drawnView = view;
  viewer.world.setAttribute("transform", `translate(${view.x},${view.y}) scale(${view.k})`);
  viewer.stage.style.transform = "";
};

// While a dense graph moves, the picture that is there is moved and stretched as it is: it is drawn
// anew when the gesture rests, or has gone so far that the picture would be coarse or blank.
viewer.canStretch = function () {
  const { view, drawnView, size } = viewer;
  if (!viewer.moving || !drawnView || viewer.shownEdges.length + viewer.shownNodes < 1500) return false;
  const stretch = view.k / drawnView.k;
  const [x, y] = [view.x - drawnView.x * stretch, view.y - drawnView.y * stretch];
  return stretch > 0.6 && stretch < 2.2 && Math.abs(x) < size.width * 1.2 && Math.abs(y) < size.height * 1.2;
};
viewer.stretch = function () {
  const { view, drawnView } = viewer;
  const stretch = view.k / drawnView.k;
  const [x, y] = [view.x - drawnView.x * stretch, view.y - drawnView.y * stretch];
  viewer.stage.style.transform = `translate(${x}px,${y}px) scale(${stretch})`;
  viewer.drawHeadings();
};

viewer.drawLit = function () {
  const context = viewer.resizeCanvas(viewer.litCanvas);
  const { view, place } = viewer;
  context.save();
  context.translate(view.x, view.y);
  context.scale(view.k, view.k);
  context.strokeStyle = viewer.COLOURS.text;
  context.lineWidth = 1.8 / view.k;
  const yOf = new Map(place.rails.map(({ channel, y }) => [channel, y]));
  for (const { node, channel } of viewer.litRails) {
    const [from, to] = viewer.carriedBy(node, channel);
    context.beginPath();
    context.moveTo(from, yOf.get(channel));
    context.lineTo(to, yOf.get(channel));
    context.stroke();
  }
  viewer.strokeBatches(context, viewer.litBatches, view.k, true, false);
  context.restore();
  return context;
};

// The part of a rail that a read hangs on (from the tokens), or that a write feeds (to the logits).
viewer.carriedBy = function (node, channel) {
  const { place } = viewer;
  const reads = viewer.rails.get(channel).readers.includes(node);
  return reads
    ? [viewer.railStart(), place.x[node]]
    : [place.x[node], viewer.railEnd()];
};
