// What every suite on Node needs: the engine behind the gateway, to compare with.
//
// `run.sh` sets BASE_URL, GATEWAY_URL and API_KEY (the gateway), NODE_URL (the node), ENGINE_URL, ENGINE_LOG and
// IMAGES_URL (the engines behind it) and CANARY, a text that goes into prompts and may stand in no log.
import { readFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';

export const { BASE_URL, GATEWAY_URL, NODE_URL, API_KEY, CANARY } = process.env;
const { ENGINE_URL, ENGINE_LOG, IMAGES_URL } = process.env;

/** A text that no error may repeat. */
export const SECRET = 'a prompt that no error may repeat';

export const WORDS = readFileSync(new URL('../../engine/words.txt', import.meta.url), 'utf8').trim().split('\n');

/** After a caller left, the engine's work stops within so many milliseconds. */
export const STOPS_WITHIN = 1000;

/** While it works on a unary answer, this engine itself looks this often whether somebody still waits. */
export const ENGINE_LOOKS_EVERY = 1000;

async function ask(url, body) {
  const init = body && {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  };
  return (await fetch(url, init)).json();
}

/** What the engine for images itself answers. */
export async function pictures(prompt, members = {}) {
  return (await ask(`${IMAGES_URL}/v1/images/generations`, { model: 'picture', prompt, ...members })).data;
}

/** The engine without the gateway. */
export const engine = {
  call(path, body) {
    return ask(ENGINE_URL + path, body);
  },
  /** The first choice of its own greedy answer to one user's message. */
  async chat(message, maxTokens, members = {}) {
    const messages = [{ role: 'user', content: message }];
    const body = { model: 'tiny', messages, max_tokens: maxTokens, temperature: 0, ...members };
    return (await this.call('/v1/chat/completions', body)).choices[0];
  },
  async reply(message, maxTokens) {
    return (await this.chat(message, maxTokens)).message.content;
  },
  async vectors(input) {
    return (await this.call('/v1/embeddings', { model: 'tiny', input })).data.map((item) => item.embedding);
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
