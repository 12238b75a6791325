// Completion models: the SDK makes the prompt of a conversation, and stops where the user would speak again.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { APICallError, generateText, streamText } from 'ai';

import { CANARY, ONCE, SECRET, engine, provider, refusal } from './common.js';

// As the SDK writes it.
const asked = (text) => `user:\n${text}\n\nassistant:\n`;
const model = provider().completionModel('tiny');

test('unary', async () => {
  const prompt = `${CANARY} the river`;
  const { text, finishReason, usage } = await generateText({ model, prompt, maxOutputTokens: 12, ...ONCE });
  assert.equal(text, await engine.text(asked(prompt), 12));
  assert.equal(finishReason, 'length');
  assert.equal(usage.inputTokens, (await engine.tokens(asked(prompt))).length);
  assert.equal(usage.outputTokens, 12);
});

test('stream', async () => {
  const answer = streamText({ model, prompt: 'the mountain', maxOutputTokens: 12, ...ONCE });
  const parts = await Array.fromAsync(answer.textStream);
  assert.ok(parts.length > 5, 'the answer came in one piece');
  assert.equal(parts.join(''), await engine.text(asked('the mountain'), 12));
  assert.equal(await answer.finishReason, 'length');
});

const wrong = [
  ['a wrong key', provider({ apiKey: 'sk-wrong' }).completionModel('tiny'), {}, 401, 'invalid_api_key'],
  ['an unknown model', provider().completionModel('nope'), {}, 404, 'model_not_found'],
  ['a member out of its range', model, { topP: 7 }, 400, 'invalid_request'],
];
for (const [name, model, members, status, code] of wrong) {
  test(name, async () => {
    const error = await refusal(generateText({ model, prompt: SECRET, ...ONCE, ...members }));
    assert.ok(APICallError.isInstance(error), `${error}`);
    assert.equal(error.statusCode, status);
    assert.equal(JSON.parse(error.responseBody).error.code, code);
    assert.ok(!`${error.message} ${error.responseBody}`.includes(SECRET), 'the error repeats the prompt');
  });
}
