// Where everything lies. Columns are sites in forward order; a residual channel is a rail, a
// horizontal line at one height through all columns; reads and writes sit on their rail, what is
// inside a block (heads, neurons) lies near the rails it is joined to.
"use strict";

viewer.HEADER = 46; // world units above the first rail
viewer.BOX = 54; // width of a head's box
viewer.INSET = 12; // how far left of its middle the marks stand, to leave room for their names

// For a view of some pixels: x and y of every node, columns, rails and heads' boxes, the extent of it
// all, the distance of rails and the size of marks.
viewer.layout = function (viewWidth, viewHeight) {
  const { data } = viewer;
  const nodes = data.nodes;
  const times = nodes.map(viewer.time);
  const used = [...new Set(times)].sort((a, b) => a - b);
  const onRails = viewer.rails.size > 0;

  // Columns: as wide as the view allows, the wider the more edges end there, a gap between blocks.
  // Rails: the lower the fewer fit. A graph taller than the view will be shrunk to fit: then it may
  // be wider too, and needs room at its sides for the tokens beside the rails, if these can be read.
  const order = viewer.orderRails();
  const rows = Math.max(order.length, 1);
  const room = viewHeight - viewer.HEADER - 60;
  const gap = Math.min(30, Math.max(onRails ? 13 : 24, room / (rows * 1.08)));
  const shrunk = Math.min(1, room / (rows * gap * 1.08));
  const margin = (onRails ? (gap * shrunk >= 9 ? 176 : 112) : 70) / shrunk;

  const crossing = used.map(() => 0); // edges that end in a column
  for (const [, target] of data.edges) crossing[used.indexOf(times[target])] += 1;
  const busiest = Math.max(1, ...crossing);
  const spans = used.map((time, i) => {
    if (i === 0) return 0;
    const same = Math.floor(time / 3) === Math.floor(used[i - 1] / 3);
    if (!onRails) return 1;
    return same ? 0.9 + 0.9 * Math.sqrt(crossing[i] / busiest) : 0.75;
  });
  const total = spans.reduce((sum, span) => sum + span, 0) || 1;
  const step = Math.min(210 / shrunk, Math.max(62, (viewWidth / shrunk - 2 * margin - 30) / total));
  const xOf = new Map();
  let x = margin;
  used.forEach((time, i) => {
    x += spans[i] * step;
    xOf.set(time, x);
  });
  const right = x + margin;

  const railY = new Map(order.map((channel, row) => [channel, viewer.HEADER + 14 + row * gap]));
  const depth = Math.max(rows * gap, Math.min(room, 460));

  const place = { x: new Float64Array(nodes.length), y: new Float64Array(nodes.length) };
  nodes.forEach((node, i) => {
    place.x[i] = xOf.get(times[i]);
    if (node.site && /(act_in|resid_delta)$/.test(node.site)) place.y[i] = railY.get(node.index);
  });

  // Inside the blocks: the height a node would like is the mean of its neighbours' on rails.
  const boxes = [];
  for (const time of used) {
    const members = nodes.map((_, i) => i).filter((i) => times[i] === time);
    if (onRails && time % 3 !== 1) continue;
    const fed = (i) => viewer.reads[i].map((edge) => place.y[data.edges[edge][0]]);
    const mean = (ys) => (ys.length ? ys.reduce((sum, y) => sum + y, 0) / ys.length : depth / 2);
    const wanted = onRails ? (i) => viewer.wanted(i, railY, rows * gap) : (i) => mean(fed(i));
    const blocks = viewer.blocks(members, wanted);
    const most = depth * 1.05;
    const count = blocks.reduce((sum, block) => sum + block.members.length, 0);
    const heads = blocks.filter((block) => block.head).length;
    const each = (most - heads * 26) / Math.max(count, 1);
    const space = onRails
      ? Math.min(heads ? 22 : 30, Math.max(8, each))
      : Math.min(84, Math.max(30, each));
    viewer.pack(blocks, space, depth);
    for (const block of blocks) {
      block.members.forEach((i, row) => {
        place.y[i] = block.top + (block.head ? 20 : 0) + (row + 0.5) * space;
      });
      if (block.head) {
        boxes.push({
          ...block.head,
          x: xOf.get(time) - viewer.BOX / 2,
          y: block.top,
          width: viewer.BOX,
          height: 22 + block.members.length * space,
        });
      }
    }
  }

  const ys = [...place.y, ...boxes.map((box) => box.y + box.height)];
  const height = ys.reduce((most, y) => Math.max(most, y), 0) + 24;
  const rails = order.map((channel) => ({ channel, y: railY.get(channel) }));
  const columns = used.map((time) => ({ time, x: xOf.get(time), title: viewer.columnTitle(time) }));
  const radius = Math.min(6.5, Math.max(3, gap * 0.3));
  return { ...place, columns, rails, boxes, width: right, height, radius, gap };
};

viewer.columnTitle = function (time) {
  if (time < 0) return { block: "", site: "tokens" };
  if (time >= 1e6) return { block: "", site: "logits" };
  const layer = Math.floor(time / 6);
  const part = time % 6;
  const graph = viewer.rails.size === 0;
  const site = graph
    ? { 1: "heads", 4: "MLP" }[part]
    : ["reads", "heads", "writes", "reads", "neurons", "writes"][part];
  return { block: `layer ${layer} ${part < 3 ? "attention" : "MLP"}`, site };
};

