"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const KINDS = { f4: Float32Array, f8: Float64Array, u1: Uint8Array };
  const NEAR = 0.01;

  // --- the numbers ---

  const read = new WeakMap();
  function array(stored) {
    if (!read.has(stored)) {
      const bytes = Uint8Array.from(atob(stored.data), (c) => c.charCodeAt(0));
      read.set(stored, new KINDS[stored.type](bytes.buffer));
    }
    return read.get(stored);
  }

  /** One number; those of a layer are (rows, steps, units), those of a bias (units). */
  function at(stored, row, step, unit) {
    const [, steps, units] = stored.shape.length === 3 ? stored.shape : [0, 0, 0];
    return array(stored)[stored.shape.length === 1 ? unit : (row * steps + step) * units + unit];
  }

  function told(value) {
    if (Number.isNaN(value)) return "NaN";
    if (!Number.isFinite(value)) return value < 0 ? "-∞" : "∞";
    if (value !== 0 && Math.abs(value) < 1e-4) {
      return value.toExponential(5).replace(/\.?0*e/, "e");
    }
    return String(Number(value.toPrecision(6)));
  }

  // --- what is chosen ---

  const now = { layer: 0, row: 0, step: 0, unit: 0, letters: Object.keys(data.letters)[0], chunk: 0 };
  const layer = () => data.layers[now.layer];
  const masked = (step) => layer().mask !== null &&
    !array(layer().mask)[now.row * layer().steps.length + step];

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function options(select, words) {
    select.replaceChildren(...words.map((word, k) => {
      const option = element("option", "", word);
      option.value = k;
      return option;
    }));
  }

  // --- equations ---

  const BRACES = /\{([^{}]+)\}/g;

  function symbols(parts, names) {
    return parts.replace(BRACES, (_, name) => names[name.replace("!", "")]);
  }

  function filled(parts, value, names) {
    if (parts.includes("!")) return null;
    return parts.replace(BRACES, (found, name, place) => {
      if (name === "act" || name === "rec") return names[name];
      const said = told(value(name));
      const after = parts.slice(0, place).trimEnd().slice(-1);
      return said.startsWith("-") && after !== "" && "+-*".includes(after) ? `(${said})` : said;
    });
  }

  function lines(of, way, other) {
    const names = of.names[now.letters];
    const value = (name) => at(of.numbers[name], now.row, now.step, now.unit);
    return of.lines[way].map(([name, plain, whenMasked]) => {
      const parts = masked(now.step) && whenMasked !== null ? whenMasked : plain;
      const block = element("div", "line");
      block.dataset.of = name;
      block.append(element("div", "name", names[name]));
      if (parts === "") {
        block.append(element("div", "symbols", "not computed: the step is masked"));
        return block;
      }
      const said = symbols(parts, names);
      if (said !== names[name]) block.append(element("div", "symbols", `= ${said}`));
      const number = element("div", "number");
      const numeric = filled(parts, value, names);
      const result = element("b", Number.isFinite(value(name)) ? "" : "bad", told(value(name)));
      result.dataset.value = String(value(name));
      result.title = `${names[name]} = ${value(name)}`;
      if (numeric !== null && numeric !== result.textContent) number.append(`= ${numeric} `);
      number.append("= ", result);
      block.append(number);
      if (other && other.numbers[name] &&
          !Object.is(at(other.numbers[name], now.row, now.step, now.unit), value(name))) {
        block.classList.add("differs");
      }
      return block;
    });
  }

  // --- heat maps ---

  let colours = {};
  function readColours() {
    const style = getComputedStyle(document.documentElement);
    for (const name of ["zero", "up", "down", "full", "none", "low", "high", "bad"]) {
      colours[name] = style.getPropertyValue(`--${name}`).trim().split(" ").map(Number);
    }
  }
  const between = (a, b, share) => a.map((from, k) => from + (b[k] - from) * share);

  /** The colour of a value: of a gate from 0 to 1, or of what has a sign, from -most to most. */
  function colour(value, bounds, most) {
    if (!Number.isFinite(value)) return colours.bad;
    if (bounds && value < bounds[0] + NEAR) return colours.low;
    if (bounds && value > bounds[1] - NEAR) return colours.high;
    if (bounds && bounds[0] === 0) return between(colours.none, colours.full, value / bounds[1]);
    const share = Math.min(1, Math.abs(value) / most);
    return between(colours.zero, value < 0 ? colours.down : colours.up, share);
  }

  function painted(canvas, steps, count, value, bounds) {
    canvas.width = steps;
    canvas.height = count;
    const context = canvas.getContext("2d");
    const image = context.createImageData(steps, count);
    let most = bounds ? bounds[1] : 0;
    if (!bounds) {
      for (let t = 0; t < steps; t++) for (let u = 0; u < count; u++) {
        if (Number.isFinite(value(t, u))) most = Math.max(most, Math.abs(value(t, u)));
      }
    }
    for (let t = 0; t < steps; t++) for (let u = 0; u < count; u++) {
      const place = 4 * ((count - 1 - u) * steps + t);
      image.data.set([...colour(value(t, u), bounds, most || 1), 255], place);
    }
    context.putImageData(image, 0, 0);
    return most;
  }

  function hatches(field, steps) {
    for (let start = 0; start < steps; start++) {
      if (!masked(start)) continue;
      let end = start;
      while (end < steps && masked(end)) end++;
      const span = element("div", "masked");
      span.style.left = `${100 * start / steps}%`;
      span.style.width = `${100 * (end - start) / steps}%`;
      field.append(span);
      start = end;
    }
  }

  let marks = []; // functions that move the marks to what is chosen
  function map(title, words, count, height, value, bounds, byUnit) {
    const steps = layer().steps.length;
    const box = element("div", "map"), head = element("div", "head");
    const field = element("div", "field"), canvas = element("canvas");
    const name = element("span"), shown = element("span");
    name.append(element("b", "", title), ` ${words}`);
    head.append(name, shown);
    canvas.style.height = `${height}px`;
    const most = painted(canvas, steps, count, value, bounds);
    if (!bounds && byUnit) name.append(`, ±${told(Number(most.toPrecision(3)))}`);
    field.append(canvas);
    hatches(field, steps);
    const column = element("div", "at column"), cell = element("div", "at cell");
    field.append(column);
    if (byUnit) field.append(cell);
    field.tabIndex = 0;
    field.setAttribute("role", "application");
    field.setAttribute("aria-roledescription", "heat map");
    field.dataset.map = title;
    const pick = (event) => {
      const box = canvas.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
      const clamp = (share, size) => Math.max(0, Math.min(size - 1, Math.floor(share * size)));
      go({ step: clamp(x, steps), ...(byUnit ? { unit: clamp(1 - y, count) } : {}) });
    };
    field.addEventListener("pointerdown", pick);
    field.addEventListener("pointermove", (event) => { if (event.buttons & 1) pick(event); });
    field.addEventListener("keydown", keyed);
    marks.push(() => {
      const wide = 100 / steps, high = 100 / count;
      column.style.left = cell.style.left = `${wide * now.step}%`;
      column.style.width = cell.style.width = `${wide}%`;
      cell.style.bottom = `${high * now.unit}%`;
      cell.style.height = `${high}%`;
      const here = byUnit ? told(value(now.step, now.unit)) : "";
      shown.textContent = here;
      const where = `step ${layer().steps[now.step]}, unit ${layer().units[now.unit]}`;
      field.setAttribute("aria-label", `${title} ${words}; ${where}${here && ": " + here}`);
    });
    box.append(head, field);
    return box;
  }

  function keyed(event) {
    const moves = {
      ArrowLeft: { step: now.step - 1 }, ArrowRight: { step: now.step + 1 },
      ArrowUp: { unit: now.unit + 1 }, ArrowDown: { unit: now.unit - 1 },
      Home: { step: 0 }, End: { step: layer().steps.length - 1 },
      PageUp: { unit: now.unit + 8 }, PageDown: { unit: now.unit - 8 },
    };
    if (event.key in moves && !event.ctrlKey && !event.altKey && !event.metaKey) {
      event.preventDefault();
      go(moves[event.key]);
    }
  }

  // --- charts ---

  const SVG = "http://www.w3.org/2000/svg";
  function shape(tag, attributes) {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  }

  /** Lines over the steps: {name, colour, wide, dash, bars, value(step)}; rules: a line before. */
  function chart(title, series, { rules = [], high = 170 } = {}) {
    const steps = layer().steps.length, wide = 640, edge = 6;
    const box = element("div", "chart"), head = element("div", "head"), key = element("span");
    for (const one of series) {
      const dot = element("i"), entry = element("span", "entry");
      dot.style.background = one.colour;
      entry.append(dot, `${one.name} ${told(Number(one.value(now.step).toPrecision(4)))}`);
      key.append(entry, " ");
    }
    head.append(element("b", "", title), key);
    const svg = shape("svg", { viewBox: `0 0 ${wide} ${high}`, preserveAspectRatio: "none",
      style: `height: ${high}px`,
      role: "img", "aria-label": `${title}: ${series.map((s) => s.name).join(", ")} by step` });
    const all = series.flatMap((s) => layer().steps.map((_, t) => s.value(t)))
      .filter(Number.isFinite);
    let low = Math.min(...all), most = Math.max(...all);
    if (!all.length) { low = -1; most = 1; }
    if (low === most) { low -= 1; most += 1; }
    const x = (t) => wide * (t + 0.5) / steps; // under the columns of the maps
    const y = (v) => edge + (high - 2 * edge) * (1 - (v - low) / (most - low));
    for (const value of [low, (low + most) / 2, most]) {
      svg.append(shape("line", { x1: 0, x2: wide, y1: y(value), y2: y(value),
        stroke: "var(--line)", "vector-effect": "non-scaling-stroke" }));
    }
    for (const t of rules) {
      const place = wide * t / steps;
      svg.append(shape("line", { x1: place, x2: place, y1: 0, y2: high,
        stroke: "var(--soft)", "stroke-dasharray": "1 4", "vector-effect": "non-scaling-stroke" }));
    }
    for (const one of series) {
      let path = "", gap = true;
      for (let t = 0; t < steps; t++) {
        const v = one.value(t);
        if (Number.isFinite(v)) {
          const from = one.bars ? `${(wide * t / steps).toFixed(1)} ${y(v).toFixed(1)}h` +
            (wide / steps).toFixed(1) : `${x(t).toFixed(1)} ${y(v).toFixed(1)}`;
          path += `${gap ? "M" : "L"}${from}`;
        }
        gap = !Number.isFinite(v);
      }
      svg.append(shape("path", { d: path, fill: "none", stroke: one.colour,
        "stroke-width": one.wide || 2, "stroke-dasharray": one.dash || "none",
        "vector-effect": "non-scaling-stroke", "stroke-linejoin": "round" }));
    }
    const here = shape("line", { x1: x(now.step), x2: x(now.step), y1: 0, y2: high, stroke: "var(--mark)",
      "stroke-width": 1, opacity: .6, "vector-effect": "non-scaling-stroke" });
    svg.append(here);
    const axis = element("div", "axis");
    const first = layer().steps[0], last = layer().steps[steps - 1];
    axis.append(element("span", "", `step ${first}`),
      element("span", "", `from ${told(Number(low.toPrecision(3)))} to ${told(Number(most.toPrecision(3)))}`),
      element("span", "", `${last}`));
    box.append(head, svg, axis);
    return box;
  }

  // --- what does not change with the step ---

  function drawMaps() {
    const of = layer(), steps = of.steps.length, count = of.units.length;
    const height = Math.max(56, Math.min(150, 3.4 * count));
    marks = [];
    const boxes = [];
    const features = of.x.shape[2];
    const x = (t, k) => array(of.x)[(now.row * steps + t) * features + k];
    boxes.push(map("x", `what the layer was given: ${features} features`, features,
      Math.max(18, Math.min(90, 6 * features)), x, null, false));
    for (const { name, words, bounds } of of.maps) {
      const value = (t, u) => at(of.numbers[name], now.row, t, u);
      boxes.push(map(of.names[now.letters][name], words, count, height, value, bounds, true));
    }
    if (of.numbers["dy"]) {
      const value = (t, u) => at(of.numbers["d.h"], now.row, t, u);
      const name = of.names[now.letters]["d.h"];
      boxes.push(map(name, "gradient of the loss", count, height, value, null, true));
    }
    const axis = element("div", "axis");
    axis.append(element("span", "", `step ${of.steps[0]}`),
      element("span", "", of.backwards ? "the last of the input first" : ""),
      element("span", "", `${of.steps[steps - 1]}`));
    const charts = element("div", "");
    charts.id = "model-charts";
    $("maps").replaceChildren(charts, ...boxes, axis);
    const css = (name) => `rgb(${colours[name].map(Math.round).join(" ")})`;
    const dot = (colour, kind = "") => {
      const made = element("i", kind);
      if (colour) made.style.background = colour;
      return made;
    };
    const legend = [dot(`linear-gradient(90deg, ${css("none")}, ${css("full")})`, "ramp"), "0 to 1",
      dot(`linear-gradient(90deg, ${css("down")}, ${css("zero")}, ${css("up")})`, "ramp"),
      "below to above 0", dot(css("high")), "saturated: within 0.01 of the upper bound",
      dot(css("low")), "of the lower"];
    const bad = of.maps.some(({ name }) => array(of.numbers[name]).some((v) => !Number.isFinite(v)));
    if (bad) legend.push(dot(css("bad")), "NaN or infinity");
    if (of.mask) legend.push(dot("", "hatch"), "masked");
    $("legend").replaceChildren(...legend);
  }

  function drawModel() {
    $("model-charts").replaceChildren(...(now.layer === 0 && data.output ? modelCharts() : []));
  }

  function modelCharts() {
    const out = data.output, steps = layer().steps.length;
    const tones = ["var(--a)", "var(--b)", "var(--c)", "var(--soft)"];
    const found = [];
    if (out.x) {
      const count = out.x.shape[2];
      found.push(chart("the model's input", [...Array(count).keys()].map((k) => ({
        name: count > 1 ? `x[${k}]` : "x", colour: tones[k % 4], bars: true,
        value: (t) => array(out.x)[(now.row * steps + t) * count + k] })), { high: 60 }));
    }
    const of = (stored) => (t) => array(stored)[now.row * steps + t];
    const series = [];
    if (out.target) series.push({ name: "target", colour: "var(--c)", wide: 5, value: of(out.target) });
    series.push({ name: "output", colour: "var(--a)", value: of(out.y) });
    const more = out.more ? `, the first of ${out.more + 1} numbers` : "";
    return [...found, chart(`the model's output${more}`, series, { high: 110 })];
  }

  function drawChunks() {
    const of = layer(), cut = of.cuts[now.chunk], steps = of.steps.length;
    $("chunks-section").hidden = cut === undefined;
    if (cut === undefined) return;
    const shown = now.layer === 0 && data.output ? data.output.cuts[now.chunk] : null;
    const equal = (found) => found.differ === 0
      ? `all ${found.of} numbers have the bits of the whole run`
      : `${found.differ} of ${found.of} numbers have other bits`;
    $("chunk-told").textContent = `State handed from chunk to chunk: ${equal(cut)}` +
      (shown ? `, and of the model's output ${shown.differ === 0 ? "all" : "not all"} ${shown.of}` : "") +
      ". State lost: each chunk begins with zeros, and what came before it is forgotten.";
    const rules = of.steps.map((step, t) => [step, t])
      .filter(([step, t]) => t > 0 && Math.floor(step / cut.length) !== Math.floor(of.steps[t - 1] / cut.length))
      .map(([, t]) => t);
    const two = (whole, lost) => [
      { name: "state handed on", colour: "var(--a)", wide: 4, value: whole },
      { name: "state lost", colour: "var(--b)", dash: "6 4", value: lost },
    ];
    $("chunk-unit").replaceChildren(chart(`h of unit ${of.units[now.unit]}`, two(
      (t) => at(of.whole, now.row, t, now.unit), (t) => at(cut.lost, now.row, t, now.unit)), { rules }));
    $("chunk-output").replaceChildren(...(shown ? [chart("the model's output", two(
      (t) => array(data.output.y)[now.row * steps + t],
      (t) => array(shown.lost)[now.row * steps + t]), { rules })] : []));
  }

  function drawSummary() {
    $("summary").textContent = layer().summary;
    $("notes").replaceChildren(...data.notes.map((note) => element("li", "", note)));
  }

  // --- what changes with the step and the unit ---

  function drawUnit() {
    const of = layer(), unit = of.units[now.unit];
    $("unit-title").textContent = `Unit ${unit} over time`;
    const tones = ["var(--a)", "var(--b)", "var(--c)", "var(--soft)", "var(--mark)"];
    const series = (wanted) => of.maps.filter(({ name }) => wanted.includes(name))
      .map(({ name }, k) => ({ name: of.names[now.letters][name], colour: tones[k],
        value: (t) => at(of.numbers[name], now.row, t, now.unit) }));
    const gates = series(["i", "f", "o", "z", "r"]);
    $("unit-chart").replaceChildren(chart("state", series(["c", "h"])),
      ...(gates.length ? [chart("gates", gates)] : []));
    const parts = [];
    if (of.follow.length) {
      parts.push("Units whose state goes with the model's output (correlation over all rows): ");
      for (const [number, r] of of.follow) {
        const button = element("button", "", `unit ${number}: ${r.toFixed(3)}`);
        button.type = "button";
        button.setAttribute("aria-pressed", String(number === unit));
        button.addEventListener("click", () => {
          go({ unit: of.units.indexOf(number) });
          for (const one of $("follow").querySelectorAll("button")) {
            if (one.textContent === button.textContent) one.focus();
          }
        });
        parts.push(button);
      }
    }
    $("follow").replaceChildren(...parts);
  }

  function drawVariants() {
    const of = layer();
    $("variants-section").hidden = of.other === null;
    if (of.other === null) return;
    const words = { gru: "reset after the product (Keras 3, PyTorch, cuDNN)",
      gru_reset_before: "reset before the product (Cho et al. 2014)" };
    $("variants-told").textContent = "The same weights in the equations of both, each on its own " +
      `state: two functions. h differs by up to ${of.other.most}; ` +
      "≠ marks numbers that differ at this step.";
    $("own-title").textContent = `this layer: ${words[of.cell]}`;
    $("other-title").textContent = `the other: ${words[of.other.cell]}`;
    $("own").replaceChildren(...lines(of, "forward", of.other));
    $("other").replaceChildren(...lines(of.other, "forward", of));
    $("variants-chart").replaceChildren(chart(`h of unit ${of.units[now.unit]}`, [
      { name: words[of.cell], colour: "var(--a)", wide: 4,
        value: (t) => at(of.numbers["h"], now.row, t, now.unit) },
      { name: words[of.other.cell], colour: "var(--b)", dash: "6 4",
        value: (t) => at(of.other.numbers["h"], now.row, t, now.unit) }]));
  }

  function place() {
    const of = layer(), step = of.steps[now.step], [, T, H] = of.sizes;
    const said = [`Row ${of.rows[now.row]}, step ${step} of ${T}, unit ${of.units[now.unit]} of ${H}.`];
    if (of.backwards) said.push(`Processed backwards: step ${T - 1 - step} of the input.`);
    if (masked(now.step)) said.push("Masked: the state is held; gates are shown as computed.");
    $("place").textContent = said.join(" ");
  }

  function drawStep() {
    const of = layer();
    $("step").value = now.step;
    $("unit").value = now.unit;
    $("step-told").textContent = of.steps[now.step];
    $("unit-told").textContent = of.units[now.unit];
    $("step").setAttribute("aria-valuetext", `step ${of.steps[now.step]}`);
    $("unit").setAttribute("aria-valuetext", `unit ${of.units[now.unit]}`);
    place();
    $("forward").replaceChildren(...lines(of, "forward"));
    const back = "backward" in of.lines;
    $("backward-section").hidden = !back;
    if (back) {
      $("backward").replaceChildren(...lines(of, "backward"));
      $("loss").textContent = "Each line is the gradient of the loss, the mean squared error of " +
        `the output (${data.loss}), by what it is named after.`;
    }
    for (const mark of marks) mark();
    drawUnit();
    drawVariants();
    drawChunks();
    drawModel();
  }

  function go(change) {
    const of = layer(), clamp = (k, count) => Math.max(0, Math.min(count - 1, k));
    Object.assign(now, change);
    now.step = clamp(now.step, of.steps.length);
    now.unit = clamp(now.unit, of.units.length);
    drawStep();
  }

  function drawLayer() {
    const of = layer(), [B, T, H] = of.sizes;
    $("step").max = of.steps.length - 1;
    $("unit").max = of.units.length - 1;
    now.row = Math.min(now.row, of.rows.length - 1);
    options($("row"), of.rows.map(String));
    $("row").value = now.row;
    $("row-label").hidden = of.rows.length === 1;
    options($("chunk"), of.cuts.map((cut) => String(cut.length)));
    now.chunk = Math.min(1, Math.max(0, of.cuts.length - 1));
    if (of.cuts.length) $("chunk").value = now.chunk;
    const words = { lstm: "LSTM", gru: "GRU, reset after", gru_reset_before: "GRU, reset before",
      simple: "SimpleRNN" };
    $("about").textContent = `${of.name}: ${words[of.cell]}, ${B} rows, ${T} steps, ${H} units, ` +
      `${of.dtype}. Every number is that of refrnn.trace; nothing is recomputed here.`;
    drawMaps();
    drawSummary();
    go({});
  }

  function chooseLayer(k) {
    now.layer = k;
    const of = layer();
    now.unit = of.follow.length ? of.units.indexOf(of.follow[0][0]) : 0;
    now.step = Math.min(3, of.steps.length - 1);
    drawLayer();
  }

  options($("layer"), data.layers.map((one) => one.name));
  options($("letters"), Object.values(data.letters));
  $("layer-label").hidden = data.layers.length === 1;
  $("layer").addEventListener("change", (event) => chooseLayer(Number(event.target.value)));
  $("row").addEventListener("change", (event) => {
    now.row = Number(event.target.value);
    drawMaps();
    go({});
  });
  $("letters").addEventListener("change", (event) => {
    now.letters = Object.keys(data.letters)[Number(event.target.value)];
    drawMaps();
    go({});
  });
  $("chunk").addEventListener("change", (event) => {
    now.chunk = Number(event.target.value);
    drawChunks();
  });
  $("step").addEventListener("input", (event) => go({ step: Number(event.target.value) }));
  $("unit").addEventListener("input", (event) => go({ unit: Number(event.target.value) }));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readColours();
    drawMaps();
    go({});
  });
  readColours();
  chooseLayer(0);
})();
