// Why a head looks where it does: a score is a sum over the head's channels, query times key. What counts
// is not the score but how far it lies above the scores of the other tokens that are seen.
"use strict";

viewer.MOST_CHANNELS = 10;

// A form of two tokens, and the channels' shares of the score between them.
viewer.why = function (row, head, shown) {
  const { make, data } = viewer;
  const { attention } = data;
  if (!attention.products) return make("p", { class: "soft" }, `No channels: ${attention.why_no_products}.`);
  const tokens = attention.tokens[shown.side];
  const last = attention.last[shown.side];
  const size = attention.model.shape[2];
  const word = (i) => `${i} ${viewer.clip(viewer.visible(viewer.tokenText(tokens[i])), 12)}`;
  const most = (q) => viewer.patternRow(row, shown, q).reduce((best, x, k, all) => (x > all[best] ? k : best), 0);
  if (!(shown.q <= last)) shown.q = last;
  if (!(shown.k <= shown.q)) shown.k = most(shown.q);
  const body = make("div", { class: "why" });
  const pick = (field, text) => {
    const select = make("select", { "aria-label": text });
    const count = field === "q" ? last + 1 : shown.q + 1;
    for (let i = 0; i < count; i++) {
      const option = make("option", { value: i }, word(i));
      option.selected = i === shown[field];
      select.append(option);
    }
    select.addEventListener("change", () => {
      shown[field] = Number(select.value);
      if (field === "q") shown.k = most(shown.q);
      draw();
    });
    return make("label", {}, `${text} `, select);
  };
  const draw = () => {
    const parts = viewer.scoreParts(row, shown, size);
    const share = viewer.patternRow(row, shown, shown.q)[shown.k];
    const sum = (name) => parts.reduce((total, part) => total + part[name], 0);
    const best = [...parts].sort((a, b) => Math.abs(b.above) - Math.abs(a.above));
    const listed = best.slice(0, viewer.MOST_CHANNELS).filter((part) => part.above !== 0);
    const others = best.slice(listed.length).reduce((total, part) => total + part.above, 0);
    const widest = Math.max(...parts.map((part) => Math.abs(part.above)), 1e-9);
    const cell = (value) => make("td", { class: "num" }, viewer.number(value, true));
    const rows = listed.map((part) => make("tr", {},
      make("td", {}, viewer.channelLink(head, "q", part.channel), " · ", viewer.channelLink(head, "k", part.channel)),
      cell(part.query), cell(part.key), cell(part.above), make("td", {}, viewer.bar(part.above, widest))));
    const names = ["query and key", "query", "key", "above mean"];
    viewer.fill(body,
      make("div", { class: "choices" }, pick("q", "Query token"), pick("k", "key token")),
      make("p", { class: "verdict" }, `Attention ${viewer.number(share)}; score ${viewer.number(sum("score"), true)}, `,
        make("b", {}, `${viewer.number(sum("above"), true)} nats`), " above the mean of what the token sees."),
      make("table", { class: "edges" },
        make("thead", {}, make("tr", {}, ...names.map((name, i) => make("th", { class: i ? "num" : null }, name)), make("th", {}))),
        make("tbody", {}, ...rows, make("tr", { class: "soft" }, make("td", {}, "all other channels"),
          make("td", {}), make("td", {}), cell(others), make("td", {})))),
      make("p", { class: "soft" }, "Above mean: the channel's product minus its mean over the tokens that are seen, in nats of the score. " +
        "A channel that is not linked is no node of the circuit."));
  };
  viewer.redrawWhy = draw;
  draw();
  return body;
};

// How much of each key a query looks at, from the pattern.
viewer.patternRow = function (row, shown, q) {
  const packed = viewer.unpackOnce(viewer.data.attention, shown.run);
  const size = packed.shape[2];
  const start = ((row * 2 + shown.side) * size + q) * size;
  return Array.from(packed.values.slice(start, start + q + 1), (x) => x / 255);
};

// [{channel, query, key, score, above}] of one query and one key token.
viewer.scoreParts = function (row, shown, size) {
  const { products } = viewer.data.attention;
  const run = products[shown.run];
  const [queries, keys] = ["q", "k"].map((name) => viewer.unpackOnce(run, name));
  const width = queries.shape[3];
  const value = (packed, position, c) =>
    (packed.values[((row * 2 + shown.side) * size + position) * width + c] / 127) * packed.scale[row];
  const parts = [];
  for (let c = 0; c < width; c++) {
    const query = value(queries, shown.q, c);
    let mean = 0;
    for (let k = 0; k <= shown.q; k++) mean += (products.scale * query * value(keys, k, c)) / (shown.q + 1);
    const key = value(keys, shown.k, c);
    const score = products.scale * query * key;
    parts.push({ channel: c, query, key, score, above: score - mean });
  }
  return parts;
};

// The node of a head's channel, or its name alone where the circuit does not keep it.
viewer.channelLink = function ({ layer, head }, kind, channel) {
  const shared = viewer.data.model.queries_per_key;
  const owner = kind === "q" ? head : Math.floor(head / shared);
  const name = `${layer}.attn.${kind}.h${owner}.c${channel}`;
  const place = viewer.byId.get(name);
  return place === undefined ? viewer.make("span", { class: "mono soft small" }, `${kind}${channel}`)
    : viewer.link(place, `${kind}${channel}`);
};
