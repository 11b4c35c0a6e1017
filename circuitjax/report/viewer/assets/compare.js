// This circuit beside another of the same model: what both keep, and what each keeps alone.
"use strict";

viewer.MOST_LISTED = 200;
viewer.shared = new Set(viewer.data.compared ? viewer.data.compared.shared : []);
viewer.compareChoice = "all";

// Whether a node is shown under the choice made below.
viewer.isCompared = function (i) {
  if (!viewer.data.compared || viewer.compareChoice === "all") return true;
  return viewer.shared.has(i) === (viewer.compareChoice === "both");
};

viewer.comparePanel = function () {
  const { make, data } = viewer;
  const { compared } = data;
  if (!compared) return null;
  const names = ["", "in both", "in this one alone", "in the other alone"];
  const row = (name, counts) => make("tr", {}, make("th", { scope: "row" }, name),
    ...counts.map((count) => make("td", { class: "num" }, count.toLocaleString("en"))));
  const choice = (value, text) => {
    const input = make("input", { type: "radio", name: "compare", value });
    input.checked = value === viewer.compareChoice;
    input.addEventListener("change", () => {
      viewer.compareChoice = value;
      viewer.applyFilters();
    });
    return make("label", {}, input, ` ${text}`);
  };
  const listed = compared.missing.slice(0, viewer.MOST_LISTED);
  const more = compared.nodes[2] - listed.length;
  return viewer.section(`Compared with ${compared.title}, ${compared.ablation || "no"} ablation`,
    make("table", { class: "compared" },
      make("thead", {}, make("tr", {}, ...names.map((name) => make("th", { class: "num", scope: "col" }, name)))),
      make("tbody", {}, row("nodes", compared.nodes), row("edges", compared.edges))),
    make("fieldset", { class: "choice" }, make("legend", {}, "Show"),
      choice("all", "all"), choice("both", "in both"), choice("alone", "in this one alone")),
    make("p", { class: "soft" }, "Nodes that the other circuit lacks have a heavy blue outline."),
    listed.length ? make("details", {}, make("summary", {}, "Nodes of the other circuit alone"),
      make("p", { class: "mono small" }, `${listed.join("  ")}${more > 0 ? `  and ${more} more` : ""}`)) : null);
};

viewer.markCompared = function () {
  if (!viewer.data.compared) return;
  viewer.markOf.forEach((mark, i) => mark.classList.toggle("alone", !viewer.shared.has(i)));
};
