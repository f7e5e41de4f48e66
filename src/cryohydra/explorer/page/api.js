// Talks to the server that this page came from, and to nobody else.

async function ask(path, options = {}) {
  const reply = await fetch(path, options);
  if (!reply.ok) throw new Error((await reply.text()).trim());
  return reply;
}

export const part = encodeURIComponent;

export async function getJson(path) {
  return (await ask(path)).json();
}

export async function getBytes(path) {
  return new Uint8Array(await (await ask(path)).arrayBuffer());
}

export async function getReply(path) {
  return ask(path);
}

export async function getColumn(path) {
  return new Float32Array(await (await ask(path)).arrayBuffer());
}

export async function post(path, content) {
  return ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(content) });
}

export async function postNothing(path) {
  return ask(path, { method: "POST" });
}

export async function postBytes(path, bytes) {
  const reply = await ask(path, { method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: bytes });
  return reply.json();
}

/** Read a reply line by line as it comes; `says` is told each sentence, the place where things were saved is given back. */
export async function follow(reply, says) {
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", saved = null;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const told = JSON.parse(line);
      if (told.error) throw new Error(told.error);
      if (told.says) says(told.says);
      if (told.saved) saved = told.saved;
    }
  }
  if (saved === null) throw new Error("The explorer stopped before it had finished; see the terminal where it runs.");
  return saved;
}
