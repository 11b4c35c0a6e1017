// Puts the page together: filters, selection, pointer, keys.
"use strict";

viewer.isShown = viewer.data.nodes.map(() => true);
viewer.leastWeight = 0;
viewer.leastEffect = 0;
viewer.selected = null;
viewer.hovered = null;
viewer.moving = false;
viewer.view = { x: 0, y: 0, k: 1 };
viewer.litEdges = [];
viewer.litRails = [];
viewer.litBatches = [];
viewer.canvas = document.getElementById("lines");
viewer.litCanvas = document.getElementById("lit");
viewer.headCanvas = document.getElementById("heads");
viewer.svg = document.getElementById("marks");
viewer.stage = document.getElementById("stage");

// Selection. An item is {node: place} or {head: name}.
viewer.same = (a, b) => Boolean(a && b) && a.node === b.node && a.head === b.head;

viewer.select = function (item) {
  viewer.selected = item ? { node: item.node, head: item.head } : null;
  viewer.hovered = null;
  viewer.showSelection();
  viewer.showDetails();
  viewer.rebuildLit();
  viewer.redraw();
};

// Selects something and brings it into view, with the keyboard's place on it.
viewer.go = function (item) {
  if (item.node !== undefined && !viewer.isShown[item.node]) viewer.clearFilters();
  const panel = document.getElementById("details");
  const inside = panel.contains(document.activeElement);
  viewer.select(item);
  if (inside) panel.focus({ preventScroll: true }); // the link that was followed is gone
  viewer.centre(item);
  const element = item.node === undefined ? viewer.boxOf.get(item.head) : viewer.markOf[item.node];
  const found = element && viewer.itemOf(element);
  if (found) viewer.setCurrent(found);
};

viewer.showSelection = function () {
  for (const marked of viewer.svg.querySelectorAll("[aria-pressed]")) marked.removeAttribute("aria-pressed");
  const { selected } = viewer;
  viewer.showRing(selected);
  if (!selected) return;
  const element = selected.node === undefined ? viewer.boxOf.get(selected.head) : viewer.markOf[selected.node];
  if (element) element.setAttribute("aria-pressed", "true");
};

viewer.showDetails = function () {
  const { make, selected } = viewer;
  const panel = document.getElementById("details");
  if (!selected) {
    viewer.fill(panel, make("p", { class: "soft" }, "Nothing is selected: click a node or a head's frame."));
    viewer.tab("overview");
    return;
  }
  const { kind } = selected.node === undefined ? {} : viewer.data.nodes[selected.node];
  const asHead = selected.head ?? (kind === "head" ? viewer.headName(selected.node) : null);
  viewer.fill(panel, ...(asHead ? viewer.headPanel(asHead) : viewer.nodePanel(selected.node)));
  panel.scrollTop = 0;
  viewer.tab("details");
};

viewer.headName = (i) => `${viewer.data.nodes[i].layer}.h${viewer.data.nodes[i].head}`;

viewer.tab = function (name) {
  for (const other of ["overview", "details"]) {
    const chosen = other === name;
    document.getElementById(other).hidden = !chosen;
    const tab = document.getElementById(`tab-${other}`);
    tab.setAttribute("aria-selected", String(chosen));
    tab.setAttribute("tabindex", chosen ? "0" : "-1");
  }
};

// Filters: a slider at p percent leaves out the smallest p percent, at 100 all but the largest.
viewer.fromSlider = function (value, sizes) {
  if (Number(value) === 0 || !sizes.length) return 0;
  return sizes[Math.min(sizes.length - 1, Math.floor((Number(value) / 100) * sizes.length))];
};

