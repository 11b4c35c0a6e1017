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
  context.globalAlpha = dimmed ? 0.16 : dense ? 0.5 : 0.85;
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

// Labels keep their size on the screen. The nodes of largest effect come first; a label that would
// cover another one, or lies outside, is left out.
viewer.drawLabels = function (context) {
  const { view, place, data } = viewer;
  const taken = new Map(); // coarse grid of what is covered
  const free = (x, y, width, height) => {
    const cells = [];
    for (let cx = Math.floor(x / 16); cx <= Math.floor((x + width) / 16); cx++) {
      for (let cy = Math.floor(y / 8); cy <= Math.floor((y + height) / 8); cy++) {
        const cell = cx * 100003 + cy;
        const boxes = taken.get(cell);
        if (boxes) {
          for (const [bx, by, bw, bh] of boxes) {
            if (x < bx + bw && bx < x + width && y < by + bh && by < y + height) return false;
          }
        }
        cells.push(cell);
      }
    }
    for (const cell of cells) {
      if (!taken.has(cell)) taken.set(cell, []);
      taken.get(cell).push([x, y, width, height]);
    }
    return true;
  };
  const write = (text, x, y, colour, align) => {
    context.textAlign = align;
    context.lineWidth = 3;
    context.strokeStyle = "rgba(255,255,255,0.9)";
    context.strokeText(text, x, y);
    context.fillStyle = colour;
    context.fillText(text, x, y);
  };
  const at = (x, y) => [x * view.k + view.x, y * view.k + view.y];
  // No label lies on a mark.
  const marks = (i) => {
    const [x, y] = at(place.x[i], place.y[i]);
    const r = place.radius * view.k * 0.9;
    free(x - r, y - r, 2 * r, 2 * r);
  };
  const inside = (x, y) => x > -40 && y > 34 && x < viewer.size.width + 40 && y < viewer.size.height + 10;
  context.lineJoin = "round";
  context.textBaseline = "middle";
  viewer.labelled = 0;

  context.font = "10.5px system-ui, sans-serif";
  const focus = viewer.selected ? [viewer.selected.node] : [];
  const lit = new Set(viewer.litEdges.flatMap((edge) => data.edges[edge].slice(0, 2)));
  const dim = Boolean(viewer.hovered ?? viewer.selected);
  const ordered = [...focus.filter((i) => i !== undefined), ...viewer.labelOrder];
  const done = new Set();
  const roomy = place.gap * view.k >= 7 || viewer.rails.size === 0 || viewer.shownNodes <= 300;
  if (roomy || dim) {
    data.nodes.forEach((_, i) => viewer.isShown[i] && marks(i));
    for (const i of ordered) {
      if (!viewer.isShown[i] || done.has(i)) continue;
      if (!roomy && !lit.has(i) && !focus.includes(i)) continue;
      done.add(i);
      const node = data.nodes[i];
      const [x, y] = at(place.x[i], place.y[i]);
      if (!inside(x, y)) continue;
      const text = viewer.label(node);
      const width = context.measureText(text).width;
      for (const [lx, ly, align] of viewer.labelSpots(node, x, y, place.radius * view.k * 1.4)) {
        const start = lx - { left: 0, center: width / 2, right: width }[align];
        if (!free(start - 1, ly - 5, width + 2, 10)) continue;
        const strong = !dim || lit.has(i) || focus.includes(i);
        write(text, lx, ly, strong ? viewer.COLOURS.text : "#aab2bd", align);
        viewer.labelled += 1;
        break;
      }
    }
  }

  // At the ends of the rails: the tokens that a channel is nearest to.
  context.font = "10px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace";
  if (place.gap * view.k >= 9) {
    for (const { channel, y } of place.rails) {
      const { writers, readers } = viewer.rails.get(channel);
      const ends = [
        [readers, "embed", viewer.railStart() - 6, "right"],
        [writers, "unembed", viewer.railEnd() + 6, "left"],
      ];
      for (const [list, side, x, align] of ends) {
        const node = list.find((i) => viewer.isShown[i]);
        const tokens = node === undefined ? [] : data.nodes[node][side] || [];
        if (!tokens.length) continue;
        const [lx, ly] = at(x, y);
        if (!inside(lx, ly)) continue;
        const text = viewer.railTokens(tokens);
        const width = context.measureText(text).width;
        const start = align === "right" ? lx - width : lx;
        if (free(start - 1, ly - 5, width + 2, 10)) write(text, lx, ly, viewer.COLOURS.soft, align);
      }
    }
  }
};

// Where a label may stand, best first: where no edges leave or enter the mark.
viewer.labelSpots = function (node, x, y, r) {
  if (node.kind === "node" && node.head !== undefined) return [[x + r + 2, y, "left"]];
  const above = [x, y - r - 5, "center"];
  if (!node.site || node.site === "mlp.post_act") {
    return [above, [x, y + r + 6, "center"], [x + r + 3, y, "left"]];
  }
  return node.site.endsWith("act_in") ? [[x - r - 3, y, "right"]] : [[x + r + 3, y, "left"]];
};

// As many of a channel's tokens as fit beside its rail.
viewer.railTokens = function (tokens) {
  let text = "";
  for (const [id] of tokens) {
    const word = viewer.clip(viewer.visible(viewer.tokenText(id)), 9);
    if (text && text.length + word.length > 17) break;
    text += (text ? "  " : "") + word;
  }
  return text;
};

viewer.clip = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

// Column headings stay at the top of the view, whatever is scrolled.
viewer.drawHeadings = function () {
  const { view, place, size } = viewer;
  const context = viewer.resizeCanvas(viewer.headCanvas, 35);
  context.textBaseline = "middle";
  context.fillStyle = "rgba(255,255,255,0.93)";
  context.fillRect(0, 0, size.width, 34);
  context.fillStyle = "#e4e7eb";
  context.fillRect(0, 34, size.width, 1);
  const groups = new Map();
  let before = -Infinity;
  context.textAlign = "center";
  for (const { x, title } of place.columns) {
    const sx = x * view.k + view.x;
    context.font = "10.5px system-ui, sans-serif";
    context.fillStyle = viewer.COLOURS.soft;
    const half = context.measureText(title.site).width / 2;
    if (sx - half > before) {
      context.fillText(title.site, sx, 25);
      before = sx + half + 4;
    }
    if (!title.block) continue;
    if (!groups.has(title.block)) groups.set(title.block, []);
    groups.get(title.block).push(sx);
  }
  context.font = "600 11px system-ui, sans-serif";
  before = -Infinity;
  for (const [block, xs] of groups) {
    const centre = (xs[0] + xs[xs.length - 1]) / 2;
    const room = xs[xs.length - 1] - xs[0] + 40 * view.k;
    const short = block.replace("layer ", "L").replace("attention", "attn");
    const text = context.measureText(block).width <= room ? block : short;
    const half = context.measureText(text).width / 2;
    context.fillStyle = viewer.COLOURS.text;
    if (centre - half > before) {
      context.fillText(text, centre, 11);
      before = centre + half + 6;
    }
  }
  if (viewer.rails.size) {
    context.font = "10.5px system-ui, sans-serif";
    context.fillStyle = viewer.COLOURS.soft;
    context.textAlign = "right";
    context.fillText("tokens →", (viewer.railStart() - 6) * view.k + view.x, 25);
    context.textAlign = "left";
    context.fillText("→ logits", (viewer.railEnd() + 6) * view.k + view.x, 25);
  }
};
