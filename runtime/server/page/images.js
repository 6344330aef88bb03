// Owns images on their way in: from a file to what is sent, upright and of a bounded size.

/** @import { ImageRef } from "./conversation.js" */

import { newId } from "./conversation.js";

export const LONGEST_SIDE = 2048;
const MOST_BYTES = 6_000_000;
// Sent as they are, where they are small enough: the server reads them, and turns them upright.
const AS_THEY_ARE = ["image/jpeg", "image/png", "image/webp"];
const MOST_PIXELS = 268_000_000;

/** @typedef {ImageRef & { blob: Blob, original: string | null }} PendingImage
 * `original` is its size before it was made smaller, such as "4000 × 3000". */

/** A file that is not shown; its message is for the user. */
export class ImageFileError extends Error {}

/**
 * Read a file that the user gave.
 * @param {File | Blob} file
 * @returns {Promise<PendingImage>}
 * @throws {ImageFileError}
 */
export async function readImage(file) {
  const name = file instanceof File && file.name ? file.name : "image";
  const bitmap = await decode(file, name);
  const { width, height } = bitmap;
  const longest = Math.max(width, height);
  const scale = Math.min(1, LONGEST_SIDE / longest);
  const about = { id: newId(), name };
  try {
    if (scale === 1 && file.size <= MOST_BYTES && AS_THEY_ARE.includes(file.type))
      return { ...about, type: file.type, width, height, blob: file, original: null };
    const size = [width, height].map((side) => Math.max(1, Math.round(side * scale)));
    const blob = await encode(bitmap, size[0], size[1], file.type);
    const original = scale < 1 ? `${width} × ${height}` : null;
    return { ...about, type: blob.type, width: size[0], height: size[1], blob, original };
  } finally {
    bitmap.close();
  }
}

/**
 * Return a file as a data URL.
 * @param {Blob} blob
 * @returns {Promise<string>}
 */
export function toDataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(/** @type {string} */ (reader.result));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

/**
 * @param {Blob} file
 * @param {string} name
 */
async function decode(file, name) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    throw new ImageFileError(await explain(file, name));
  }
  if (bitmap.width * bitmap.height > MOST_PIXELS) {
    bitmap.close();
    throw new ImageFileError(`${name} has too many pixels.`);
  }
  return bitmap;
}

/**
 * Say why a file could not be read.
 * @param {Blob} file
 * @param {string} name
 */
async function explain(file, name) {
  const head = new Uint8Array(await file.slice(0, 16).arrayBuffer().catch(() => new ArrayBuffer(0)));
  const text = String.fromCharCode(...head);
  if (!head.length) return `${name} is empty, or cannot be read.`;
  if (/^....ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)/su.test(text) || /hei[cf]/u.test(file.type))
    return `${name} is a HEIC photo, which this browser cannot read. Save it as JPEG first.`;
  if (/^(II\*\0|MM\0\*)/u.test(text))
    return `${name} is a TIFF file, which this browser cannot read. Save it as PNG first.`;
  if (file.type && !file.type.startsWith("image/")) return `${name} is not an image.`;
  return `${name} is damaged, or of a kind that this browser cannot read. Use JPEG, PNG or WebP.`;
}

/**
 * Draw an image in a size, and return its file: JPEG for photos, else PNG unless it is large.
 * @param {ImageBitmap} bitmap
 * @param {number} width
 * @param {number} height
 * @param {string} type
 */
async function encode(bitmap, width, height, type) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  if (type !== "image/jpeg") {
    const png = await toBlob(canvas, "image/png");
    if (png.size <= MOST_BYTES) return png;
    // JPEG has no transparency: white behind it, as the server has.
    context.globalCompositeOperation = "destination-over";
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
  }
  return toBlob(canvas, "image/jpeg");
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {string} type
 * @returns {Promise<Blob>}
 */
function toBlob(canvas, type) {
  return new Promise((resolve, reject) => {
    const done = (/** @type {Blob | null} */ blob) =>
      blob ? resolve(blob) : reject(new ImageFileError("The image could not be made smaller."));
    canvas.toBlob(done, type, 0.92);
  });
}
