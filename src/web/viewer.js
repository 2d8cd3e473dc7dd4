// The films: one image, or two side by side, with boxes drawn on them. Both are zoomed and moved
// together, so that the same place is compared with itself.

import { byId, element, shape } from "./elements.js";

const STEP = 1.25;
const MOST = 8;
const SVG_SIZE = 1000;

/// Shows the images of a conversation.
export class Viewer {
  #root = byId("films");
  #stage = byId("stage");
  #strip = byId("strip");
  #images = [];
  /// What stands on the left and on the right; alone, the right one.
  #left = null;
  #right = null;
  #sideBySide = false;
  #boxes = new Map();
  #view = { scale: 1, x: 0, y: 0 };

  constructor() {
    byId("side-by-side").addEventListener("click", () => this.#pair(!this.#sideBySide));
    byId("swap").addEventListener("click", () => {
      [this.#left, this.#right] = [this.#right, this.#left];
      this.#draw();
    });
    byId("invert").addEventListener("click", (event) => {
      const inverted = this.#stage.classList.toggle("inverted");
      event.currentTarget.setAttribute("aria-pressed", String(inverted));
    });
    byId("zoom-in").addEventListener("click", () => this.#zoom(STEP));
    byId("zoom-out").addEventListener("click", () => this.#zoom(1 / STEP));
    byId("zoom-reset").addEventListener("click", () => this.#reset());
    this.#stage.addEventListener("keydown", (event) => this.#key(event));
    this.#stage.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    this.#stage.addEventListener("pointerdown", (event) => this.#drag(event));
    this.#stage.addEventListener("dblclick", () => this.#reset());
    new ResizeObserver(() => this.#fit()).observe(this.#stage);
    this.#draw();
  }

  /// Adds an image and shows it.
  add(image) {
    this.#images.push(image);
    if (this.#right && !this.#left) this.#left = this.#right;
    this.#right = image;
    this.#changed();
  }

  /// Takes an image away.
  remove(image) {
    this.#images = this.#images.filter((other) => other !== image);
    this.#boxes.delete(image);
    this.#changed();
  }

  /// Takes all away.
  clear() {
    this.#images = [];
    this.#boxes.clear();
    this.#reset();
    this.#changed();
  }

  /// Puts an image where it is seen.
  show(image) {
    if (!this.#images.includes(image)) return;
    if (this.#sideBySide && image === this.#left) return;
    this.#right = image;
    this.#draw();
  }

  /// Draws boxes on an image, in place of those that it had.
  mark(image, boxes) {
    const before = this.#boxes.get(image) ?? [];
    if (before.length === boxes.length && boxes.length === 0) return;
    this.#boxes.set(image, boxes);
    this.#draw();
  }

  /// What an image is called while two stand side by side.
  nameOf(image) {
    if (!this.#sideBySide) return "";
    if (image === this.#left) return "Prior";
    return image === this.#right ? "Current" : "";
  }

  #pair(sideBySide) {
    this.#sideBySide = sideBySide;
    this.#changed();
  }

  #changed() {
    const has = (image) => this.#images.includes(image);
    if (!has(this.#right)) this.#right = this.#images.findLast((image) => image !== this.#left) ?? null;
    if (!has(this.#left) || this.#left === this.#right) {
      this.#left = this.#images.find((image) => image !== this.#right) ?? null;
    }
    if (!this.#left || !this.#right) this.#sideBySide = false;
    this.#draw();
  }

  #draw() {
    const shown = this.#sideBySide ? [this.#left, this.#right] : [this.#right].filter(Boolean);
    this.#root.classList.toggle("empty", shown.length === 0);
    document.body.classList.toggle("has-films", shown.length > 0);
    document.body.classList.toggle("has-pair", this.#sideBySide);
    this.#stage.classList.toggle("paired", this.#sideBySide);
    this.#stage.replaceChildren(...shown.map((image) => this.#figure(image)));
    const button = byId("side-by-side");
    button.setAttribute("aria-pressed", String(this.#sideBySide));
    button.hidden = this.#images.length < 2;
    byId("swap").hidden = !this.#sideBySide;
    this.#strip.hidden = this.#images.length < 2;
    this.#strip.replaceChildren(...this.#images.map((image, index) => this.#thumb(image, index)));
    this.#fit();
  }

  #figure(image) {
    const shown = element("img", { src: image.shownUrl, alt: image.name, draggable: "false" });
    const frame = element("div", { class: "frame" }, shown, ...this.#marks(image));
    const size = element("span", { class: "size" });
    const figure = element(
      "figure",
      {},
      element("div", { class: "pane" }, frame),
      element("figcaption", {}, this.nameOf(image) ? element("b", {}, this.nameOf(image)) : null, element("span", {}, image.name), size),
    );
    shown.addEventListener("load", () => {
      size.textContent = `${shown.naturalWidth} × ${shown.naturalHeight}`;
      this.#fit();
    });
    shown.addEventListener("error", () => {
      figure.classList.add("unseen");
      size.textContent = "this browser cannot show it; the model can see it";
    });
    return figure;
  }

  #marks(image) {
    const boxes = this.#boxes.get(image) ?? [];
    if (boxes.length === 0) return [];
    const drawing = shape("svg", { class: "boxes", viewBox: `0 0 ${SVG_SIZE} ${SVG_SIZE}`, preserveAspectRatio: "none" });
    drawing.append(
      ...boxes.map((box) =>
        shape("rect", {
          x: box.left * SVG_SIZE,
          y: box.top * SVG_SIZE,
          width: (box.right - box.left) * SVG_SIZE,
          height: (box.bottom - box.top) * SVG_SIZE,
        }),
      ),
    );
    const labels = boxes.map((box, index) => {
      const label = element("span", { class: "box-label" }, box.label || String(index + 1));
      label.style.left = `${box.left * 100}%`;
      label.style.top = `${box.top * 100}%`;
      return label;
    });
    return [drawing, ...labels];
  }

  #thumb(image, index) {
    const isShown = image === this.#right || (this.#sideBySide && image === this.#left);
    return element(
      "button",
      {
        type: "button",
        class: "thumb",
        "aria-pressed": String(isShown),
        title: image.name,
        "aria-label": `Show image ${index + 1}, ${image.name}`,
        onclick: () => {
          if (this.#sideBySide && image !== this.#left) this.#right = image;
          else if (!this.#sideBySide) this.#right = image;
          this.#changed();
          this.#strip.children[index]?.focus();
        },
      },
      element("img", { src: image.shownUrl, alt: "" }),
      this.nameOf(image) ? element("span", {}, this.nameOf(image)) : null,
    );
  }

  /// Gives each frame its image's shape, as large as its pane allows.
  #fit() {
    for (const pane of this.#stage.querySelectorAll(".pane")) {
      const frame = pane.firstElementChild;
      const { naturalWidth: width, naturalHeight: height } = frame.querySelector("img");
      if (!width || !height) continue;
      const scale = Math.min(pane.clientWidth / width, pane.clientHeight / height);
      frame.style.width = `${width * scale}px`;
      frame.style.height = `${height * scale}px`;
    }
    this.#move();
  }

  #move() {
    const { scale, x, y } = this.#view;
    for (const frame of this.#stage.querySelectorAll(".frame")) {
      frame.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
      frame.style.setProperty("--scale", scale);
    }
    byId("zoom-reset").disabled = scale === 1 && x === 0 && y === 0;
  }

  #zoom(factor) {
    const scale = Math.min(Math.max(this.#view.scale * factor, 1), MOST);
    const change = scale / this.#view.scale;
    this.#view = scale === 1 ? { scale, x: 0, y: 0 } : { scale, x: this.#view.x * change, y: this.#view.y * change };
    this.#move();
  }

  #reset() {
    this.#view = { scale: 1, x: 0, y: 0 };
    this.#move();
  }

  #wheel(event) {
    // As in maps: the wheel alone scrolls the page on a phone's layout.
    if (!event.ctrlKey && this.#view.scale === 1 && event.deltaY > 0) return;
    event.preventDefault();
    this.#zoom(event.deltaY < 0 ? STEP : 1 / STEP);
  }

  #drag(event) {
    if (this.#view.scale === 1 || event.button !== 0) return;
    event.preventDefault();
    this.#stage.setPointerCapture(event.pointerId);
    const from = { x: event.clientX - this.#view.x, y: event.clientY - this.#view.y };
    const move = (event) => {
      this.#view = { ...this.#view, x: event.clientX - from.x, y: event.clientY - from.y };
      this.#move();
    };
    const end = () => {
      this.#stage.removeEventListener("pointermove", move);
      this.#stage.removeEventListener("pointerup", end);
      this.#stage.removeEventListener("pointercancel", end);
    };
    this.#stage.addEventListener("pointermove", move);
    this.#stage.addEventListener("pointerup", end);
    this.#stage.addEventListener("pointercancel", end);
  }

  #key(event) {
    const by = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] }[event.key];
    if (event.key === "+" || event.key === "=") this.#zoom(STEP);
    else if (event.key === "-") this.#zoom(1 / STEP);
    else if (event.key === "0") this.#reset();
    else if (by && this.#view.scale > 1) {
      this.#view = { ...this.#view, x: this.#view.x + by[0], y: this.#view.y + by[1] };
      this.#move();
    } else return;
    event.preventDefault();
  }
}
