"use strict";
// Reads values off charts: pointer or arrow keys move through the iterations; the numbers are those of the chart's table.
(() => {
  const plots = [];
  const clear = () => {
    for (const plot of plots) {
      plot.cross.style.visibility = "";
      plot.tip?.remove();
      plot.tip = null;
    }
  };
  const show = (plot, place) => {
    clear();
    plot.now = place;
    const at = plot.rows[place].name;
    for (const other of plots) {
      const same = other.group === plot.group ? other.rows.findIndex((row) => row.name === at) : -1;
      if (same < 0) continue;
      const x = `${other.xs[same]}%`;
      other.cross.setAttribute("x1", x);
      other.cross.setAttribute("x2", x);
      other.cross.style.visibility = "visible";
    }
    const tip = document.createElement("div");
    tip.className = "tip";
    const line = (label, value) => {
      const p = document.createElement("p");
      const b = document.createElement("b");
      p.append(label, b);
      b.textContent = value;
      tip.append(p);
    };
    line("Iteration", at);
    const row = plot.rows[place];
    row.values.forEach((value, column) => line(plot.labels[column], value));
    plot.probe.setAttribute("aria-valuenow", place);
    plot.probe.setAttribute("aria-valuetext", `Iteration ${at}: ` + row.values.map((v, i) => `${plot.labels[i]} ${v}`).join(", "));
    const x = plot.xs[place];
    if (x > 50) tip.style.right = `${102 - x}%`;
    else tip.style.left = `${x + 2}%`;
    plot.probe.append(tip);
    plot.tip = tip;
  };
  for (const figure of document.querySelectorAll("figure.chart")) {
    const table = figure.querySelector("table");
    const labels = [...table.tHead.rows[0].cells].slice(1).map((cell) => cell.textContent);
    const rows = [...table.tBodies[0].rows].map((row) => ({
      name: row.cells[0].textContent,
      values: [...row.cells].slice(1).map((cell) => cell.textContent),
    }));
    const holder = figure.querySelector(".plot");
    const probe = document.createElement("div");
    const wrap = document.createElement("div");
    wrap.className = "over";
    holder.replaceWith(wrap);
    wrap.append(holder, probe);
    const title = figure.querySelector("figcaption > :first-child").textContent;
    probe.className = "probe";
    probe.tabIndex = 0;
    for (const [name, value] of Object.entries({
      role: "slider", "aria-label": `Iteration in ${title}`, "aria-valuemin": 0, "aria-valuemax": rows.length - 1,
      "aria-valuenow": rows.length - 1, "aria-valuetext": `Iteration ${rows.at(-1).name}`,
    })) probe.setAttribute(name, value);
    const area = holder.querySelector(".area");
    const plot = {
      labels, rows, probe, tip: null, now: rows.length - 1, cross: area.querySelector(".cross"),
      xs: area.dataset.xs.split(" ").map(Number), group: figure.closest("section.run") ?? figure.closest("section")?.closest("main"),
    };
    plots.push(plot);
    const nearest = (event) => {
      const box = probe.getBoundingClientRect();
      const x = (100 * (event.clientX - box.left)) / box.width;
      let best = 0;
      plot.xs.forEach((value, place) => {
        if (Math.abs(value - x) < Math.abs(plot.xs[best] - x)) best = place;
      });
      return best;
    };
    probe.addEventListener("pointermove", (event) => show(plot, nearest(event)));
    probe.addEventListener("pointerdown", (event) => show(plot, nearest(event)));
    probe.addEventListener("pointerleave", clear);
    probe.addEventListener("blur", clear);
    probe.addEventListener("focus", () => show(plot, plot.now));
    probe.addEventListener("keydown", (event) => {
      const last = rows.length - 1;
      const to = {
        ArrowLeft: plot.now - 1, ArrowDown: plot.now - 1, ArrowRight: plot.now + 1, ArrowUp: plot.now + 1,
        PageDown: plot.now - 5, PageUp: plot.now + 5, Home: 0, End: last,
      }[event.key];
      if (event.key === "Escape") clear();
      if (to === undefined) return;
      event.preventDefault();
      show(plot, Math.min(Math.max(to, 0), last));
    });
  }
})();
