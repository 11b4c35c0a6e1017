// Groups of nodes that the reader names ("supernodes"): a colour, a summary, what they send to each other,
// and a file that keeps them beside the circuit. A node is in one group at most.
"use strict";

viewer.GROUP_COLOURS = ["#b03a9b", "#00808a", "#a86a00", "#5a3fd0", "#2f7d1f", "#c22f4b", "#4a6a8a", "#7a5230"];
viewer.groups = viewer.data.groups.map(({ name, nodes }) => ({
  name, members: new Set(nodes.map((id) => viewer.byId.get(id)).filter((i) => i !== undefined)),
})).filter((group) => group.members.size);

viewer.groupOf = (i) => viewer.groups.find((group) => group.members.has(i)) || null;
viewer.groupColour = (group) => viewer.GROUP_COLOURS[viewer.groups.indexOf(group) % viewer.GROUP_COLOURS.length];

// Puts nodes into the group of a name, and out of any other; without a name into none.
viewer.regroup = function (places, name) {
  for (const group of viewer.groups) places.forEach((i) => group.members.delete(i));
  const text = name.trim().slice(0, 80);
  if (text) {
    let group = viewer.groups.find((other) => other.name === text);
    if (!group) {
      group = { name: text, members: new Set() };
      viewer.groups.push(group);
    }
    places.forEach((i) => group.members.add(i));
  }
  viewer.groups = viewer.groups.filter((group) => group.members.size);
  viewer.groupsChanged();
};

viewer.rename = function (group, name) {
  const text = name.trim().slice(0, 80);
  const other = viewer.groups.find((one) => one !== group && one.name === text);
  if (other) viewer.regroup([...group.members], text); // two of one name become one
  else if (text) group.name = text;
  viewer.groupsChanged();
};

viewer.groupsChanged = function () {
  viewer.markGroups();
  viewer.fill(document.getElementById("overview"), ...viewer.overviewPanel());
};

viewer.markGroups = function () {
  viewer.markOf.forEach((mark, i) => {
    const group = viewer.groupOf(i);
    mark.style.stroke = group ? viewer.groupColour(group) : "";
    mark.style.strokeWidth = group ? "3" : "";
  });
};

// What one node's panel offers: its group's name.
viewer.groupForm = function (places) {
  const { make } = viewer;
  const own = places.map(viewer.groupOf);
  const name = own[0] && own.every((group) => group === own[0]) ? own[0].name : "";
  const input = make("input", { type: "text", id: "group-name", maxlength: 80, list: "group-names", placeholder: "none" });
  input.value = name;
  input.addEventListener("change", () => viewer.regroup(places, input.value));
  const names = make("datalist", { id: "group-names" }, ...viewer.groups.map((group) => make("option", { value: group.name })));
  return make("p", { class: "grouping" }, make("label", { for: "group-name" }, "Group "), input, names);
};

// {[from]: {[to]: {edges, channels}}} between groups, by their places.
viewer.between = function () {
  const { data } = viewer;
  const place = new Map();
  viewer.groups.forEach((group, g) => group.members.forEach((i) => place.set(i, g)));
  const sent = new Map();
  const add = (source, target, kind) => {
    const [a, b] = [place.get(source), place.get(target)];
    if (a === undefined || b === undefined || a === b) return;
    const key = `${a} ${b}`;
    if (!sent.has(key)) sent.set(key, { from: a, to: b, edges: 0, channels: 0 });
    sent.get(key)[kind] += 1;
  };
  for (const [source, target] of data.edges) add(source, target, "edges");
  for (const { writers, readers } of viewer.rails.values()) {
    for (const w of writers) {
      for (const r of readers) {
        if (viewer.time(data.nodes[w]) < viewer.time(data.nodes[r])) add(w, r, "channels");
      }
    }
  }
  return [...sent.values()].sort((a, b) => a.from - b.from || a.to - b.to);
};

viewer.groupsText = () => JSON.stringify({
  format: "circuitjax-groups-1",
  circuit: viewer.data.hash,
  groups: viewer.groups.map((group) => ({
    name: group.name, nodes: [...group.members].sort((a, b) => a - b).map((i) => viewer.data.nodes[i].id),
  })),
}, null, 1);

viewer.saveGroups = function () {
  const address = URL.createObjectURL(new Blob([viewer.groupsText()], { type: "application/json" }));
  const link = viewer.make("a", { href: address, download: "groups.json" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
};

viewer.groupsPanel = function () {
  const { make, data } = viewer;
  const hint = "Select a node or a head, write a name under Group, and it is in a group of that name.";
  if (!viewer.groups.length) return viewer.section("Groups", make("p", { class: "soft" }, hint));
  const effect = (group) => [...group.members].reduce((sum, i) => sum + (data.nodes[i].effect || 0), 0);
  const row = (group) => {
    const input = make("input", { type: "text", class: "group", maxlength: 80, "aria-label": "Name of the group" });
    input.value = group.name;
    input.addEventListener("change", () => viewer.rename(group, input.value));
    const swatch = make("span", { class: "swatch" });
    swatch.style.backgroundColor = viewer.groupColour(group);
    return make("tr", {}, make("td", {}, swatch, input),
      make("td", { class: "num" }, String(group.members.size)),
      make("td", { class: "num" }, viewer.hasEffects ? viewer.number(effect(group), true) : "–"),
      make("td", {}, make("button", { type: "button", onclick: () => viewer.regroup([...group.members], "") }, "Remove")));
  };
  const links = viewer.between().map(({ from, to, edges, channels }) => {
    const ways = [edges ? `${edges} edges` : "", channels ? `${channels} links of a residual channel` : ""];
    return make("li", {}, `${viewer.groups[from].name} → ${viewer.groups[to].name}: ${ways.filter(Boolean).join(", ")}`);
  });
  return viewer.section("Groups",
    make("table", { class: "groups" },
      make("thead", {}, make("tr", {}, ...["name", "nodes", "effects, nats, summed", ""].map((name, i) =>
        make("th", { class: i === 1 || i === 2 ? "num" : null }, name)))),
      make("tbody", {}, ...viewer.groups.map(row))),
    links.length ? make("ul", { class: "links" }, ...links) : null,
    make("p", { class: "actions" }, make("button", { type: "button", id: "save-groups", onclick: viewer.saveGroups }, "Save groups.json")),
    make("p", { class: "soft" }, "Keep it: circuitjax view --run=... --groups=groups.json puts it beside the circuit, and every later page has the groups."),
    make("details", {}, make("summary", {}, "As text"), make("pre", { class: "small", id: "groups-text" }, viewer.groupsText())));
};
