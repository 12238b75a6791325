// The AI SDK pointed at the gateway.
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';

import { API_KEY, BASE_URL } from '../common/engine.js';

export * from '../common/engine.js';

export function provider(settings = {}) {
  return createOpenAICompatible({ name: 'sealgate', baseURL: BASE_URL, apiKey: API_KEY, ...settings });
}

/** Requests are made once: a test must see the first answer, not a later and luckier one. */
export const ONCE = { maxRetries: 0, temperature: 0 };

/** What a call was refused with. */
export async function refusal(asked) {
  return asked.then(
    () => { throw new Error('nothing was refused'); },
    (error) => error,
  );
}
