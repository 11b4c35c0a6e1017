// Search by address: a combobox. Parts may stand apart: "3 q h5" finds 3.attn.q.h5.c12.
"use strict";

viewer.MOST_FOUND = 40;

viewer.matches = function (text) {
  const parts = text.toLowerCase().split(/[\s]+/).filter(Boolean);
  if (!parts.length) return [];
  const names = viewer.data.nodes.map((node, i) => [node.id.toLowerCase(), { node: i }]);
  for (const name of viewer.heads.keys()) {
    if (viewer.boxOf.has(name)) names.push([`${name} head`, { head: name }]);
  }
  const hits = names.filter(([name]) => parts.every((part) => name.includes(part)));
  // Whole names first, then those that begin so, then larger effects.
  const worth = ([name, item]) => {
    const effect = item.node === undefined ? 0 : Math.abs(viewer.data.nodes[item.node].effect || 0);
    return (name === parts[0] ? 1e6 : 0) + (name.startsWith(parts[0]) ? 1e3 : 0) + effect;
  };
  return hits.sort((a, b) => worth(b) - worth(a)).map(([, item]) => item);
};

viewer.startSearch = function () {
  const { make } = viewer;
  const input = document.getElementById("search");
  const list = document.getElementById("found");
  let found = [];
  let active = -1;
  const close = () => {
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
    active = -1;
  };
  const mark = (index) => {
    active = index;
    [...list.children].forEach((item, i) => item.setAttribute("aria-selected", String(i === index)));
    if (index < 0) return;
    input.setAttribute("aria-activedescendant", `found-${index}`);
    list.children[index].scrollIntoView({ block: "nearest" });
  };
  const take = (index) => {
    const item = found[index];
    if (!item) return;
    close();
    input.value = item.head ?? viewer.data.nodes[item.node].id;
    viewer.go(item);
  };
  const open = () => {
    const all = viewer.matches(input.value);
    found = all.slice(0, viewer.MOST_FOUND);
    if (!input.value.trim()) return close();
    const options = found.map((item, i) => {
      const node = item.node === undefined ? null : viewer.data.nodes[item.node];
      const effect = node && typeof node.effect === "number" ? viewer.number(node.effect, true) : "";
      return make("li", { role: "option", id: `found-${i}`, "aria-selected": "false",
        onpointerdown: (event) => { event.preventDefault(); take(i); } },
      make("span", { class: "mono" }, node ? node.id : `${item.head} (head)`),
      make("span", { class: "soft" }, effect));
    });
    const rest = all.length - found.length;
    const tail = !all.length ? "no such node in the circuit" : rest > 0 ? `and ${rest} more` : "";
    viewer.fill(list, ...options, tail ? make("li", { class: "soft", "aria-disabled": "true" }, tail) : null);
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    mark(found.length ? 0 : -1);
  };
  input.addEventListener("input", open);
  input.addEventListener("focus", () => input.value && open());
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (list.hidden) return open();
      if (found.length) mark((active + (event.key === "ArrowDown" ? 1 : found.length - 1)) % found.length);
    } else if (event.key === "Enter") {
      event.preventDefault();
      take(Math.max(active, 0));
    } else if (event.key === "Escape") {
      close();
      event.stopPropagation();
    }
  });
};
