const data = JSON.parse(document.getElementById("data")?.textContent || "null");
const MAX_CELL_IMAGES = 300; // Images of a cell of the confusion matrix that are shown.

// Decoded once and asynchronously. Drawing from the element itself would decode it again each time.
const sprite = document.getElementById("sprite");
const sheet = sprite && sprite.decode().then(() => createImageBitmap(sprite));

/** A canvas with the thumbnail of one point, cut out of the sprite. */
function thumbnail(i) {
  const {side_x, side_y, columns} = data.sprite;
  const canvas = Object.assign(document.createElement("canvas"), {width: side_x, height: side_y});
  sheet.then(picture => canvas.getContext("2d").drawImage(
    picture, side_x * (i % columns), side_y * Math.floor(i / columns), side_x, side_y, 0, 0, side_x, side_y));
  return canvas;
}

function element(tag, className, text = "") {
  return Object.assign(document.createElement(tag), {className, textContent: text});
}

const nameOf = index => index < 0 ? "no label" : data.classes[index];
const rgb = hex => [1, 3, 5].map(at => parseInt(hex.slice(at, at + 2), 16));

/** Colour schemes by name: `of` returns the group of a point; groups have names and colours. */
function colourSchemes() {
  const {label, prediction, confidence, split} = data.points;
  const steps = [50, 70, 90, 99];
  const faint = getComputedStyle(document.documentElement).getPropertyValue("--faint").trim();
  return {
    class: {
      of: i => label[i] < 0 ? data.classes.length : label[i],
      names: [...data.classes, "no label"], colours: [...data.colours, faint],
    },
    prediction: {of: i => prediction[i], names: data.classes, colours: data.colours},
    confidence: {
      of: i => steps.filter(step => confidence[i] >= step).length,
      names: ["below 50%", "50 to 69%", "70 to 89%", "90 to 98%", "99% and more"],
      colours: ["#c8383c", "#e98a4b", "#d9bd55", "#6fae9f", "#3b7ea8"],
    },
    split: {
      of: i => split[i],
      names: ["training, labelled", "training, unlabelled", "test"], colours: ["#e2703a", faint, "#4879a8"],
    },
  };
}

function drawMap() {
  const canvas = document.getElementById("points"), card = document.getElementById("card");
  const ring = document.getElementById("ring"), count = data.points.x.length;
  const form = document.getElementById("controls"), legend = document.getElementById("legend");
  const unit = values => Float32Array.from(values, value => value / data.steps);
  const points2d = [unit(data.points.x), unit(data.points.y), null];
  const points3d = [unit(data.points.x3), unit(data.points.y3), unit(data.points.z3)];
  let schemes = colourSchemes();
  const hidden = Object.fromEntries(Object.keys(schemes).map(name => [name, new Set()]));

  function showCard(i, x, y) {
    card.hidden = ring.hidden = i < 0;
    if (i < 0) return;
    const {name, label, prediction, confidence} = data.points;
    const correctness = label[i] < 0 ? "" : label[i] === prediction[i] ? "correct" : "wrong";
    const caption = element("div", "caption");
    caption.append(element("b", "", name[i]), element("span", "", "label: " + nameOf(label[i])),
      element("span", correctness, `predicted: ${nameOf(prediction[i])}, ${confidence[i]}%`));
    card.replaceChildren(thumbnail(i), caption);
    ring.style.transform = `translate(${x}px, ${y}px)`;
    const left = x > canvas.clientWidth / 2 ? x - card.offsetWidth - 14 : x + 14;
    const top = Math.min(y + 10, canvas.clientHeight - card.offsetHeight - 6);
    card.style.transform = `translate(${Math.max(0, left)}px, ${Math.max(0, top)}px)`;
  }

  const map = scatter(canvas, count, showCard);
  document.getElementById("plain").hidden = !map.plain;

  function recolour() {
    const scheme = schemes[form.elements.colour.value], colours = scheme.colours.map(rgb);
    const filters = Object.keys(schemes).filter(name => hidden[name].size);
    const isVisible = i => filters.every(name => !hidden[name].has(schemes[name].of(i)));
    let visible = 0;
    map.colour(i => isVisible(i) ? (visible++, colours[scheme.of(i)]) : null);
    const [shown, total] = [visible, count].map(number => number.toLocaleString("en"));
    document.getElementById("visible-count").textContent = `${shown} of ${total} shown`;
  }

  function listGroups() {
    const name = form.elements.colour.value, scheme = schemes[name];
    const sizes = scheme.names.map(() => 0);
    for (let i = 0; i < count; i++) sizes[scheme.of(i)]++;
    legend.replaceChildren(...scheme.names.map((text, group) => {
      const button = element("button", "group"), swatch = element("i", "swatch");
      swatch.style.background = scheme.colours[group];
      button.type = "button";
      button.append(swatch, element("span", "", text), element("small", "", sizes[group].toLocaleString("en")));
      button.setAttribute("aria-pressed", String(!hidden[name].has(group)));
      button.addEventListener("click", () => {
        if (!hidden[name].delete(group)) hidden[name].add(group);
        button.setAttribute("aria-pressed", String(!hidden[name].has(group)));
        recolour();
      });
      const item = element("li", "");
      item.append(button);
      return sizes[group] ? item : null;
    }).filter(Boolean));
    recolour();
  }

  form.addEventListener("change", event => {
    if (event.target.name === "dimensions") map.setPoints(...(event.target.value === "3" ? points3d : points2d));
    else listGroups();
  });
  const clicks = {
    closer: () => map.zoomBy(1.4), farther: () => map.zoomBy(1 / 1.4), whole: map.reset,
    all: () => { Object.values(hidden).forEach(set => set.clear()); listGroups(); },
    none: () => {
      const name = form.elements.colour.value;
      schemes[name].names.forEach((_, group) => hidden[name].add(group));
      listGroups();
    },
  };
  for (const [id, act] of Object.entries(clicks)) document.getElementById(id).addEventListener("click", act);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", () => { schemes = colourSchemes(); listGroups(); });
  // A reloaded page keeps the form's values.
  map.setPoints(...(form.elements.dimensions.value === "3" ? points3d : points2d));
  listGroups();
}

