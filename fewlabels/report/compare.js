const data = JSON.parse(document.getElementById("data")?.textContent || "null");
const MOST_BEHIND = 300; // Images behind a cell that are shown at once.

// Decoded once, beside the page's own work: drawing from the element itself would wait for that, and repeat it.
const sprite = document.getElementById("sprite");
const sheet = sprite && sprite.decode().then(() => createImageBitmap(sprite));

/** A canvas with the image of one point, cut out of the picture that holds them all. */
function thumb(i) {
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

/** Ways to colour the points: a group for each point, and the groups' names and colours. */
function colourings() {
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
  const unit = values => Float32Array.from(values, value => value / data.grid);
  const flat = [unit(data.points.x), unit(data.points.y), null];
  const deep = [unit(data.points.x3), unit(data.points.y3), unit(data.points.z3)];
  let ways = colourings();
  const hidden = Object.fromEntries(Object.keys(ways).map(name => [name, new Set()]));

  function tell(i, x, y) {
    card.hidden = ring.hidden = i < 0;
    if (i < 0) return;
    const {name, label, prediction, confidence} = data.points;
    const right = label[i] < 0 ? "" : label[i] === prediction[i] ? "right" : "wrong";
    const words = element("div", "words");
    words.append(element("b", "", name[i]), element("span", "", "label: " + nameOf(label[i])),
      element("span", right, `predicted: ${nameOf(prediction[i])}, ${confidence[i]}%`));
    card.replaceChildren(thumb(i), words);
    ring.style.transform = `translate(${x}px, ${y}px)`;
    const left = x > canvas.clientWidth / 2 ? x - card.offsetWidth - 14 : x + 14;
    const top = Math.min(y + 10, canvas.clientHeight - card.offsetHeight - 6);
    card.style.transform = `translate(${Math.max(0, left)}px, ${Math.max(0, top)}px)`;
  }

  const map = scatter(canvas, count, tell);
  document.getElementById("plain").hidden = !map.plain;

  function recolour() {
    const way = ways[form.elements.colour.value], colours = way.colours.map(rgb);
    const filters = Object.keys(ways).filter(name => hidden[name].size);
    const isShown = i => filters.every(name => !hidden[name].has(ways[name].of(i)));
    let seen = 0;
    map.colour(i => isShown(i) ? (seen++, colours[way.of(i)]) : null);
    document.getElementById("seen").textContent = `${seen.toLocaleString("en")} of ${count.toLocaleString("en")} shown`;
  }

  function listGroups() {
    const name = form.elements.colour.value, way = ways[name];
    const sizes = way.names.map(() => 0);
    for (let i = 0; i < count; i++) sizes[way.of(i)]++;
    legend.replaceChildren(...way.names.map((text, group) => {
      const button = element("button", "group"), swatch = element("i", "swatch");
      swatch.style.background = way.colours[group];
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
    if (event.target.name === "dimensions") map.place(...(event.target.value === "3" ? deep : flat));
    else listGroups();
  });
  const clicks = {
    closer: () => map.zoomBy(1.4), farther: () => map.zoomBy(1 / 1.4), whole: map.reset,
    all: () => { Object.values(hidden).forEach(set => set.clear()); listGroups(); },
    none: () => {
      const name = form.elements.colour.value;
      ways[name].names.forEach((_, group) => hidden[name].add(group));
      listGroups();
    },
  };
  for (const [id, act] of Object.entries(clicks)) document.getElementById(id).addEventListener("click", act);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { ways = colourings(); listGroups(); });
  map.place(...(form.elements.dimensions.value === "3" ? deep : flat)); // A reloaded page keeps what was chosen.
  listGroups();
}

/** Cells open the images behind them; one of them is in the tab order, arrow keys go to the others. */
function openCells() {
  const table = document.getElementById("confusion"), dialog = document.getElementById("behind");
  const readout = document.getElementById("readout"), close = document.getElementById("close");
  const title = document.getElementById("behind-title"), about = document.getElementById("behind-about");
  const images = document.getElementById("behind-images");
  const rows = [...table.tBodies[0].rows].map(row => [...row.querySelectorAll("td.cell")]);
  const place = button => [button.closest("tr").sectionRowIndex, button.closest("td").cellIndex - 1];
  const {label, prediction, confidence, split, name} = data.points;

  function words([true_, predicted]) {
    return true_ === predicted ? `${nameOf(true_)}, recognised`
      : `${nameOf(true_)}, taken for ${nameOf(predicted)}`;
  }

  function open(button) {
    const [true_, predicted] = place(button), total = Number(button.textContent.replaceAll(",", ""));
    const behind = label.flatMap((cls, i) =>
      cls === true_ && prediction[i] === predicted && split[i] === 2 ? [i] : []);
    behind.sort((a, b) => confidence[b] - confidence[a]);
    behind.splice(MOST_BEHIND);
    title.textContent = words([true_, predicted]);
    const all = behind.length === total;
    about.textContent = `${all ? total.toLocaleString("en") : `${behind.length} of ${total.toLocaleString("en")}`} `
      + `test image${total === 1 ? "" : "s"}${all ? "" : " shown"}, the most confident first`;
    images.replaceChildren(...behind.map(i => {
      const item = element("li", "");
      item.append(thumb(i), element("b", "", name[i]), element("span", "", `${confidence[i]}%`));
      return item;
    }));
    dialog.showModal();
    dialog.scrollTop = 0;
  }

  function say(button) {
    readout.textContent = button ? `${words(place(button))}: ${button.textContent}` : readout.dataset.idle;
  }

  function step(button, dy, dx) {
    let [y, x] = place(button);
    do { y += dy; x += dx; } while (rows[y]?.[x] && !rows[y][x].firstElementChild);
    const next = rows[y]?.[x]?.firstElementChild;
    if (next) next.focus();
  }

  const buttonOf = event => event.target.closest("td.cell button");
  const first = table.querySelector("td.cell button");
  table.querySelectorAll("td.cell button").forEach(button => { button.tabIndex = button === first ? 0 : -1; });
  table.addEventListener("click", event => { if (buttonOf(event)) open(buttonOf(event)); });
  table.addEventListener("pointerover", event => say(buttonOf(event)));
  table.addEventListener("pointerleave", () => say(null));
  table.addEventListener("focusin", event => {
    if (!buttonOf(event)) return;
    table.querySelectorAll("td.cell button[tabindex='0']").forEach(button => { button.tabIndex = -1; });
    buttonOf(event).tabIndex = 0;
    say(buttonOf(event));
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
