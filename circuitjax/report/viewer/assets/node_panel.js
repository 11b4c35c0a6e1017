// What a node is: effect, reads, writes, nearest tokens, contexts, prompts.
"use strict";

viewer.section = (title, ...content) =>
  viewer.make("section", {}, viewer.make("h3", {}, title), ...content);

// A button that opens a node.
viewer.link = function (i, text) {
  const node = viewer.data.nodes[i];
  return viewer.make("button", {
    type: "button", class: "link", title: viewer.words(node),
    onclick: () => viewer.go({ node: i }),
  }, text || node.id);
};

// A bar from the middle to the right (above zero) or left (below).
viewer.bar = function (value, most) {
  const { make } = viewer;
  const share = most ? Math.min(1, Math.abs(value) / most) : 0;
  const fill = make("span", { class: value < 0 ? "fill below" : "fill" });
  fill.style.width = `${(share * 50).toFixed(1)}%`;
  return make("span", { class: "bar", "aria-hidden": "true" }, fill);
};

const FIRST_ROWS = 12;

// Rows of edges, the heaviest first; a long list opens on demand.
viewer.edgeTable = function (edges, end) {
  const { make, data } = viewer;
  if (!edges.length) return make("p", { class: "soft" }, "None.");
  const row = (edge) => {
    const [, , weight, port] = data.edges[edge];
    const node = viewer.link(data.edges[edge][end]);
    const first = make("td", {}, node, port ? ` as ${port}` : null);
    if (weight === null) return make("tr", {}, first);
    return make("tr", {}, first, make("td", { class: "num" }, viewer.number(weight, true)),
      make("td", {}, viewer.bar(weight, viewer.maxWeight)));
  };
  const body = make("tbody", {}, ...edges.slice(0, FIRST_ROWS).map(row));
  const table = make("table", { class: "edges" }, body);
  if (edges.length <= FIRST_ROWS) return table;
  const more = make("button", {
    type: "button", class: "more",
    onclick: () => {
      body.append(...edges.slice(FIRST_ROWS).map(row));
      more.remove();
    },
  }, `show all ${edges.length}`);
  return make("div", {}, table, more);
};

viewer.linkList = function (list, first) {
  const { make } = viewer;
  const items = list.map((i) => make("li", {}, viewer.link(i)));
  return make("ul", { class: "links" }, first ? make("li", {}, first) : null, ...items);
};

// Reads and writes of a node on the residual stream: its channel's other ends.
viewer.streamReads = function (i) {
  const node = viewer.data.nodes[i];
  const before = viewer.rails.get(node.index).writers.filter(
    (w) => viewer.time(viewer.data.nodes[w]) < viewer.time(node));
  const source = node.index < viewer.data.model.d_model ? "token embedding" : "position";
  return viewer.linkList(before, source);
};
viewer.streamWrites = function (i) {
  const node = viewer.data.nodes[i];
  const after = viewer.rails.get(node.index).readers.filter(
    (r) => viewer.time(viewer.data.nodes[r]) > viewer.time(node));
  return viewer.linkList(after, "logits");
};

viewer.tokenTable = function (tokens) {
  const { make } = viewer;
  if (!tokens || !tokens.length) return make("p", { class: "soft" }, "None.");
  const most = Math.max(...tokens.map(([, weight]) => Math.abs(weight)));
  return make("table", { class: "tokens" }, make("tbody", {}, ...tokens.map(([id, weight]) =>
    make("tr", {}, make("td", {}, make("code", { title: `token ${id}` },
      viewer.clip(viewer.visible(viewer.tokenText(id)), 13))),
    make("td", { class: "num" }, viewer.number(weight, true)),
    make("td", {}, viewer.bar(weight, most))))));
};

