"use strict";
// Figures and samples are complete without this script. It adds values, zoom and filters.
const SVG = "http://www.w3.org/2000/svg";
const addElement = (tag, text, parent) => {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  parent.append(element);
  return element;
};

// An entry of a legend shows or hides its series.
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

// The pointer or the arrow keys show the values at a place of the x axis.
for (const plot of document.querySelectorAll(".plot[data-readings]")) {
  const readings = JSON.parse(plot.dataset.readings);
  const svg = plot.querySelector("svg");
  const { width, height } = svg.viewBox.baseVal;
  const guide = document.createElementNS(SVG, "path");
  guide.setAttribute("class", "guide");
  let tip = null, current = -1;

  const showValues = (index) => {
    current = Math.max(0, Math.min(readings.length - 1, index));
    const [x, head, lines] = readings[current];
    guide.setAttribute("d", `M${x} 12V${height - 42}`);
    svg.append(guide);
    if (!tip) {
      tip = addElement("div", "", plot);
      tip.className = "tip";
      tip.setAttribute("role", "status");
    }
    tip.replaceChildren();
    addElement("b", head, tip);
    for (const line of lines) addElement("span", line, tip);
    const seen = svg.viewBox.baseVal;
    const left = ((x - seen.x) / seen.width) * plot.clientWidth;
    const room = plot.clientWidth - tip.offsetWidth;
    tip.style.left = `${Math.max(0, Math.min(room, left > room / 2 ? left - tip.offsetWidth - 10 : left + 10))}px`;
    tip.style.top = "4px";
  };
  const hideValues = () => {
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
  plot.setAttribute("aria-label", `${svg.getAttribute("aria-label")} Arrow keys show its values.`);
  plot.addEventListener("pointermove", (event) => event.target.closest(".tools") || showValues(nearest(event)));
  const reset = () => {
    hideValues();
    current = -1;
  };
  plot.addEventListener("pointerleave", reset);
  plot.addEventListener("blur", reset);
  plot.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1 };
    if (event.target !== plot) return;
    if (event.key in steps) showValues(current + steps[event.key]);
    else if (event.key === "+") zoom(0.5);
    else if (event.key === "-") zoom(2);
    else if (event.key === "Escape") reset();
    else return;
    event.preventDefault();
  });

  // Zoom keeps the last shown place in view.
  const zoom = (factor) => {
    const seen = svg.viewBox.baseVal;
    const size = factor ? Math.min(1, Math.max(0.125, (seen.width / width) * factor)) : 1;
    const middle = current >= 0 ? readings[current][0] : seen.x + seen.width / 2;
    const clamp = (at, span, all) => Math.max(0, Math.min(all - span, at - span / 2));
    const x = clamp(middle, width * size, width);
    const y = clamp(seen.y + seen.height / 2, height * size, height);
    svg.setAttribute("viewBox", `${x} ${y} ${width * size} ${height * size}`);
    hideValues();
  };
  const tools = addElement("div", "", plot);
  tools.className = "tools";
  for (const [sign, label, factor] of [["+", "Zoom in", 0.5], ["−", "Zoom out", 2]]) {
    const button = addElement("button", sign, tools);
    button.type = "button";
    button.setAttribute("aria-label", label);
    button.addEventListener("click", () => zoom(factor));
  }
  let dragged = null;
  svg.addEventListener("pointerdown", (event) => (dragged = [event.clientX, event.clientY]));
  window.addEventListener("pointerup", () => (dragged = null));
  svg.addEventListener("pointermove", (event) => {
    const seen = svg.viewBox.baseVal;
    if (!dragged || seen.width >= width) return;
    const share = seen.width / svg.clientWidth;
    const x = Math.max(0, Math.min(width - seen.width, seen.x - (event.clientX - dragged[0]) * share));
    const y = Math.max(0, Math.min(height - seen.height, seen.y - (event.clientY - dragged[1]) * share));
    dragged = [event.clientX, event.clientY];
    svg.setAttribute("viewBox", `${x} ${y} ${seen.width} ${seen.height}`);
  });
}

// Filters for samples: by outcome and by text.
const filters = document.querySelector(".filters");
if (filters) {
  const cases = [...document.querySelectorAll(".case")];
  const search = filters.querySelector("input"), count = filters.querySelector("output");
  const apply = () => {
    const hidden = new Set();
    for (const button of filters.querySelectorAll("[aria-pressed=false]")) hidden.add(button.dataset.outcome);
    const text = search.value.trim().toLowerCase();
    let left = 0;
    for (const one of cases) {
      const matches = !text || one.querySelector("summary").textContent.toLowerCase().includes(text);
      one.hidden = hidden.has(one.dataset.outcome) || !matches;
      left += !one.hidden;
    }
    count.textContent = left === cases.length ? "" : `${left} of ${cases.length} shown`;
  };
  for (const button of filters.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
      apply();
    });
  }
  search.addEventListener("input", apply);
  filters.hidden = false;
}

// A link to a sample opens the sample.
const open = () => {
  const one = location.hash && document.getElementById(location.hash.slice(1));
  if (one && one.tagName === "DETAILS") one.open = true;
};
window.addEventListener("hashchange", open);
open();
