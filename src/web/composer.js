// The next question: its text, its images, and the sentence above it that says what is wrong.

import { byId, element, icon } from "./elements.js";
import { forget, readImage } from "./images.js";

/// What a person is about to ask.
export class Composer {
  #viewer;
  #text = byId("question");
  #images = [];

  constructor(viewer) {
    this.#viewer = viewer;
    this.#text.addEventListener("input", () => this.#grow());
  }

  /// A sentence above the question; an empty one takes it away.
  tell(sentence) {
    byId("notice").hidden = sentence === "";
    byId("notice").textContent = sentence;
  }

  focus() {
    this.#text.focus();
  }

  /// Puts a text there to be changed.
  suggest(text) {
    this.#text.value = text;
    this.#grow();
    this.focus();
  }

  numImages() {
    return this.#images.length;
  }

  /// Adds those of the files that are images.
  async add(files) {
    const wrong = [];
    for (const file of files) {
      try {
        const image = await readImage(file);
        this.#images.push(image);
        this.#viewer.add(image);
      } catch (error) {
        wrong.push(error.message);
      }
    }
    this.tell(wrong.join(" "));
    this.#show();
    this.focus();
  }

  /// The question as it stands, with what its images are called; null if there is none.
  turn() {
    const text = this.#text.value.trim();
    if (text === "" && this.#images.length === 0) return null;
    for (const image of this.#images) image.label = this.#viewer.nameOf(image);
    const isCurrent = ({ label }) => Number(label === "Current");
    const priorFirst = this.#images.toSorted((one, other) => isCurrent(one) - isCurrent(other));
    return { role: "user", text, images: priorFirst };
  }

  /// It was sent.
  clear() {
    this.#text.value = "";
    this.#images = [];
    this.#grow();
    this.#show();
  }

  /// It was not sent after all.
  giveBack({ text, images }) {
    this.#text.value ||= text;
    this.#images = [...images, ...this.#images];
    this.#grow();
    this.#show();
  }

  /// Drops it and what its images hold.
  discard() {
    this.#images.forEach(forget);
    this.#images = [];
    this.tell("");
    this.#show();
  }

  #remove(image) {
    this.#images = this.#images.filter((other) => other !== image);
    this.#viewer.remove(image);
    forget(image);
    this.#show();
    this.focus();
  }

  #show() {
    const item = (image) =>
      element(
        "li",
        {},
        element("img", { src: image.shownUrl, alt: "" }),
        element("span", {}, image.name),
        element(
          "button",
          { type: "button", "aria-label": `Take ${image.name} away`, onclick: () => this.#remove(image) },
          icon("close"),
        ),
      );
    byId("pending").hidden = this.#images.length === 0;
    byId("pending").replaceChildren(...this.#images.map(item));
  }

  /// As high as its text, up to what the style allows.
  #grow() {
    this.#text.style.height = "auto";
    this.#text.style.height = `${this.#text.scrollHeight}px`;
  }
}
