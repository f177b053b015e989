"use strict";
// Sorting tables, turning loss surfaces, reading spectra. No library, no network.

function key(text) {
  const number = /^[^\d+\-−.]{0,2}([+\-−]?\d[\d,]*\.?\d*(?:e[+\-−]?\d+)?)/i.exec(text.trim());
  if (!number) return text.trim().toLowerCase();
  return parseFloat(number[1].replace(/−/g, "-").replace(/,/g, ""));
}

function sort(header) {
  const table = header.closest("table"), column = header.cellIndex;
  const rising = header.getAttribute("aria-sort") !== "ascending";
  for (const other of header.parentNode.children) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", rising ? "ascending" : "descending");
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => {
    const x = key(a.cells[column].textContent), y = key(b.cells[column].textContent);
    const mixed = typeof x !== typeof y;
    const order = mixed ? (typeof x === "number" ? -1 : 1) : x < y ? -1 : x > y ? 1 : 0;
    return mixed || rising ? order : -order;
  });
  table.tBodies[0].append(...rows);
}

for (const header of document.querySelectorAll("table thead th")) {
  header.firstElementChild.addEventListener("click", () => sort(header));
}

const data = JSON.parse(document.getElementById("data").textContent);
const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];

function color(share) {
  const at = Math.min(Math.max(share, 0), 1) * 4, low = Math.min(Math.floor(at), 3);
  const mix = VIRIDIS[low].map((v, i) => Math.round(v + (at - low) * (VIRIDIS[low + 1][i] - v)));
  return `rgb(${mix.join(",")})`;
}

function choice(place, names, draw) {
  const select = document.createElement("select");
  const label = document.createElement("label");
  label.textContent = "task ";
  for (const name of names) select.add(new Option(name, name));
  label.append(select);
  place.before(label);
  select.addEventListener("change", () => draw(select.value));
  draw(names[0]);
}

const view = { turn: 0.7, tilt: 0.95 };
let surfaces = [];

function project(x, y, z, size) {
  const c = Math.cos(view.turn), s = Math.sin(view.turn);
  const u = x * c - y * s, v = x * s + y * c;
  const h = v * Math.cos(view.tilt) - z * Math.sin(view.tilt);
  const depth = v * Math.sin(view.tilt) + z * Math.cos(view.tilt);
  return [size.w / 2 + u * size.k, size.h * 0.62 + h * size.k, depth];
}

function paint({ canvas, plane, low, high }) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
  canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
  const pen = canvas.getContext("2d"), n = plane.x.length, m = plane.y.length;
  const size = { w: canvas.width, h: canvas.height, k: canvas.height * 0.36 };
  const log = low > 0, scale = (v) => {
    if (v === null) return null;
    const share = log ? Math.log(v / low) / Math.log(high / low) : (v - low) / (high - low);
    return Math.min(Math.max(share, 0), 1.02);
  };
  const heights = plane.loss.map((row) => row.map(scale));
  const points = heights.map((row, j) => row.map((z, i) => z === null ? null : project(
    (2 * i) / (n - 1) - 1, (2 * j) / (m - 1) - 1, 1.1 * z - 0.4, size)));
  const faces = [];
  for (let j = 0; j + 1 < m; j++) for (let i = 0; i + 1 < n; i++) {
    const corners = [[j, i], [j, i + 1], [j + 1, i + 1], [j + 1, i]];
    if (corners.some(([a, b]) => points[a][b] === null)) continue;
    const z = corners.map(([a, b]) => heights[a][b]);
    if (Math.min(...z) > 1) continue; // above the loss of chance all around
    const mean = z.reduce((a, b) => a + b) / 4;
    faces.push({ shape: corners.map(([a, b]) => points[a][b]), mean });
  }
  faces.sort((a, b) => a.shape[0][2] + a.shape[2][2] - b.shape[0][2] - b.shape[2][2]);
  pen.clearRect(0, 0, size.w, size.h);
  pen.lineWidth = ratio * 0.6;
  for (const face of faces) {
    pen.beginPath();
    face.shape.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    pen.closePath();
    pen.fillStyle = face.mean > 1 ? "#d9d9d9" : color(face.mean);
    pen.fill();
    pen.strokeStyle = "rgba(255,255,255,.55)";
    pen.stroke();
  }
  canvas.dataset.faces = faces.length;
}

