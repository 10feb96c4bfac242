"use strict";

// Sorting: numbers by what a cell begins with, then words, then what was not measured, in either direction.
function sortKey(cell) {
  const text = cell.textContent.trim();
  const number = /^[<>=\s]*([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)/i.exec(text);
  if (number) return [0, Number(number[1])];
  return [text === "" || text === "nan" || text.startsWith("not measured") ? 2 : 1, text];
}

function compare([rank, a], [otherRank, b], sign) {
  if (rank !== otherRank) return rank - otherRank;
  return sign * (rank === 0 ? a - b : a.localeCompare(b, "en", { numeric: true }));
}

const NEXT = { none: "ascending", ascending: "descending", descending: "none" };

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], original = [...body.rows], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const order = NEXT[head.getAttribute("aria-sort") || "none"], sign = order === "descending" ? -1 : 1;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    const rows = [...original];
    if (order !== "none") {
      head.setAttribute("aria-sort", order);
      const keys = new Map(rows.map((row) => [row, sortKey(row.cells[column])]));
      rows.sort((a, b) => compare(keys.get(a), keys.get(b), sign));
    }
    body.append(...rows);
  }));
}

// Images: a run's file holds the base model's tiles above the tuned ones, and a tile is a window on it.
function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function tile(sheet, count, column, row, name, score, prompt) {
  const made = element("figure", "tile"), picture = element("div", sheet ? "picture" : "picture empty");
  if (sheet) {
    picture.setAttribute("role", "img");
    picture.setAttribute("aria-label", `${name}: ${prompt}`);
    picture.style.backgroundImage = `url("${sheet}")`;
    picture.style.backgroundSize = `${100 * count}% 200%`;
    picture.style.backgroundPosition = `${count > 1 ? (100 * column) / (count - 1) : 0}% ${100 * row}%`;
  } else {
    picture.textContent = "no picture";
  }
  const caption = element("figcaption", "");
  caption.append(element("span", "name", name), element("span", "score", score));
  made.append(picture, caption);
  return made;
}

function show(box, chains) {
  box.replaceChildren();
  const count = Math.max(0, ...chains.map((chain) => chain.prompts.length));
  for (let i = 0; i < count; i++) {
    const block = element("section", "prompt");
    let heading;
    for (const { prompts, scores, runs } of chains.filter((chain) => i < chain.prompts.length)) {
      if (heading !== prompts[i]) block.append(element(box.dataset.heading, "", (heading = prompts[i])));
      const row = element("div", "row"), tuned = element("div", "tuned");
      const cut = (sheet, line, name, score) => tile(sheet, prompts.length, i, line, name, score, heading);
      const base = cut(runs.map((run) => run.sheet).find(Boolean), 0, "base model", scores[i]);
      base.classList.add("base");
      tuned.append(...runs.map((run) => cut(run.sheet, 1, run.variant, run.scores[i])));
      row.append(base, tuned);
      block.append(row);
    }
    box.append(block);
  }
}

for (const browser of document.querySelectorAll(".browser")) {
  const pictures = JSON.parse(browser.querySelector("script").textContent);
  const [reward, seed] = browser.querySelectorAll("select");
  const update = () => {
    const { chains, absent } = pictures[reward.value][seed.value] || { chains: [], absent: [] };
    const runs = chains.reduce((sum, chain) => sum + chain.runs.length, 0);
    const nothing = runs + absent.length ? "" : " The profile has no run of this reward with this seed.";
    browser.querySelector("[role=status]").textContent = `${reward.value}, seed ${seed.value}: ${runs} tuned models.` +
      (absent.length ? ` Not measured: ${absent.join(", ")}.` : nothing);
    show(browser.querySelector(".prompts"), chains);
  };
  reward.addEventListener("change", update);
  seed.addEventListener("change", update);
  update();
}

// Paper cannot be clicked.
addEventListener("beforeprint", () => document.querySelectorAll(".claims details").forEach((d) => (d.open = true)));