viewer.applyFilters = function () {
  const effect = document.getElementById("effect").value;
  const weight = document.getElementById("weight").value;
  viewer.leastEffect = viewer.fromSlider(effect, viewer.effectSizes);
  viewer.leastWeight = viewer.fromSlider(weight, viewer.weightSizes);
  document.getElementById("effect-value").textContent = `${viewer.number(viewer.leastEffect)} nats`;
  document.getElementById("weight-value").textContent = viewer.number(viewer.leastWeight);
  let count = 0;
  viewer.data.nodes.forEach((node, i) => {
    viewer.isShown[i] = !(Math.abs(node.effect ?? Infinity) < viewer.leastEffect) && viewer.isCompared(i);
    viewer.markOf[i].style.display = viewer.isShown[i] ? "" : "none";
    count += viewer.isShown[i];
  });
  for (const [name, box] of viewer.boxOf) {
    const members = viewer.heads.get(name).members.some((i) => viewer.isShown[i]);
    box.style.display = members ? "" : "none";
    box.nextSibling.style.display = members ? "" : "none";
  }
  viewer.shownNodes = count;
  viewer.orderMarks();
  viewer.rebuildLines();
  const nodes = viewer.data.nodes.length;
  const edges = viewer.data.edges.length;
  document.getElementById("shown").textContent = count === nodes && viewer.shownEdges.length === edges
    ? `${nodes.toLocaleString("en")} nodes, ${edges.toLocaleString("en")} edges`
    : `${count.toLocaleString("en")} of ${nodes.toLocaleString("en")} nodes, ` +
      `${viewer.shownEdges.length.toLocaleString("en")} of ${edges.toLocaleString("en")} edges shown`;
  viewer.redraw();
};

viewer.clearFilters = function () {
  document.getElementById("effect").value = "0";
  document.getElementById("weight").value = "0";
  viewer.compareChoice = "all";
  const all = document.querySelector("[name=compare][value=all]");
  if (all) all.checked = true;
  viewer.applyFilters();
};

viewer.startPointer = function () {
  const tip = document.getElementById("tip");
  const itemAt = (event) => {
    const mark = event.target.closest("[data-node],[data-head]");
    if (!mark) return null;
    return mark.dataset.node === undefined ? { head: mark.dataset.head } : { node: Number(mark.dataset.node) };
  };
  viewer.svg.addEventListener("click", (event) => {
    const item = itemAt(event);
    if (item) {
      const element = event.target.closest("[data-node],[data-head]");
      viewer.setCurrent(viewer.itemOf(element) || viewer.current);
      viewer.select(item);
    } else if (!event.defaultPrevented) viewer.select(null);
  });
  viewer.svg.addEventListener("pointermove", (event) => {
    const item = viewer.moving ? null : itemAt(event);
    if (item && item.node !== undefined) {
      tip.hidden = false;
      const node = viewer.data.nodes[item.node];
      const effect = typeof node.effect === "number" ? `effect ${viewer.number(node.effect, true)} nats` : "";
      const tokens = [...(node.embed || [])].slice(0, 4).map(([id]) => viewer.visible(viewer.tokenText(id)));
      viewer.fill(tip, viewer.make("b", { class: "mono" }, node.id), viewer.make("span", {}, viewer.words(node)),
        effect ? viewer.make("span", {}, effect) : null,
        tokens.length ? viewer.make("span", { class: "mono" }, tokens.join("  ")) : null);
      const box = document.getElementById("graph").getBoundingClientRect();
      const [x, y] = [event.clientX - box.left, event.clientY - box.top];
      tip.style.left = `${Math.min(x + 14, viewer.size.width - 250)}px`;
      tip.style.top = `${y > viewer.size.height - 110 ? y - 96 : y + 14}px`;
    } else tip.hidden = true;
    const hovered = item && !viewer.same(item, viewer.selected) ? item : null;
    if (!viewer.same(hovered, viewer.hovered) && (hovered || viewer.hovered)) {
      viewer.hovered = hovered;
      viewer.rebuildLit();
      viewer.redraw();
    }
  });
  viewer.svg.addEventListener("pointerleave", () => {
    tip.hidden = true;
    if (!viewer.hovered) return;
    viewer.hovered = null;
    viewer.rebuildLit();
    viewer.redraw();
  });
};

viewer.startKeys = function () {
  // Not on the SVG itself: a listener for focus there would make it a stop of its own for Tab.
  viewer.stage.addEventListener("keydown", viewer.keyOnMarks);
  viewer.stage.addEventListener("focusin", (event) => {
    const item = viewer.itemOf(event.target);
    if (item) viewer.setCurrent(item);
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.tagName === "SELECT" ||
      (event.target.tagName === "INPUT" && event.target.type === "text");
    if (event.key === "Escape") {
      const inside = document.getElementById("details").contains(document.activeElement);
      viewer.select(null);
      if (inside && viewer.current) viewer.current.element.focus({ preventScroll: true });
    }
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") {
      event.preventDefault();
      document.getElementById("search").focus();
    } else if (event.key === "+" || event.key === "=") viewer.zoomBy(1.4);
    else if (event.key === "-") viewer.zoomBy(1 / 1.4);
    else if (event.key === "0") viewer.fit();
  });
  const tabs = document.getElementById("tabs");
  tabs.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = event.target.id === "tab-overview" ? "details" : "overview";
    viewer.tab(other);
    document.getElementById(`tab-${other}`).focus();
  });
};

