// Images that a person chose: what they are, and how they are sent and shown.

/// What the server reads, by how its files begin.
const FORMATS = [
  { type: "image/png", begins: [0x89, 0x50, 0x4e, 0x47] },
  { type: "image/jpeg", begins: [0xff, 0xd8, 0xff] },
  { type: "image/gif", begins: [0x47, 0x49, 0x46, 0x38] },
  { type: "image/webp", begins: [0x52, 0x49, 0x46, 0x46], then: [8, [0x57, 0x45, 0x42, 0x50]] },
  { type: "image/bmp", begins: [0x42, 0x4d] },
  { type: "image/tiff", begins: [0x49, 0x49, 0x2a, 0x00] },
  { type: "image/tiff", begins: [0x4d, 0x4d, 0x00, 0x2a] },
  { type: "image/jp2", begins: [0x00, 0x00, 0x00, 0x0c, 0x6a, 0x50, 0x20, 0x20] },
  { type: "image/jp2", begins: [0xff, 0x4f, 0xff, 0x51] },
];
const DICOM = [128, [0x44, 0x49, 0x43, 0x4d]];

/// For the file chooser.
export const ACCEPTED = "image/png,image/jpeg,image/webp,image/gif,image/bmp,image/tiff,image/jp2,.jp2,.j2k,.dcm";

/// Reads a file: `{ name, type, dataUrl, shownUrl, label }`. Throws a sentence if it is no image
/// that the server takes.
export async function readImage(file) {
  const head = new Uint8Array(await file.slice(0, 132).arrayBuffer());
  const name = file.name || "pasted image";
  if (stands(head, ...DICOM) || /\.(dcm|dicom)$/i.test(name)) {
    throw new Error(`${name} is a DICOM file. This page cannot show it yet: send it through the API, as a data URI.`);
  }
  const format = FORMATS.find(({ begins, then }) => stands(head, 0, begins) && (!then || stands(head, ...then)));
  if (!format) {
    throw new Error(`${name} is not an image that this server takes: PNG, JPEG, WebP, GIF, BMP, TIFF or JPEG 2000.`);
  }
  // By what it is, whatever it is called.
  const blob = new Blob([file], { type: format.type });
  return {
    name,
    type: format.type,
    dataUrl: await dataUrl(blob),
    shownUrl: URL.createObjectURL(blob),
    /// What the prompt calls it, if anything.
    label: "",
  };
}

/// Frees what an image holds.
export function forget(image) {
  URL.revokeObjectURL(image.shownUrl);
}

function stands(bytes, at, expected) {
  return expected.every((byte, index) => bytes[at + index] === byte);
}

function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error("The file cannot be read."));
    reader.readAsDataURL(blob);
  });
}
