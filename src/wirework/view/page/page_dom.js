"use strict";
// Elements, numbers and colours. Text enters the page through textContent only.

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  Object.assign(element, properties);
  element.append(...children);
  return element;
}

function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function byId(id) {
  return document.getElementById(id);
}

// Weights and means are shown exactly as stored, in a form that can be pasted; a missing number is a dash.
function exact(value) {
  return value === null || value === undefined ? "–" : String(value);
}

function brief(value) {
  if (value === null || value === undefined) return "–";
  return String(Number(value.toPrecision(3)));
}

function grouped(count) {
  return String(count).replace(/\B(?=(\d{3})+$)/g, ",");
}

function counted(count, noun) {
  return `${grouped(count)} ${noun}${count === 1 ? "" : "s"}`;
}

// Diverging and colour-blind safe: orange below zero, white at zero, blue above; dark text stays
// readable on both ends.
function colour(share) {
  const end = share < 0 ? [253, 160, 80] : [104, 172, 220];
  const t = Math.min(1, Math.abs(share));
  return `rgb(${end.map((c) => Math.round(255 + (c - 255) * t)).join(", ")})`;
}

function largest(values) {
  return values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
}

const tooltip = {
  show(event, ...lines) {
    const box = byId("tooltip");
    box.replaceChildren(...lines.flatMap((line, i) => (i ? ["\n", line] : [line])));
    box.hidden = false;
    const { clientX: x, clientY: y } = event;
    const left = x + 16 + box.offsetWidth > innerWidth ? x - box.offsetWidth - 12 : x + 16;
    const top = Math.min(y + 14, innerHeight - box.offsetHeight - 6);
    box.style.left = `${Math.max(4, left)}px`;
    box.style.top = `${Math.max(4, top)}px`;
  },
  hide() {
    byId("tooltip").hidden = true;
  },
};
