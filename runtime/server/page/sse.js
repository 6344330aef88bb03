// Owns the format of server-sent events: bytes to the data of each event.
// https://html.spec.whatwg.org/multipage/server-sent-events.html

/**
 * Yield the data of each event, as it comes.
 * @param {ReadableStream<Uint8Array>} stream
 * @returns {AsyncGenerator<string, void, void>}
 */
export async function* readEvents(stream) {
  const decoder = /** @type {TransformStream<Uint8Array, string>} */ (new TextDecoderStream());
  const reader = stream.pipeThrough(decoder).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return; // An event without its blank line is incomplete, and dropped.
      const blocks = (rest + value).split(/\r?\n\r?\n/u);
      rest = blocks.pop() ?? "";
      for (const block of blocks) {
        const lines = block.split(/\r?\n/u).filter((line) => line.startsWith("data:"));
        if (lines.length) yield lines.map((line) => line.slice(5).replace(/^ /u, "")).join("\n");
      }
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