function turn(canvas) {
  let last = null;
  canvas.addEventListener("pointerdown", (e) => {
    last = [e.clientX, e.clientY];
    canvas.setPointerCapture(e.pointerId);
  });
  canvas.addEventListener("pointerup", () => { last = null; });
  canvas.addEventListener("pointermove", (e) => {
    if (!last) return;
    view.turn += (e.clientX - last[0]) * 0.01;
    view.tilt = Math.min(Math.max(view.tilt + (e.clientY - last[1]) * 0.006, 0.15), 1.45);
    last = [e.clientX, e.clientY];
    surfaces.forEach(paint);
  });
  canvas.addEventListener("keydown", (e) => {
    const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.08], ArrowDown: [0, 0.08] }[e.key];
    if (!step) return;
    e.preventDefault();
    view.turn += step[0];
    view.tilt = Math.min(Math.max(view.tilt + step[1], 0.15), 1.45);
    surfaces.forEach(paint);
  });
}

const surfacePlace = document.getElementById("surface");
if (surfacePlace && Object.keys(data.surfaces).length) {
  choice(surfacePlace, Object.keys(data.surfaces), (task) => {
    surfacePlace.replaceChildren();
    const { low, high, planes } = data.surfaces[task];
    surfaces = Object.entries(planes).map(([name, plane]) => {
      const figure = document.createElement("figure"), canvas = document.createElement("canvas");
      const caption = document.createElement("figcaption");
      canvas.tabIndex = 0;
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `Loss surface of ${task} under ${name}; arrow keys turn it`);
      caption.textContent = `${name}: loss ${plane.center} at the checkpoint; the surface ends at ${data.format[task]}`;
      figure.append(canvas, caption);
      surfacePlace.append(figure);
      turn(canvas);
      return { canvas, plane, low, high };
    });
    surfaces.forEach(paint);
  });
  window.addEventListener("resize", () => surfaces.forEach(paint));
}

function node(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [k, v] of Object.entries(attributes)) made.setAttribute(k, v);
  if (text !== undefined) made.textContent = text;
  return made;
}

const spectrumPlace = document.getElementById("spectrum");
if (spectrumPlace && Object.keys(data.spectra).length) {
  choice(spectrumPlace, Object.keys(data.spectra), (task) => {
    const series = data.spectra[task];
    const all = Object.values(series).flatMap((s) => s.pairs).filter((p) => p.value !== 0);
    const sizes = all.map((p) => Math.abs(p.value));
    const low = Math.log10(Math.min(...sizes)) - 0.2, high = Math.log10(Math.max(...sizes)) + 0.2;
    const count = Math.max(...Object.values(series).map((s) => s.pairs.length));
    const X = (i) => 60 + (i * 560) / Math.max(count - 1, 1), Y = (v) => 280 - ((v - low) / (high - low)) * 250;
    const svg = node("svg", { viewBox: "0 0 660 330", role: "img", "aria-label": `Leading eigenvalues of ${task}` });
    for (let d = Math.ceil(low); d <= high; d++) {
      svg.append(node("line", { x1: 60, x2: 630, y1: Y(d), y2: Y(d), stroke: "#e4e4e4" }),
        node("text", { x: 52, y: Y(d) + 4, "text-anchor": "end", "font-size": 12 }, Number((10 ** d).toPrecision(3))));
    }
    svg.append(node("text", { x: 345, y: 322, "text-anchor": "middle", "font-size": 13 }, "eigenvalue, largest first"));
    Object.entries(series).forEach(([name, { color: tone, pairs }], k) => {
      svg.append(node("circle", { cx: 70 + 150 * k, cy: 12, r: 5, fill: tone }),
        node("text", { x: 80 + 150 * k, y: 16, "font-size": 13 }, name));
      pairs.forEach((p, i) => {
        if (p.value === 0) return;
        const dot = node("circle", { cx: X(i), cy: Y(Math.log10(Math.abs(p.value))), r: 5, stroke: tone,
          "stroke-width": 1.6, fill: p.converged ? tone : "#fff", tabindex: 0 });
        dot.append(node("title", {}, `${name}, number ${i + 1}: ${p.value.toPrecision(4)} (${p.low.toPrecision(3)} … ${p.high.toPrecision(3)})${p.converged ? "" : ", not converged"}`));
        svg.append(dot);
      });
    });
    spectrumPlace.replaceChildren(svg);
  });
}
