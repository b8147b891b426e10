// Talks to the server. Every call resolves to the state after it, or throws what the server says.

export async function call(method, path, body) {
  const options = { method };
  if (body instanceof Blob) {
    options.body = body;
  } else if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers = { "content-type": "application/json" };
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("the server does not answer: is vos-deploy-run still running?");
  }
  const text = await response.text();
  let answer = {};
  try {
    answer = JSON.parse(text);
  } catch {
    answer = { error: text };
  }
  if (!response.ok) throw new Error(answer.error || `the server answered ${response.status}`);
  return answer;
}

export const post = (path, body) => call("POST", `/api/${path}`, body);

// Calls `heard` with every state, and `lost` with whether the server is out of reach.
export function listen(heard, lost) {
  const events = new EventSource("/api/events");
  events.onmessage = (event) => {
    lost(false);
    heard(JSON.parse(event.data));
  };
  events.onerror = () => lost(true);
}

export async function frame(clip, index) {
  const response = await fetch(`/api/clips/${clip}/${index}.jpg`);
  if (!response.ok) throw new Error("this frame is not kept");
  return createImageBitmap(await response.blob());
}

// H x W bytes, the object of each pixel. The revision tells apart what was marked since.
export async function labels(clip, index, revision) {
  const response = await fetch(`/api/clips/${clip}/${index}.ids?revision=${revision}`);
  if (!response.ok) throw new Error("this frame is not kept");
  return new Uint8Array(await response.arrayBuffer());
}
