// What part of the drawing is seen: zoom and pan by d3, and moving to a thing.
"use strict";

viewer.measure = function () {
  const box = document.getElementById("graph").getBoundingClientRect();
  viewer.size = { width: Math.max(200, box.width), height: Math.max(200, box.height) };
};

// One picture per frame, however many events there were.
viewer.redraw = function () {
  if (viewer.pending) return;
  viewer.pending = true;
  requestAnimationFrame(() => {
    viewer.pending = false;
    if (viewer.canStretch()) viewer.stretch();
    else viewer.draw();
  });
};

viewer.arrange = function () {
  viewer.measure();
  viewer.drawnView = null;
  viewer.place = viewer.layout(viewer.size.width, viewer.size.height);
  viewer.current = null;
  viewer.buildMarks();
  viewer.applyFilters();
  viewer.showSelection();
  viewer.fit(false);
};

viewer.startView = function () {
  let rest = 0;
  viewer.zoom = d3.zoom().scaleExtent([0.05, 12]).on("zoom", (event) => {
    viewer.view = event.transform;
    viewer.moving = true;
    clearTimeout(rest);
    rest = setTimeout(() => {
      viewer.moving = false;
      viewer.redraw();
    }, 140);
    viewer.redraw();
  });
  // On the frame around the picture: the picture itself is stretched under the pointer.
  const graph = document.getElementById("graph");
  viewer.zoom.filter((event) => viewer.stage.contains(event.target) && !event.button);
  viewer.zoomed = d3.select(graph).call(viewer.zoom).on("dblclick.zoom", null);
};

const still = () => window.matchMedia("(prefers-reduced-motion: reduce)").matches;

viewer.moveTo = function (transform, gently) {
  const target = gently && !still() ? viewer.zoomed.transition().duration(300) : viewer.zoomed;
  target.call(viewer.zoom.transform, transform);
};

viewer.fit = function (gently = true) {
  const { place, size } = viewer;
  const k = Math.min(1.4, (size.width - 24) / place.width, (size.height - 50) / (place.height - 34));
  const x = (size.width - place.width * k) / 2;
  const y = Math.max(34 - viewer.HEADER * k + 6, (size.height - place.height * k) / 2 - 4);
  viewer.moveTo(d3.zoomIdentity.translate(x, y).scale(k), gently);
};

viewer.zoomBy = function (factor) {
  const target = still() ? viewer.zoomed : viewer.zoomed.transition().duration(200);
  target.call(viewer.zoom.scaleBy, factor);
};

viewer.spot = function (item) {
  if (item.head === undefined) return [viewer.place.x[item.node], viewer.place.y[item.node]];
  const box = viewer.place.boxes.find((other) => other.name === item.head);
  return [box.x + box.width / 2, box.y + box.height / 2];
};

viewer.centre = function (item) {
  const [x, y] = viewer.spot(item);
  // Near enough to read labels, but not farther away than it is now.
  const k = Math.max(viewer.view.k, Math.min(2.2, 15 / viewer.place.gap));
  const { width, height } = viewer.size;
  const { place } = viewer;
  // What lies at the border need not come to the middle if that would show emptiness.
  const within = (shift, low, high) => (low > high ? shift : Math.min(high, Math.max(low, shift)));
  viewer.moveTo(d3.zoomIdentity.translate(
    within(width / 2 - x * k, width - place.width * k - 10, 10),
    within(height / 2 - y * k, height - place.height * k - 30, 44 - viewer.HEADER * k)).scale(k), true);
};

// Moves the view only if the thing lies outside it.
viewer.reveal = function (item) {
  const [x, y] = viewer.spot(item);
  const [sx, sy] = [x * viewer.view.k + viewer.view.x, y * viewer.view.k + viewer.view.y];
  const { width, height } = viewer.size;
  if (sx > 20 && sy > 50 && sx < width - 20 && sy < height - 20) return;
  viewer.moveTo(d3.zoomIdentity.translate(width / 2 - x * viewer.view.k, height / 2 - y * viewer.view.k)
    .scale(viewer.view.k), true);
};
