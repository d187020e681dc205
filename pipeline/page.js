"use strict";
// Everything works without this script but sorting, and saying how long each sound is.

// Sorts the clips by any score.
function sortable(list, controls) {
  const cards = [...list.children];
  const scores = new Map(cards.map((card) => [card, JSON.parse(card.dataset.scores)]));
  const [measure, system, order] = ["measure", "system", "order"].map((id) => controls.querySelector(`#${id}`));

  // Of a card: the score to sort by and the system it is of; the worst of all systems where none is chosen.
  function found(card, falling) {
    const values = scores.get(card)[measure.value] || {};
    const rows = system.value ? [system.value] : Object.keys(values).filter((row) => row in generated);
    const known = rows.filter((row) => row in values).sort((a, b) => values[a] - values[b]);
    return known.length ? [values[known.at(falling ? 0 : -1)], known.at(falling ? 0 : -1)] : [null, ""];
  }

  const generated = Object.fromEntries(
    [...system.options].filter((option) => option.dataset.generated).map((option) => [option.value, true])
  );

  function sort() {
    const option = measure.selectedOptions[0];
    const higherIsBetter = option.dataset.better === "higher";
    const sign = (order.value === "worst") === higherIsBetter ? 1 : -1;
    const keyed = cards.map((card, index) => [card, index, ...found(card, higherIsBetter)]);
    if (order.value !== "given") {
      keyed.sort((a, b) => (a[2] === null) - (b[2] === null) || sign * (a[2] - b[2]) || a[1] - b[1]);
    }
    for (const [card, , value, row] of keyed) {
      list.append(card);
      const name = system.querySelector(`option[value="${CSS.escape(row)}"]`)?.textContent;
      const shown = value === null ? "no score" : `${value.toFixed(Number(option.dataset.digits))} · ${name}`;
      card.querySelector("output").textContent = order.value === "given" ? "" : `${option.textContent}: ${shown}`;
    }
  }

  function choose(select, value) {
    if ([...select.options].some((option) => option.value === value)) select.value = value;
  }

  function fromAddress() {
    const given = new URLSearchParams(location.hash.slice(1));
    choose(measure, given.get("sort"));
    choose(system, given.get("system"));
    choose(order, given.get("order") ?? (given.has("sort") ? "worst" : "given"));
    sort();
  }

  for (const select of [measure, system, order]) {
    select.addEventListener("change", () => {
      if (select !== order && order.value === "given") order.value = "worst";
      const state = new URLSearchParams({ sort: measure.value, system: system.value, order: order.value });
      history.replaceState(null, "", `#${state}`);
      sort();
    });
  }
  addEventListener("hashchange", fromAddress);
  fromAddress();
}

// Says how long each sound is, and plays one at a time.
function playable(players) {
  for (const player of players) {
    const length = player.parentElement.querySelector(".length");
    const tell = () => (length.textContent = `${player.duration.toFixed(1)} s`);
    player.readyState ? tell() : player.addEventListener("loadedmetadata", tell);
    player.addEventListener("error", () => (length.textContent = "cannot be played"));
    player.addEventListener("play", () => players.forEach((other) => other === player || other.pause()));
  }
}

// No controls where no clip has a score.
const controls = document.querySelector(".controls");
if (controls) sortable(document.getElementById("clips"), controls);
playable([...document.querySelectorAll("audio")]);
