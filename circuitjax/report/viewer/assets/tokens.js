// Tokens as heatmaps: the shade says how large an activation is, blue above zero and orange below it;
// below zero a token is underlined with dots too. The place a context was chosen for is framed.
"use strict";

viewer.tokenSpan = function (id, share, title, peak) {
  const text = viewer.visible(viewer.tokenText(id));
  const span = viewer.make("span", { class: `tok${share < -0.04 ? " below" : ""}${peak ? " peak" : ""}`, title }, text);
  const strength = Math.min(1, Math.abs(share));
  if (strength > 0.02) {
    const [r, g, b] = share > 0 ? [11, 98, 164] : [196, 80, 10];
    span.style.backgroundColor = `rgba(${r},${g},${b},${(0.08 + 0.72 * strength).toFixed(3)})`;
    if (strength > 0.62) span.style.color = "#fff";
  }
  return span;
};

// A line of tokens with their activations. `values` are 127ths of `scale`.
viewer.heatLine = function (ids, values, scale, peak) {
  const line = viewer.make("div", { class: "heat" });
  ids.forEach((id, i) => {
    const share = values[i] / 127;
    const title = `${viewer.visible(viewer.tokenText(id))}  ${viewer.number(share * scale, true)}`;
    line.append(viewer.tokenSpan(id, share, title, i === peak));
  });
  return line;
};

// Place in a packed array of chosen nodes, or -1.
viewer.chosen = function (part, i) {
  if (!part.indexOf) {
    part.indexOf = new Map();
    viewer.unpack(part.nodes).values.forEach((node, row) => part.indexOf.set(node, row));
  }
  return part.indexOf.get(i) ?? -1;
};

viewer.unpackOnce = function (part, name) {
  part.unpacked ||= {};
  part.unpacked[name] ||= viewer.unpack(part[name]);
  return part.unpacked[name];
};

viewer.contextsOf = function (i) {
  const part = viewer.data.contexts;
  const row = part ? viewer.chosen(part, i) : -1;
  if (row < 0) return null;
  const { make } = viewer;
  const rows = viewer.unpackOnce(part, "rows");
  const places = viewer.unpackOnce(part, "places");
  const values = viewer.unpackOnce(part, "values");
  const length = rows.shape[1];
  const [, , ends, window] = values.shape;
  const scale = values.scale[row];
  const groups = ["Highest", "Lowest"].map((title, side) => {
    const lines = [];
    for (let e = 0; e < ends; e++) {
      const at = places.values[(row * 2 + side) * ends + e];
      const [text, position] = [Math.floor(at / length), at % length];
      const start = Math.max(0, Math.min(position - part.before, length - window));
      const stop = Math.min(start + window, part.lengths[text]);
      const offset = ((row * 2 + side) * ends + e) * window;
      const ids = [...rows.values.slice(text * length + start, text * length + stop)];
      const acts = values.values.slice(offset, offset + ids.length);
      const peak = position - start;
      lines.push(
        make("li", {},
          make("span", { class: "act" }, viewer.number((acts[peak] / 127) * scale, true)),
          viewer.heatLine(ids, acts, scale, peak)));
    }
    return [make("h4", {}, `${title} activations`), make("ol", { class: "contexts" }, ...lines)];
  });
  const flat = groups.flat();
  if (scale === 0) return [make("p", { class: "soft" }, "It is zero on all of this text.")];
  return [...flat, make("p", { class: "soft" }, `In the whole model, on ${rows.shape[0]} rows of ${part.source}.`)];
};

// How sure the circuit is of the right completion, from its calibrated logit difference.
viewer.preference = (nats) =>
  nats > 0 ? ` preferred by ${viewer.number(nats)} nats` : ` not preferred (${viewer.number(nats)} nats)`;

viewer.promptsOf = function (i) {
  const part = viewer.data.prompts;
  const row = part ? viewer.chosen(part, i) : -1;
  if (row < 0) return null;
  const { make } = viewer;
  const tokens = viewer.unpackOnce(part, "tokens");
  const values = viewer.unpackOnce(part, "values");
  const [pairs, , length] = tokens.shape;
  const scale = values.scale[row];
  const lines = [];
  for (let p = 0; p < pairs; p++) {
    for (let side = 0; side < 2; side++) {
      const end = part.last[p][side] + 1;
      const start = (p * 2 + side) * length;
      const ids = [...tokens.values.slice(start, start + end)];
      const offset = row * pairs * 2 * length + start;
      const acts = values.values.slice(offset, offset + end);
      const answer = viewer.visible(viewer.tokenText(part.answers[p][side]));
      lines.push(
        make("li", { class: side ? "negative" : "positive" },
          make("span", { class: "act", title: `the ${side ? "negative" : "positive"} prompt of pair ${p + 1}` },
            side ? "neg" : "pos"),
          make("div", {},
            viewer.heatLine(ids, acts, scale, -1),
            make("span", { class: "answer" }, "→ ", make("code", {}, answer),
              viewer.preference(part.differences[p][side] * (side ? -1 : 1))))));
    }
  }
  if (scale === 0) return [make("p", { class: "soft" }, "It is zero on all of them.")];
  const [positive, negative] = part.final[row];
  const summary = make("p", {},
    "At the last token, mean ± deviation over ", String(part.pairs), " pairs: positive ",
    make("b", {}, `${viewer.number(positive[0], true)} ± ${viewer.number(positive[1])}`),
    ", negative ",
    make("b", {}, `${viewer.number(negative[0], true)} ± ${viewer.number(negative[1])}`),
    ". Anywhere in the two prompts of a pair, they differ by at most ",
    make("b", {}, viewer.number(part.apart[row])), " on average.");
  return [summary, make("ol", { class: "contexts prompts" }, ...lines),
    make("p", { class: "soft" }, `In the circuit. Full shade is ${viewer.number(scale)}.`)];
};
