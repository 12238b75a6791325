// What every test needs: the SDK pointed at the gateway, and the engine behind it to compare with.
//
// `run.sh` sets BASE_URL and API_KEY (the gateway), ENGINE_URL and ENGINE_LOG (the engine) and CANARY, a text
// that goes into prompts and may stand in no log.
import { readFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';

import OpenAI from 'openai';

const { BASE_URL, API_KEY, ENGINE_URL, ENGINE_LOG } = process.env;

export const { CANARY } = process.env;

export const WORDS = readFileSync(new URL('../../engine/words.txt', import.meta.url), 'utf8').trim().split('\n');

/** After a caller left, the engine's work stops within so many milliseconds. */
export const STOPS_WITHIN = 1000;

/** While it works on a unary answer, this engine itself looks this often whether somebody still waits. */
export const ENGINE_LOOKS_EVERY = 1000;

/** A client that asks once: a test must see the first answer, not a later and luckier one. */
export function sdk(options = {}) {
  return new OpenAI({ baseURL: BASE_URL, apiKey: API_KEY, maxRetries: 0, ...options });
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

/** The engine without the gateway. */
export const engine = {
  async call(path, body) {
    const init = body && {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    };
    return (await fetch(ENGINE_URL + path, init)).json();
  },
  async text(prompt, maxTokens) {
    const body = { model: 'tiny', prompt, max_tokens: maxTokens, temperature: 0 };
    return (await this.call('/v1/completions', body)).choices[0].text;
  },
  async tokens(prompt) {
    return (await this.call('/tokenize', { content: prompt, add_special: true })).tokens;
  },
  async busy() {
    return (await this.call('/slots')).some((slot) => slot.is_processing);
  },
  async idle() {
    return !(await this.busy());
  },
  /** How many requests it gave up, from its log: asking it would put off its look at who waits. */
  cancelled() {
    return readFileSync(ENGINE_LOG, 'utf8').split('cancel task').length - 1;
  },
};

/** Whether `holds()` comes true within so many milliseconds. */
export async function within(milliseconds, holds) {
  const end = performance.now() + milliseconds;
  while (!(await holds())) {
    if (performance.now() > end) return false;
    await pause(20);
  }
  return true;
}
