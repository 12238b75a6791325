// The SDK pointed at the gateway.
import OpenAI from 'openai';

import { API_KEY, BASE_URL } from '../common/engine.js';

export * from '../common/engine.js';

/** A client that asks once: a test must see the first answer, not a later and luckier one. */
export function sdk(options = {}) {
  return new OpenAI({ baseURL: BASE_URL, apiKey: API_KEY, maxRetries: 0, timeout: 60_000, ...options });
}

const client = sdk();

/** A greedy completion of `tiny`. */
export function complete(prompt, members = {}, options = {}) {
  return client.completions.create({ model: 'tiny', prompt, temperature: 0, ...members }, options);
}

/** The text of a stream. */
export async function textOf(stream) {
  let text = '';
  for await (const chunk of stream) text += chunk.choices[0]?.text ?? '';
  return text;
}