viewer.effectSection = function (i) {
  const { make, data } = viewer;
  const node = data.nodes[i];
  if (typeof node.effect !== "number") return null;
  const held = data.ablation ? ` by its ${data.ablation === "mean" ? "mean" : "replacement"}` : "";
  const count = viewer.rank.size;
  return viewer.section("Effect when replaced",
    make("p", { class: "effect" },
      make("b", { id: "node-effect" }, `${viewer.number(node.effect, true)} nats`),
      ` — loss ${viewer.number(data.loss)} → ${viewer.number(data.loss + node.effect)} when replaced${held}; `,
      `number ${viewer.rank.get(i)} of ${count} by size, on ${data.effect_pairs} test pairs.`),
    viewer.wideBar(node.effect));
};

// The effect as a share of the largest one.
viewer.wideBar = function (effect) {
  const bar = viewer.bar(effect, viewer.maxEffect);
  bar.classList.add("wide");
  bar.firstChild.style.width = `${Math.min(100, (100 * Math.abs(effect)) / (viewer.maxEffect || 1)).toFixed(1)}%`;
  return bar;
};

viewer.pushText = function (node) {
  const { data, make } = viewer;
  if (typeof node.push !== "number" || !data.answers || node.push === 0) return null;
  const [right, wrong] = data.answers.map((id) => viewer.visible(viewer.tokenText(id)));
  const [up, down] = node.push > 0 ? [right, wrong] : [wrong, right];
  return make("p", {}, "Straight to the answer, one unit pushes ", make("code", {}, up), " over ",
    make("code", {}, down), ` by ${viewer.number(Math.abs(node.push))} nats, before the last norm.`);
};

viewer.nodePanel = function (i) {
  const { make, data } = viewer;
  const node = data.nodes[i];
  const stream = node.site && /(act_in|resid_delta)$/.test(node.site);
  const reads = stream && node.site.endsWith("act_in")
    ? [make("p", { class: "soft" }, `Normalised ${viewer.channel(node.index)}, written by`), viewer.streamReads(i)]
    : [viewer.edgeTable(viewer.reads[i], 0)];
  const writes = stream && node.site.endsWith("resid_delta")
    ? [make("p", { class: "soft" }, `Added to ${viewer.channel(node.index)}, read by`), viewer.streamWrites(i)]
    : [viewer.edgeTable(viewer.writes[i], 1)];
  if (node.site === "attn.q" || node.site === "attn.k") {
    writes.splice(0, 1, make("p", { class: "soft" }, "Its products with ",
      node.site === "attn.q" ? "keys" : "queries", " decide where the head looks: ",
      make("button", { type: "button", class: "link", onclick: () => viewer.go({ head: `${node.layer}.h${node.head}` }) },
        `pattern of ${node.layer}.h${node.head}`)));
  }
  const contexts = viewer.contextsOf(i);
  const prompts = viewer.promptsOf(i);
  const named = node.embed && (node.embed.length || node.unembed.length);
  const inHead = node.kind === "node" && node.head !== undefined;
  return [
    make("h2", { class: "mono" }, node.id),
    make("p", { class: "soft" }, viewer.words(node)),
    make("p", { class: "actions" },
      make("button", { type: "button", onclick: () => viewer.centre({ node: i }) }, "Centre in the graph"),
      inHead ? make("button", { type: "button", onclick: () => viewer.go({ head: `${node.layer}.h${node.head}` }) },
        `Head ${node.layer}.h${node.head}`) : null),
    viewer.groupForm([i]),
    viewer.effectSection(i),
    make("div", { class: "two" }, viewer.section("Reads", ...reads), viewer.section("Writes", ...writes)),
    named ? make("div", { class: "two" },
      viewer.section("Embedding tokens", viewer.tokenTable(node.embed)),
      viewer.section("Unembedding tokens", viewer.tokenTable(node.unembed))) : null,
    viewer.pushText(node),
    prompts ? viewer.section("On the task's prompts", ...prompts) : null,
    contexts ? viewer.section("Contexts", ...contexts) : null,
    prompts || contexts || node.kind !== "node" ? null
      : make("p", { class: "soft" }, data.note || "Of a circuit this large, only the nodes of largest effect carry contexts."),
  ];
};
