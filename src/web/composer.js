// The next question: its text, its pictures, and the sentence above it that says what is wrong.

import { byId, element, icon } from "./elements.js";
import { forget, readPicture } from "./pictures.js";

/// What a person is about to ask.
export class Composer {
  #viewer;
  #text = byId("question");
  #pictures = [];

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

  numPictures() {
    return this.#pictures.length;
  }

  /// Adds those of the files that are pictures.
  async add(files) {
    const wrong = [];
    for (const file of files) {
      try {
        const picture = await readPicture(file);
        this.#pictures.push(picture);
        this.#viewer.add(picture);
      } catch (error) {
        wrong.push(error.message);
      }
    }
    this.tell(wrong.join(" "));
    this.#show();
    this.focus();
  }

  /// The question as it stands, with what its pictures are called; null if there is none.
  turn() {
    const text = this.#text.value.trim();
    if (text === "" && this.#pictures.length === 0) return null;
    for (const picture of this.#pictures) picture.label = this.#viewer.nameOf(picture);
    const isCurrent = ({ label }) => Number(label === "Current");
    const priorFirst = this.#pictures.toSorted((one, other) => isCurrent(one) - isCurrent(other));
    return { role: "user", text, pictures: priorFirst };
  }

  /// It was sent.
  clear() {
    this.#text.value = "";
    this.#pictures = [];
    this.#grow();
    this.#show();
  }

  /// It was not sent after all.
  giveBack({ text, pictures }) {
    this.#text.value ||= text;
    this.#pictures = [...pictures, ...this.#pictures];
    this.#grow();
    this.#show();
  }

  /// Drops it and what its pictures hold.
  discard() {
    this.#pictures.forEach(forget);
    this.#pictures = [];
    this.tell("");
    this.#show();
  }

  #remove(picture) {
    this.#pictures = this.#pictures.filter((other) => other !== picture);
    this.#viewer.remove(picture);
    forget(picture);
    this.#show();
    this.focus();
  }

  #show() {
    const item = (picture) =>
      element(
        "li",
        {},
        element("img", { src: picture.shownUrl, alt: "" }),
        element("span", {}, picture.name),
        element(
          "button",
          { type: "button", "aria-label": `Take ${picture.name} away`, onclick: () => this.#remove(picture) },
          icon("close"),
        ),
      );
    byId("pending").hidden = this.#pictures.length === 0;
    byId("pending").replaceChildren(...this.#pictures.map(item));
  }

  /// As high as its text, up to what the style allows.
  #grow() {
    this.#text.style.height = "auto";
    this.#text.style.height = `${this.#text.scrollHeight}px`;
  }
}
