// Names of nodes, tokens at the ends of the rails, and the columns' headings.
"use strict";

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