/** Cells of the confusion matrix open a dialog with their images. One is in the tab order; arrow keys reach others. */
function openCells() {
  const table = document.getElementById("confusion"), dialog = document.getElementById("cell-dialog");
  const readout = document.getElementById("readout"), close = document.getElementById("close");
  const title = document.getElementById("cell-title"), summary = document.getElementById("cell-summary");
  const images = document.getElementById("cell-images");
  const rows = [...table.tBodies[0].rows].map(row => [...row.querySelectorAll("td.cell")]);
  const position = button => [button.closest("tr").sectionRowIndex, button.closest("td").cellIndex - 1];
  const {label, prediction, confidence, split, name} = data.points;

  function describe([true_, predicted]) {
    return true_ === predicted ? `${nameOf(true_)}, predicted correctly`
      : `${nameOf(true_)}, predicted as ${nameOf(predicted)}`;
  }

  function open(button) {
    const [true_, predicted] = position(button), total = Number(button.textContent.replaceAll(",", ""));
    const points = label.flatMap((cls, i) =>
      cls === true_ && prediction[i] === predicted && split[i] === 2 ? [i] : []);
    points.sort((a, b) => confidence[b] - confidence[a]);
    points.splice(MAX_CELL_IMAGES);
    title.textContent = describe([true_, predicted]);
    const all = points.length === total;
    summary.textContent = `${all ? total.toLocaleString("en") : `${points.length} of ${total.toLocaleString("en")}`} `
      + `test image${total === 1 ? "" : "s"}${all ? "" : " shown"}, the most confident first`;
    images.replaceChildren(...points.map(i => {
      const item = element("li", "");
      item.append(thumbnail(i), element("b", "", name[i]), element("span", "", `${confidence[i]}%`));
      return item;
    }));
    dialog.showModal();
    dialog.scrollTop = 0;
  }

  function showReadout(button) {
    readout.textContent = button ? `${describe(position(button))}: ${button.textContent}` : readout.dataset.idle;
  }

  function step(button, dy, dx) {
    let [y, x] = position(button);
    do { y += dy; x += dx; } while (rows[y]?.[x] && !rows[y][x].firstElementChild);
    const next = rows[y]?.[x]?.firstElementChild;
    if (next) next.focus();
  }

  const buttonOf = event => event.target.closest("td.cell button");
  const first = table.querySelector("td.cell button");
  table.querySelectorAll("td.cell button").forEach(button => { button.tabIndex = button === first ? 0 : -1; });
  table.addEventListener("click", event => { if (buttonOf(event)) open(buttonOf(event)); });
  table.addEventListener("pointerover", event => showReadout(buttonOf(event)));
  table.addEventListener("pointerleave", () => showReadout(null));
  table.addEventListener("focusin", event => {
    if (!buttonOf(event)) return;
    table.querySelectorAll("td.cell button[tabindex='0']").forEach(button => { button.tabIndex = -1; });
    buttonOf(event).tabIndex = 0;
    showReadout(buttonOf(event));
  });
  const arrows = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]};
  table.addEventListener("keydown", event => {
    if (!arrows[event.key] || !buttonOf(event)) return;
    event.preventDefault();
    step(buttonOf(event), ...arrows[event.key]);
  });
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
}

let opened = [];
window.addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  opened.forEach(each => { each.open = true; });
});
window.addEventListener("afterprint", () => opened.forEach(each => { each.open = false; }));

if (data) {
  drawMap();
  openCells();
}