viewer.legend = function () {
  const { make } = viewer;
  const shape = (site, text) => make("li", {}, make("svg", { width: 18, height: 16, viewBox: "-1.6 -1.5 3.2 3" },
    make("path", { d: viewer.SHAPES[site], class: "node" })), ` ${text}`);
  const line = (kind, dash, text) => {
    const stroke = make("line", { x1: 0, x2: 30, y1: 6, y2: 6, "stroke-width": 2.4, "stroke-dasharray": dash });
    stroke.style.stroke = viewer.COLOURS[kind];
    return make("li", {}, make("svg", { width: 30, height: 12 }, stroke), ` ${text}`);
  };
  const nodes = viewer.data.grain === "edges" ? [] : [
    shape("attn.act_in", "read of a residual channel"), shape("attn.q", "query"), shape("attn.k", "key"),
    shape("attn.v", "value"), shape("mlp.post_act", "neuron"), shape("attn.resid_delta", "write to a residual channel")];
  const lines = viewer.data.grain === "edges" ? [line("neutral", "", "edge")] : [
    line("positive", "", "positive weight, wider for larger"), line("negative", "6 4", "negative weight, dashed"),
    line("carried", "", "residual channel that the circuit uses")];
  return [
    make("ul", { class: "keys" }, ...nodes, ...lines),
    viewer.hasEffects ? make("p", {}, "Darker and larger: more effect when replaced. Dotted outline: the circuit does better without it.") : null,
    make("p", {}, make("b", {}, "Keys: "), "Tab to the graph, arrows from node to node, Enter opens, Esc closes, / finds, + − 0 zoom. "),
  ];
};

viewer.start = function () {
  const { data } = viewer;
  document.getElementById("title").textContent = data.title;
  const { nodes, edges } = data.counts;
  const parts = [`${nodes.toLocaleString("en")} nodes`, `${edges.toLocaleString("en")} edges`];
  if (typeof data.loss === "number") parts.push(`loss ${viewer.number(data.loss)} nats on ${data.effect_pairs} of the test pairs`);
  document.getElementById("counts").textContent = parts.join(" · ");
  document.getElementById("search").placeholder = data.nodes[Math.floor(data.nodes.length / 3)].id;
  document.getElementById("effect-tool").hidden = !viewer.hasEffects;
  document.getElementById("weight-tool").hidden = !viewer.maxWeight;
  viewer.labelOrder = data.nodes.map((_, i) => i).sort(
    (a, b) => Math.abs(data.nodes[b].effect || 0) - Math.abs(data.nodes[a].effect || 0));
  viewer.fill(document.getElementById("overview"), ...viewer.overviewPanel());
  viewer.fill(document.getElementById("legend-body"), ...viewer.legend());
  viewer.startView();
  viewer.arrange();
  viewer.showDetails();
  viewer.startSearch();
  viewer.startPointer();
  viewer.startKeys();
  for (const name of ["effect", "weight"]) {
    document.getElementById(name).addEventListener("input", viewer.applyFilters);
  }
  document.getElementById("zoom-in").addEventListener("click", () => viewer.zoomBy(1.4));
  document.getElementById("zoom-out").addEventListener("click", () => viewer.zoomBy(1 / 1.4));
  document.getElementById("fit").addEventListener("click", () => viewer.fit());
  for (const name of ["overview", "details"]) {
    document.getElementById(`tab-${name}`).addEventListener("click", () => viewer.tab(name));
  }
  let settle = 0;
  window.addEventListener("resize", () => {
    clearTimeout(settle);
    settle = setTimeout(viewer.arrange, 120);
  });
  // The first picture is on the screen once the frame after it has begun.
  requestAnimationFrame(() => requestAnimationFrame(() => {
    viewer.openedAfter = performance.now();
    document.documentElement.dataset.ready = "yes";
  }));
};

viewer.start();
