"use strict";
// Figures and samples are complete without this; it adds reading, zooming and filtering.
const SVG = "http://www.w3.org/2000/svg";
const make = (tag, words, parent) => {
  const made = document.createElement(tag);
  if (words) made.textContent = words;
  if (parent) parent.append(made);
  return made;
};

// A legend's entry hides its series.
for (const entry of document.querySelectorAll(".legend li")) {
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-pressed", "true");
  button.append(...entry.childNodes);
  entry.append(button);
  button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(shown));
    const series = entry.closest("figure").querySelectorAll(`svg [data-series="${entry.dataset.series}"]`);
    for (const part of series) part.classList.toggle("off", !shown);
  });
}

// A pointer, or the arrow keys, read off the values at a place.
for (const plot of document.querySelectorAll(".plot[data-readings]")) {
  const readings = JSON.parse(plot.dataset.readings);
  const svg = plot.querySelector("svg");
  const { width, height } = svg.viewBox.baseVal;
  const guide = document.createElementNS(SVG, "path");
  guide.setAttribute("class", "guide");
  let tip = null, place = -1;

  const say = (index) => {
    place = Math.max(0, Math.min(readings.length - 1, index));
    const [x, head, lines] = readings[place];
    guide.setAttribute("d", `M${x} 12V${height - 42}`);
    svg.append(guide);
    if (!tip) {
      tip = make("div", "", plot);
      tip.className = "tip";
      tip.setAttribute("role", "status");
    }
    tip.replaceChildren();
    make("b", head, tip);
    for (const words of lines) make("span", words, tip);
    const seen = svg.viewBox.baseVal;
    const left = ((x - seen.x) / seen.width) * plot.clientWidth;
    const room = plot.clientWidth - tip.offsetWidth;
    tip.style.left = `${Math.max(0, Math.min(room, left > room / 2 ? left - tip.offsetWidth - 10 : left + 10))}px`;
    tip.style.top = "4px";
  };
  const hush = () => {
    guide.remove();
    if (tip) tip.remove();
    tip = null;
  };
  const nearest = (event) => {
    const box = svg.getBoundingClientRect();
    const seen = svg.viewBox.baseVal;
    const x = seen.x + ((event.clientX - box.left) / box.width) * seen.width;
    let best = 0;
    readings.forEach(([at], index) => {
      if (Math.abs(at - x) < Math.abs(readings[best][0] - x)) best = index;
    });
    return best;
  };
  plot.tabIndex = 0;
  plot.setAttribute("role", "group");
  plot.setAttribute("aria-label", `${svg.getAttribute("aria-label")} Arrow keys read its values.`);
  plot.addEventListener("pointermove", (event) => event.target.closest(".tools") || say(nearest(event)));
  const forget = () => {
    hush();
    place = -1;
  };
  plot.addEventListener("pointerleave", forget);
  plot.addEventListener("blur", forget);
  plot.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1 };
    if (event.target !== plot) return;
    if (event.key in steps) say(place + steps[event.key]);
    else if (event.key === "+") zoom(0.5);
    else if (event.key === "-") zoom(2);
    else if (event.key === "Escape") forget();
    else return;
    event.preventDefault();
  });

  // Zoom keeps the point that was read last in view.
  const zoom = (factor) => {
    const seen = svg.viewBox.baseVal;
    const size = factor ? Math.min(1, Math.max(0.125, (seen.width / width) * factor)) : 1;
    const middle = place >= 0 ? readings[place][0] : seen.x + seen.width / 2;
    const clamp = (at, span, all) => Math.max(0, Math.min(all - span, at - span / 2));
    const x = clamp(middle, width * size, width);
    const y = clamp(seen.y + seen.height / 2, height * size, height);
    svg.setAttribute("viewBox", `${x} ${y} ${width * size} ${height * size}`);
    hush();
  };
  const tools = make("div", "", plot);
  tools.className = "tools";
  for (const [sign, words, factor] of [["+", "Zoom in", 0.5], ["−", "Zoom out", 2]]) {
    const button = make("button", sign, tools);
    button.type = "button";
    button.setAttribute("aria-label", words);
    button.addEventListener("click", () => zoom(factor));
  }
  let held = null;
  svg.addEventListener("pointerdown", (event) => (held = [event.clientX, event.clientY]));
  window.addEventListener("pointerup", () => (held = null));
  svg.addEventListener("pointermove", (event) => {
    const seen = svg.viewBox.baseVal;
    if (!held || seen.width >= width) return;
    const share = seen.width / svg.clientWidth;
    const x = Math.max(0, Math.min(width - seen.width, seen.x - (event.clientX - held[0]) * share));
    const y = Math.max(0, Math.min(height - seen.height, seen.y - (event.clientY - held[1]) * share));
    held = [event.clientX, event.clientY];
    svg.setAttribute("viewBox", `${x} ${y} ${seen.width} ${seen.height}`);
  });
}

// Samples by what became of them, and by words.
const filters = document.querySelector(".filters");
if (filters) {
  const cases = [...document.querySelectorAll(".case")];
  const wanted = filters.querySelector("input"), told = filters.querySelector("output");
  const apply = () => {
    const hidden = new Set();
    for (const button of filters.querySelectorAll("[aria-pressed=false]")) hidden.add(button.dataset.fate);
    const words = wanted.value.trim().toLowerCase();
    let left = 0;
    for (const one of cases) {
      const fits = !words || one.querySelector("summary").textContent.toLowerCase().includes(words);
      one.hidden = hidden.has(one.dataset.fate) || !fits;
      left += !one.hidden;
    }
    told.textContent = left === cases.length ? "" : `${left} of ${cases.length} shown`;
  };
  for (const button of filters.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
      apply();
    });
  }
  wanted.addEventListener("input", apply);
  filters.hidden = false;
}

// A link to a sample opens it.
const open = () => {
  const one = location.hash && document.getElementById(location.hash.slice(1));
  if (one && one.tagName === "DETAILS") one.open = true;
};
window.addEventListener("hashchange", open);
open();
