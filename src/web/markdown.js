// Light Markdown as elements: what models write, and no links or images, since nothing on this
// page leads elsewhere.

import { element } from "./elements.js";

const FENCE = /^\s*```/;
const HEADING = /^(#{1,6})\s+(.*)/;
const ITEM = /^\s*(?:([-*+•])|(\d+)[.)])\s+(.*)/;
const RULE = /^\s*([-*_])(\s*\1){2,}\s*$/;
/// `code`, **strong**, *emphasis*: the first that closes.
const INLINE = /(`+)(.+?)\1|\*\*(?=\S)(.+?\S|\S)\*\*|(?<![\w*])[*_](?=\S)([^*_]*?\S)[*_](?![\w*])/s;

/// The elements of a text.
export function markdown(text) {
  const made = [];
  const lines = text.split("\n");
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    if (line.trim() === "") {
      at += 1;
    } else if (FENCE.test(line)) {
      const end = lines.findIndex((later, index) => index > at && FENCE.test(later));
      const stop = end === -1 ? lines.length : end;
      made.push(element("pre", {}, element("code", {}, lines.slice(at + 1, stop).join("\n"))));
      at = stop + 1;
    } else if (HEADING.test(line)) {
      const [, marks, words] = line.match(HEADING);
      // The page's own headings come first.
      made.push(element(`h${Math.min(marks.length + 2, 6)}`, {}, ...inline(words)));
      at += 1;
    } else if (RULE.test(line)) {
      made.push(element("hr"));
      at += 1;
    } else if (ITEM.test(line)) {
      const [, , number] = line.match(ITEM);
      const list = element(number ? "ol" : "ul", number ? { start: number } : {});
      for (; at < lines.length && ITEM.test(lines[at]) && Boolean(lines[at].match(ITEM)[2]) === Boolean(number); at += 1) {
        list.append(element("li", {}, ...inline(lines[at].match(ITEM)[3])));
      }
      made.push(list);
    } else {
      const begin = at;
      const isText = (line) => line.trim() !== "" && ![FENCE, HEADING, ITEM, RULE].some((mark) => mark.test(line));
      while (at < lines.length && isText(lines[at])) at += 1;
      made.push(element("p", {}, ...inline(lines.slice(begin, at).join("\n"))));
    }
  }
  return made;
}

function inline(text) {
  const made = [];
  let rest = text;
  for (;;) {
    const found = rest.match(INLINE);
    if (!found) break;
    const [whole, , code, strong, emphasis] = found;
    made.push(rest.slice(0, found.index));
    if (code !== undefined) made.push(element("code", {}, code));
    else if (strong !== undefined) made.push(element("strong", {}, ...inline(strong)));
    else made.push(element("em", {}, emphasis));
    rest = rest.slice(found.index + whole.length);
  }
  made.push(rest);
  return made.filter((part) => part !== "");
}
