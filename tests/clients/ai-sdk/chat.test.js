// Chat models with tools and objects, and embeddings.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { APICallError, embedMany, generateText, streamText, tool } from 'ai';
import { z } from 'zod';

import { CANARY, ONCE, SECRET, engine, provider, refusal } from './common.js';

const model = provider({ includeUsage: true }).chatModel('tiny');
const tools = {
  look: tool({ description: 'Looks where it is told to.', inputSchema: z.object({ way: z.enum(['north', 'south']) }) }),
};

test('chat', async () => {
  const prompt = `${CANARY} the river`;
  const { text, finishReason, usage } = await generateText({ model, prompt, maxOutputTokens: 12, ...ONCE });
  assert.equal(text, await engine.reply(prompt, 12));
  assert.equal(finishReason, 'length');
  assert.equal(usage.outputTokens, 12);
});

test('chat in a stream', async () => {
  const answer = streamText({ model, prompt: 'the mountain', maxOutputTokens: 12, ...ONCE });
  const parts = await Array.fromAsync(answer.textStream);
  assert.ok(parts.length > 5, 'the answer came in one piece');
  assert.equal(parts.join(''), await engine.reply('the mountain', 12));
  assert.equal(await answer.finishReason, 'length');
  assert.equal((await answer.usage).outputTokens, 12);
});

test('a tool call', async () => {
  const asked = { model, prompt: 'please call', tools, maxOutputTokens: 200, ...ONCE };
  const { toolCalls, finishReason } = await generateText({ ...asked, toolChoice: 'required' });
  assert.equal(finishReason, 'tool-calls');
  assert.equal(toolCalls.length, 1);
  assert.equal(toolCalls[0].toolName, 'look');
  assert.match(toolCalls[0].input.way, /^(north|south)$/);

  const streamed = await streamText(asked).toolCalls;
  assert.deepEqual(streamed.map((call) => [call.toolName, call.input]), [['look', toolCalls[0].input]]);
});

test('embeddings', async () => {
  const values = ['the river', 'a quiet harbour'];
  const { embeddings } = await embedMany({ model: provider().embeddingModel('tiny'), values, maxRetries: 0 });
  const told = await engine.vectors(values);
  embeddings.forEach((embedding, index) => {
    assert.equal(embedding.length, told[index].length);
    assert.ok(embedding.every((value, place) => Math.abs(value - told[index][place]) < 1e-6));
  });
});

const wrong = [
  ['a wrong key', provider({ apiKey: 'sk-wrong' }).chatModel('tiny'), {}, 401, 'invalid_api_key'],
  ['an unknown model', provider().chatModel('nope'), {}, 404, 'model_not_found'],
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
