// Boxes in an answer: Gemma writes {"box_2d": [y0, x0, y1, x1], "label": …} in thousandths of the
// image's height and width.

const FULL = 1000;
/// An object without objects in it that has a box. Prose, fences and an unfinished list around it
/// do not matter, so that boxes appear while an answer still comes.
const OBJECT = /\{[^{}]*"box_2d"[^{}]*\}/g;

/// The boxes of a text: `{ top, left, bottom, right, label }`, all but the label within 0–1.
export function boxesIn(text) {
  return [...text.matchAll(OBJECT)].flatMap(([object]) => {
    const read = parsed(object);
    return read ? [read] : [];
  });
}

function parsed(object) {
  let read;
  try {
    read = JSON.parse(object);
  } catch {
    return null;
  }
  const ends = read.box_2d;
  if (!Array.isArray(ends) || ends.length !== 4 || !ends.every(Number.isFinite)) return null;
  const [y0, x0, y1, x1] = ends.map((end) => Math.min(Math.max(end / FULL, 0), 1));
  const box = { top: Math.min(y0, y1), left: Math.min(x0, x1), bottom: Math.max(y0, y1), right: Math.max(x0, x1) };
  if (box.top === box.bottom || box.left === box.right) return null;
  return { ...box, label: typeof read.label === "string" ? read.label : "" };
}
