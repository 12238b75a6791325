// The seed's SDK as published, pointed at the gateway.
import { createRequire } from 'node:module';

import { API_KEY, GATEWAY_URL } from '../common/engine.js';

export * from '../common/engine.js';

// It is a CommonJS package.
const { AtomaSDK } = createRequire(import.meta.url)('atoma-sdk');

export function sdk(key = API_KEY) {
  return new AtomaSDK({ bearerAuth: key, serverURL: GATEWAY_URL, timeoutMs: 60_000 });
}

/** A greedy question with one user's message. */
export function asked(message, members = {}) {
  return { model: 'tiny', messages: [{ role: 'user', content: message }], temperature: 0, ...members };
}

/** The text of a stream of events. */
export async function textOf(events) {
  const parts = [];
  for await (const event of events) {
    for (const choice of (event.data ?? event).choices) parts.push(choice.delta.content ?? '');
  }
  return parts;
}

/** The vectors may differ in the last bits: JSON's numbers have been read and written on the way. */
export function close(left, right) {
  return left.length === right.length && left.every((value, index) => Math.abs(value - right[index]) < 1e-6);
}