// Rails in an order that keeps edges short: each rail goes to the mean height of what it is joined
// to, again and again; the best order met on the way is kept.
viewer.orderRails = function () {
  const { data, rails } = viewer;
  const channels = [...rails.keys()].sort((a, b) => a - b);
  if (channels.length < 3) return channels;
  const rowOf = new Map(channels.map((channel, row) => [channel, row]));
  const inner = new Map(); // node inside a block -> [[channel, |weight|], ...]
  for (const [source, target, weight] of data.edges) {
    for (const [node, other] of [[source, target], [target, source]]) {
      const site = data.nodes[other].site;
      if (!site || !/(act_in|resid_delta)$/.test(site)) continue;
      if (!inner.has(node)) inner.set(node, []);
      inner.get(node).push([data.nodes[other].index, Math.abs(weight ?? 1)]);
    }
  }
  const groups = new Map(); // the nodes of a head pull together
  for (const [node, joined] of inner) {
    const { layer, head } = data.nodes[node];
    const name = head === undefined ? node : `${layer}.h${head}`;
    groups.set(name, (groups.get(name) || []).concat(joined));
  }
  let best = channels;
  let least = Infinity;
  for (let round = 0; round < 40; round++) {
    const pull = new Map(channels.map((channel) => [channel, [rowOf.get(channel) * 0.05, 0.05]]));
    let length = 0;
    for (const joined of groups.values()) {
      let sum = 0;
      let weight = 0;
      for (const [channel, w] of joined) {
        sum += w * rowOf.get(channel);
        weight += w;
      }
      const centre = sum / (weight || 1);
      for (const [channel, w] of joined) {
        length += w * Math.abs(rowOf.get(channel) - centre);
        pull.get(channel)[0] += w * centre;
        pull.get(channel)[1] += w;
      }
    }
    const current = [...channels].sort((a, b) => rowOf.get(a) - rowOf.get(b));
    if (length < least) {
      least = length;
      best = current;
    }
    const value = (channel) => pull.get(channel)[0] / pull.get(channel)[1];
    [...channels]
      .sort((a, b) => value(a) - value(b) || a - b)
      .forEach((channel, row) => rowOf.set(channel, row));
  }
  return best;
};

// The height that a node inside a block would like.
viewer.wanted = function (i, railY, depth) {
  const { data } = viewer;
  let sum = 0;
  let weight = 0;
  for (const edge of [...viewer.reads[i], ...viewer.writes[i]]) {
    const [source, target, w] = data.edges[edge];
    const other = data.nodes[source === i ? target : source];
    const y = railY.get(other.index);
    if (y === undefined || other.head !== undefined) continue;
    sum += Math.abs(w ?? 1) * y;
    weight += Math.abs(w ?? 1);
  }
  return weight ? sum / weight : viewer.HEADER + depth / 2;
};

// Nodes that stand together: a head's q, k, v, or a node alone.
viewer.blocks = function (members, wanted) {
  const { data } = viewer;
  const sites = ["attn.q", "attn.k", "attn.v"];
  const groups = new Map();
  for (const i of members) {
    const node = data.nodes[i];
    const framed = node.kind === "node" && node.head !== undefined;
    const name = framed ? `${node.layer}.h${node.head}` : i;
    if (!groups.has(name)) {
      groups.set(name, { head: framed ? viewer.heads.get(name) : null, members: [] });
    }
    groups.get(name).members.push(i);
  }
  for (const block of groups.values()) {
    block.members.sort((a, b) => {
      const [p, q] = [data.nodes[a], data.nodes[b]];
      return sites.indexOf(p.site) - sites.indexOf(q.site) || p.index - q.index;
    });
    const heights = block.members.map(wanted);
    block.wanted = heights.reduce((sum, y) => sum + y, 0) / heights.length;
  }
  return [...groups.values()].sort((a, b) => a.wanted - b.wanted);
};

// Tops of blocks, one below another, as near to where they want to be as that allows.
viewer.pack = function (blocks, space, depth) {
  const size = (block) => block.members.length * space + (block.head ? 28 : 0);
  const clusters = [];
  for (const block of blocks) {
    let cluster = { blocks: [block], size: size(block), centre: block.wanted };
    cluster.weight = cluster.size;
    while (clusters.length) {
      const above = clusters[clusters.length - 1];
      if (above.centre + above.size / 2 <= cluster.centre - cluster.size / 2) break;
      clusters.pop();
      const weight = above.weight + cluster.weight;
      cluster = {
        blocks: [...above.blocks, ...cluster.blocks],
        size: above.size + cluster.size,
        centre: (above.centre * above.weight + cluster.centre * cluster.weight) / weight,
        weight,
      };
    }
    // Not above the first rail.
    cluster.centre = Math.max(cluster.centre, viewer.HEADER + cluster.size / 2);
    clusters.push(cluster);
  }
  let floor = viewer.HEADER;
  for (const cluster of clusters) {
    let top = Math.max(floor, cluster.centre - cluster.size / 2);
    for (const block of cluster.blocks) {
      block.top = top;
      top += size(block);
    }
    floor = top;
  }
  // What ran out at the bottom moves up, into the room that is left there.
  const needed = blocks.reduce((sum, block) => sum + size(block), 0);
  let ceiling = viewer.HEADER + Math.max(depth, needed);
  for (const block of [...blocks].reverse()) {
    block.top = Math.min(block.top, ceiling - size(block));
    ceiling = block.top;
  }
};
