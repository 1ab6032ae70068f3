/* Live figures: what is drawn follows the sliders, from the static files alone.

A chapter's cell prints  <div class="live" data-figure="coin" aria-label="…">  with its data as JSON in a
<script type="application/json">  and a paragraph for readers without JavaScript. */
(() => {
  "use strict";

  /* ---- The package's random numbers: splitmix64 with a second key for each chain ---- */

  const MASK = (1n << 64n) - 1n;
  const [WEYL, MIX1, MIX2] = [0x9e3779b97f4a7c15n, 0xbf58476d1ce4e5b9n, 0x94d049bb133111ebn];
  const halves = (z) => [Number(z >> 32n), Number(z & 0xffffffffn)];
  const [WEYL_H, WEYL_L] = halves(WEYL);
  const [MIX1_H, MIX1_L] = halves(MIX1);
  const [MIX2_H, MIX2_L] = halves(MIX2);

  const mix = (z) => {
    z = ((z ^ (z >> 30n)) * MIX1) & MASK;
    z = ((z ^ (z >> 27n)) * MIX2) & MASK;
    return z ^ (z >> 31n);
  };

  /* High half of a product of two unsigned 32-bit numbers. */
  const high = (a, b) => {
    const [a0, a1, b0, b1] = [a & 0xffff, a >>> 16, b & 0xffff, b >>> 16];
    const middle = a1 * b0 + ((a0 * b0) >>> 16);
    return (a1 * b1 + (middle >>> 16) + ((a0 * b1 + (middle & 0xffff)) >>> 16)) >>> 0;
  };

  class Stream {
    constructor(seed, chain) {
      const base = mix((BigInt(seed) + WEYL) & MASK);
      const key = (k) => mix((base + (2n * BigInt(chain) + k) * WEYL) & MASK);
      [this.counterHigh, this.counterLow] = halves(key(1n));
      [this.twistHigh, this.twistLow] = halves(key(2n));
    }

    /* 64 fresh bits, in `this.h` and `this.l`. */
    next() {
      let [h, l] = [this.counterHigh, this.counterLow];
      const sum = l + WEYL_L;
      this.counterLow = sum >>> 0;
      this.counterHigh = (h + WEYL_H + (sum > 0xffffffff ? 1 : 0)) >>> 0;
      l = (l ^ ((l >>> 30) | (h << 2))) >>> 0;
      h = (h ^ (h >>> 30)) >>> 0;
      let product = (high(l, MIX1_L) + Math.imul(h, MIX1_L) + Math.imul(l, MIX1_H)) >>> 0;
      l = (Math.imul(l, MIX1_L) ^ this.twistLow) >>> 0;
      h = (product ^ this.twistHigh) >>> 0;
      l = (l ^ ((l >>> 27) | (h << 5))) >>> 0;
      h = (h ^ (h >>> 27)) >>> 0;
      product = (high(l, MIX2_L) + Math.imul(h, MIX2_L) + Math.imul(l, MIX2_H)) >>> 0;
      l = Math.imul(l, MIX2_L) >>> 0;
      this.l = (l ^ ((l >>> 31) | (product << 1))) >>> 0;
      this.h = (product ^ (product >>> 31)) >>> 0;
    }

    /* An integer in [0, bound), bound below 2^20: the high half of bits * bound. */
    index(bound) {
      this.next();
      const carried = Math.floor((this.l * bound) / 4294967296);
      return Math.floor((this.h * bound + carried) / 4294967296);
    }

    uniform() {
      this.next();
      return ((this.h >>> 5) * 67108864 + (this.l >>> 6)) / 9007199254740992;
    }
  }

  /* ---- Drawing ---- */

  const tag = (name, attributes, inside = "") => {
    const text = Object.entries(attributes).map(([key, value]) => ` ${key}="${value}"`).join("");
    return `<${name}${text}>${inside}</${name}>`;
  };
  const short = (value, digits = 3) => {
    if (!Number.isFinite(value)) return "∞";
    const size = Math.abs(value);
    const text = size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(1).replace(".0e", "e") : String(+value.toPrecision(digits));
    return text.replace("-", "−");
  };
  const range = (n, make = (k) => k) => Array.from({ length: n }, (_, k) => make(k));
  const mean = (values) => values.reduce((sum, v) => sum + v, 0) / values.length;
  const grid = (low, high, n) => range(n, (k) => low + ((high - low) * k) / (n - 1));
  const geometric = (low, high, n) => grid(Math.log(low), Math.log(high), n).map(Math.exp);

  const ticks = (low, high, log) => {
    if (log) {
      const first = Math.ceil(Math.log10(low) - 1e-9);
      const powers = range(Math.floor(Math.log10(high) + 1e-9) - first + 1, (k) => 10 ** (first + k));
      return powers.length > 1 ? powers : [low, high];
    }
    const raw = (high - low) / 4;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((k) => k * power).find((s) => s >= raw);
    const start = Math.ceil(low / step - 1e-9);
    return range(Math.floor(high / step + 1e-9) - start + 1, (k) => +((start + k) * step).toPrecision(12));
  };

  class Panel {
    constructor(box, { x, y, xlog = false, ylog = false, xlabel, ylabel, title = "" }) {
      Object.assign(this, { box, inside: "", xlog, ylog, xlabel, ylabel, title });
      const scale = (limits, log, size, flip) => {
        const f = log ? Math.log : (v) => v;
        const [low, top] = limits.map(f);
        return (v) => {
          const share = (f(v) - low) / (top - low);
          return Math.min(Math.max((flip ? 1 - share : share) * size, -1e4), 1e4);
        };
      };
      this.X = scale(x, xlog, box.width, false);
      this.Y = scale(y, ylog, box.height, true);
      this.limits = { x, y };
    }

    path(xs, ys, style, dashed = false) {
      const points = xs.map((x, k) => [x, ys[k]]).filter(([, y]) => Number.isFinite(y) && (!this.ylog || y > 0));
      const text = points.map(([x, y]) => `${this.X(x).toFixed(1)},${this.Y(y).toFixed(1)}`).join(" ");
      this.inside += tag("polyline", { class: `live-line ${style}${dashed ? " live-dashed" : ""}`, points: text });
    }

    dots(xs, ys, style, radius = 4) {
      xs.forEach((x, k) => {
        const place = { cx: this.X(x).toFixed(1), cy: this.Y(ys[k]).toFixed(1) };
        this.inside += tag("circle", { class: `live-dot ${style}`, r: radius, ...place });
      });
    }

    bars(edges, heights, style) {
      const bottom = this.Y(this.limits.y[0]);
      heights.forEach((value, k) => {
        const [left, right, top] = [this.X(edges[k]), this.X(edges[k + 1]), this.Y(value)];
        const size = { width: Math.max(right - left, 0.5).toFixed(2), height: Math.max(bottom - top, 0).toFixed(2) };
        this.inside += tag("rect", { class: `live-bar ${style}`, x: left.toFixed(2), y: top.toFixed(2), ...size });
      });
    }

    /* Square of shares in [0, 1], rows from below: shades of one colour, on light and dark grounds. */
    heat(rows) {
      const canvas = document.createElement("canvas");
      canvas.width = canvas.height = rows.length;
      const context = canvas.getContext("2d");
      const pixels = context.createImageData(rows.length, rows.length);
      rows.forEach((row, u) => row.forEach((share, v) => {
        const at = 4 * ((rows.length - 1 - u) * rows.length + v);
        pixels.data.set([40, 140, 210, Math.round(255 * share)], at);
      }));
      context.putImageData(pixels, 0, 0);
      const size = { width: this.box.width, height: this.box.height, preserveAspectRatio: "none" };
      this.inside += tag("image", { class: "live-heat", href: canvas.toDataURL(), ...size });
    }

    text() {
      const { left, top, width, height } = this.box;
      let frame = tag("rect", { class: "live-frame", x: 0, y: 0, width, height });
      for (const value of ticks(...this.limits.x, this.xlog)) {
        const x = this.X(value);
        frame += tag("line", { class: "live-grid", x1: x, x2: x, y1: 0, y2: height });
        frame += tag("text", { class: "live-tick", x, y: height + 14, "text-anchor": "middle" }, short(value));
      }
      for (const value of ticks(...this.limits.y, this.ylog)) {
        const y = this.Y(value);
        frame += tag("line", { class: "live-grid", x1: 0, x2: width, y1: y, y2: y });
        frame += tag("text", { class: "live-tick", x: -5, y: y + 4, "text-anchor": "end" }, short(value));
      }
      frame += tag("text", { class: "live-label", x: width / 2, y: height + 31, "text-anchor": "middle" }, this.xlabel);
      frame += tag("text", { class: "live-label", x: -40, y: -8 }, this.ylabel);
      frame += tag("text", { class: "live-label", x: width, y: -8, "text-anchor": "end" }, this.title);
      const clipped = tag("svg", { x: 0, y: 0, width, height, overflow: "hidden" }, this.inside);
      return tag("g", { transform: `translate(${left} ${top})` }, frame + clipped);
    }
  }

  /* Lays panels out side by side, or below each other on a narrow screen. */
  class Stage {
    constructor(width) {
      Object.assign(this, { width, panels: [], facts: [], legend: [] });
      this.across = width >= 560 ? 2 : 1;
    }

    panel(options) {
      const k = this.panels.length;
      const [column, row] = [k % this.across, Math.floor(k / this.across)];
      const [each, height] = [this.width / this.across, 210];
      const box = { left: column * each + 50, top: row * (height + 66) + 24, width: each - 64, height };
      const panel = new Panel(box, options);
      this.panels.push(panel);
      return panel;
    }

    svg(label) {
      const height = Math.ceil(this.panels.length / this.across) * 276;
      const view = { viewBox: `0 0 ${this.width} ${height}`, width: this.width, height, role: "img", "aria-label": label };
      return tag("svg", view, this.panels.map((panel) => panel.text()).join(""));
    }
  }

  /* ---- The figures: sliders, and what is drawn for their values ---- */

  const gamma = (values, start) => ({ key: "gamma", label: "step size γ", values, start });
  const normal = (x, sd) => Math.exp(-0.5 * (x / sd) ** 2) / (sd * Math.sqrt(2 * Math.PI));

  const coin = {
    controls: () => [
      gamma(range(99, (k) => (k + 1) / 100), 66),
      { key: "steps", label: "steps t", values: range(13, (k) => k), start: 12 },
    ],
    draw(data, { gamma: step, steps }, stage) {
      let atoms = [0];
      for (let t = 0; t < steps; t += 1) {
        atoms = [-1, 1].flatMap((sign) => atoms.map((a) => (1 - step) * a + step * sign));
      }
      atoms.sort((a, b) => a - b);
      const variance = mean(atoms.map((a) => a * a));
      const panel = stage.panel({ x: [-1, 1], y: [0, 1], xlabel: "θ", ylabel: "distribution function" });
      const [xs, ys] = [[-1], [0]];
      atoms.forEach((a, k) => {
        xs.push(a, a);
        ys.push(k / atoms.length, (k + 1) / atoms.length);
      });
      panel.path([-1, 1], [0, 1], "live-ink", true);
      panel.path([...xs, 1], [...ys, 1], "live-1");
      const bins = 2 ** Math.min(steps, 6) * 3;
      const heights = Array(bins).fill(0);
      atoms.forEach((a) => { heights[Math.min(Math.floor(((a + 1) / 2) * bins), bins - 1)] += 1 / atoms.length; });
      const top = Math.max(...heights);
      stage.panel({ x: [-1, 1], y: [0, top * 1.1], xlabel: "θ", ylabel: "probability" }).bars(grid(-1, 1, bins + 1), heights, "live-1");
      stage.legend = [["live-1", `law after ${steps} steps`], ["live-ink live-dashed", "uniform law"]];
      stage.facts = [
        ["atoms", atoms.length],
        ["variance", variance, short(variance)],
        ["variance in the long run", step / (2 - step), short(step / (2 - step))],
      ];
    },
  };

  /* Second moments of a regression in one parameter, exact; see the chapter. */
  const moments = ({ x, y, minimiser }) => {
    const curvature = x.map((v) => v * v);
    const h = mean(curvature);
    const noise = mean(x.map((v, i) => ((v * minimiser - y[i]) * v) ** 2));
    const spread = mean(curvature.map((c) => (c - h) ** 2));
    const shrink = (step, batch) => (1 - step * h) ** 2 + (step * step * spread) / batch;
    return {
      h,
      limit: (batch) => (2 * h) / (h * h + spread / batch),
      exact: (step, batch) => {
        const q = shrink(step, batch);
        return q < 1 ? Math.sqrt((step * step * noise) / batch / (1 - q)) : Infinity;
      },
      first: (step, batch) => Math.sqrt((step * noise) / (2 * h * batch)),
    };
  };

  const stationary = {
    controls: () => [
      gamma(geometric(0.02, 1.28, 25).map((g) => +g.toPrecision(2)), 9),
      { key: "batch", label: "batch size b", values: [1, 2, 4, 8, 16, 32], start: 0 },
    ],
    draw(data, { gamma: step, batch }, stage) {
      const { x, y, minimiser, seed, n_chains: nChains } = data;
      const { h, limit, exact, first } = moments(data);
      const burn = Math.ceil(5 / (step * h));
      const keep = Math.ceil(20 / (step * h)) + 100;
      const [bins, reach] = [81, 1.5];
      const heights = Array(bins).fill(0);
      let [sum, squares, diverged] = [0, 0, false];
      for (let chain = 0; chain < nChains && !diverged; chain += 1) {
        const stream = new Stream(seed, chain);
        let theta = minimiser;
        for (let t = 1; t <= burn + keep; t += 1) {
          let total = 0;
          for (let k = 0; k < batch; k += 1) {
            const i = stream.index(x.length);
            total += (x[i] * theta - y[i]) * x[i];
          }
          theta -= (step / batch) * total;
          if (!(Math.abs(theta) < 1e12)) { diverged = true; break; }
          if (t <= burn) continue;
          sum += theta;
          squares += (theta - minimiser) ** 2;
          const bin = Math.floor(((theta - minimiser + reach) / (2 * reach)) * bins);
          if (bin >= 0 && bin < bins) heights[bin] += 1;
        }
      }
      const n = nChains * keep;
      const found = diverged ? Infinity : Math.sqrt(squares / n - (sum / n - minimiser) ** 2);
      const [sd, line] = [exact(step, batch), first(step, batch)];
      const density = heights.map((count) => (count * bins) / (n * 2 * reach));
      const top = Math.max(...density, normal(0, line)) * 1.1;
      const law = stage.panel({ x: [-reach, reach], y: [0, top], xlabel: "θ − θ*", ylabel: "density" });
      const fine = grid(-reach, reach, 301);
      law.bars(grid(-reach, reach, bins + 1), density, "live-3");
      law.path(fine, fine.map((v) => normal(v, sd)), "live-2");
      law.path(fine, fine.map((v) => normal(v, line)), "live-ink", true);
      const gammas = geometric(0.02, 1.5, 150);
      const spread = stage.panel({
        x: [0.02, 1.5], y: [0.008, 4], xlog: true, ylog: true, xlabel: "step size γ", ylabel: "standard deviation",
      });
      spread.path(gammas, gammas.map((g) => exact(g, batch)), "live-2");
      spread.path(gammas, gammas.map((g) => first(g, batch)), "live-ink", true);
      if (Number.isFinite(found)) spread.dots([step], [found], "live-3", 5);
      stage.legend = [["live-3", "simulated here"], ["live-2", "exact"], ["live-ink live-dashed", "first order"]];
      stage.facts = [
        ["standard deviation, simulated", found, diverged ? "diverged" : short(found)],
        ["exact", sd, short(sd)],
        ["first order", line, short(line)],
        ["steps to forget", 1 / (step * h), short(1 / (step * h))],
        ["largest stable γ", limit(batch), short(limit(batch))],
      ];
    },
  };

  const decode = (text, n) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    return range(n, (u) => Array.from(bytes.subarray(u * n, (u + 1) * n), (v) => v / 255));
  };

  const ulam = {
    controls: (data) => [
      gamma(data.step_sizes, 2),
      { key: "bins", label: "number of bins", values: data.bins, start: 4 },
    ],
    draw(data, { gamma: step, bins }, stage) {
      const one = data.kernels.find((kernel) => kernel.step_size === step && kernel.bins === bins);
      const reach = data.reach;
      const edges = grid(-reach, reach, bins + 1);
      const limits = [-reach, reach];
      stage.panel({ x: limits, y: limits, xlabel: "next θ − θ*", ylabel: "present θ − θ*" }).heat(decode(one.matrix, bins));
      const density = one.pi.map((p) => (p * bins) / (2 * reach));
      const fine = grid(-reach, reach, 301);
      const top = Math.max(...density, normal(0, one.sd_exact)) * 1.1;
      const law = stage.panel({ x: limits, y: [0, top], xlabel: "θ − θ*", ylabel: "density" });
      law.bars(edges, density, "live-1");
      law.path(fine, fine.map((v) => normal(v, one.sd_exact)), "live-2");
      stage.legend = [["live-1", "the matrix, and its stationary law"], ["live-2", "normal law with SGD’s exact variance"]];
      stage.facts = [
        ["spectral gap of the matrix", one.gap, short(one.gap)],
        ["gap of SGD", one.gap_exact, short(one.gap_exact)],
        ["standard deviation of the matrix", one.sd, short(one.sd)],
        ["deviation of SGD", one.sd_exact, short(one.sd_exact)],
        ["width of a bin in steps", one.bin_over_step, short(one.bin_over_step)],
      ];
    },
  };

  const twoState = {
    controls: ({ lengths }) => [
      { key: "rho", label: "leaving rate ρ", values: range(39, (k) => (k + 1) / 20), start: 5 },
      { key: "length", label: "symbols seen t", values: lengths, start: lengths.length - 1 },
    ],
    draw(data, { rho, length }, stage) {
      const { lengths, measured, seed, n_paths: nPaths } = data;
      const losses = lengths.map(() => 0);
      let strip = [];
      for (let chain = 0; chain < nPaths; chain += 1) {
        const stream = new Stream(seed, chain);
        const counts = [[0.5, 0.5], [0.5, 0.5]];
        const path = [stream.index(2)];
        for (let t = 1, at = 0; at < lengths.length; t += 1) {
          const state = path[t - 1];
          if (t === lengths[at]) {
            const share = counts[state][1 - state] / (counts[state][0] + counts[state][1]);
            const overlap = Math.sqrt((rho / 2) * share) + Math.sqrt((1 - rho / 2) * (1 - share));
            losses[at] -= Math.log(overlap) / nPaths;
            at += 1;
          }
          const next = stream.uniform() < rho / 2 ? 1 - state : state;
          counts[state][next] += 1;
          path.push(next);
        }
        if (chain === 0) strip = path.slice(0, length);
      }
      const shown = strip.slice(-100);
      const first = strip.length - shown.length;
      const path = stage.panel({ x: [first, first + 100], y: [-0.2, 1.2], xlabel: "symbol (the last hundred seen)", ylabel: "state" });
      path.path(shown.flatMap((_, k) => [first + k, first + k + 1]), shown.flatMap((s) => [s, s]), "live-1");
      const nearest = measured.reduce((a, b) => (Math.abs(b.rho - rho) < Math.abs(a.rho - rho) ? b : a));
      const curve = stage.panel({
        x: [10, 1000], y: [1e-5, 1], xlog: true, ylog: true, xlabel: "symbols seen", ylabel: "Bhattacharyya distance",
      });
      curve.path(lengths, lengths.map((t) => 1 / (4 * t)), "live-ink", true);
      curve.path(lengths, losses, "live-2");
      curve.path(lengths, nearest.llm, "live-1");
      const at = lengths.indexOf(length);
      curve.dots([lengths[at]], [losses[at]], "live-2", 5);
      const [second, seen] = [Math.abs(1 - rho), lengths[at]];
      stage.legend = [
        ["live-2", "counts + ½, simulated here"],
        ["live-1", `language model, measured at ρ = ${nearest.rho}`],
        ["live-ink live-dashed", "1 / (4t)"],
      ];
      stage.facts = [
        ["spectral gap", 1 - second, short(1 - second)],
        ["relaxation time", 1 / (1 - second), short(1 / (1 - second))],
        ["mean stay in a state", 2 / rho, short(2 / rho)],
        [`distance after ${seen} symbols, counts`, losses[at], short(losses[at])],
        ["times 4t", losses[at] * 4 * seen, short(losses[at] * 4 * seen)],
      ];
    },
  };

  const FIGURES = { coin, stationary, ulam, "two-state": twoState };

  /* ---- Putting one on the page ---- */

  let count = 0;
  const mount = (root) => {
    const figure = FIGURES[root.dataset.figure];
    const source = root.querySelector('script[type="application/json"]');
    const data = source ? JSON.parse(source.textContent) : {};
    const controls = figure.controls(data);
    const values = Object.fromEntries(controls.map((c) => [c.key, c.values[c.start]]));
    const title = root.getAttribute("aria-label");
    root.querySelector(".live-fallback")?.remove();
    const sliders = controls.map((c) => {
      const id = `live-${(count += 1)}`;
      const limits = { min: 0, max: c.values.length - 1, step: 1, value: c.start, "data-key": c.key };
      const input = `<input type="range" id="${id}" ${Object.entries(limits).map(([k, v]) => `${k}="${v}"`).join(" ")}>`;
      return `<div class="live-control"><label for="${id}">${c.label} = <b></b></label>${input}</div>`;
    });
    root.insertAdjacentHTML("beforeend", `<div class="live-controls">${sliders.join("")}</div>
      <div class="live-drawing"></div><p class="live-legend"></p><dl class="live-facts" aria-live="polite"></dl>`);
    root.setAttribute("role", "group");
    const drawing = root.querySelector(".live-drawing");

    const draw = () => {
      const stage = new Stage(Math.max(drawing.clientWidth, 260));
      figure.draw(data, values, stage);
      drawing.innerHTML = stage.svg(title);
      root.querySelector(".live-legend").innerHTML =
        stage.legend.map(([style, text]) => `<span><i class="live-key ${style}"></i>${text}</span>`).join(" ");
      root.querySelector(".live-facts").innerHTML =
        stage.facts.map(([name, value, text = value]) => `<div><dt>${name}</dt><dd data-value="${value}">${text}</dd></div>`).join("");
    };
    const show = (input, control) => {
      const text = short(control.values[input.value]);
      input.setAttribute("aria-valuetext", text);
      input.previousElementSibling.querySelector("b").textContent = text;
    };
    root.querySelectorAll("input").forEach((input, k) => {
      show(input, controls[k]);
      input.addEventListener("input", () => {
        values[controls[k].key] = controls[k].values[input.value];
        show(input, controls[k]);
        draw();
      });
    });
    let width = 0;
    new ResizeObserver(() => {
      if (drawing.clientWidth !== width) {
        width = drawing.clientWidth;
        draw();
      }
    }).observe(drawing);
  };

  const start = () => document.querySelectorAll(".live[data-figure]").forEach(mount);
  window.sgdmcLive = { Stream };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
