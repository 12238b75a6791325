// The plain API as the seed's SDK calls it.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { CANARY, SECRET, asked, close, engine, pictures, sdk, textOf } from './common.js';

test('chat', async () => {
  const message = `${CANARY} the river`;
  const answer = await sdk().chat.create(asked(message, { maxTokens: 12 }));
  assert.equal(answer.choices[0].message.content, await engine.reply(message, 12));
  assert.equal(answer.usage.completionTokens, 12);
});

test('chat in a stream', async () => {
  const message = `${CANARY} the mountain`;
  const parts = await textOf(await sdk().chat.createStream(asked(message, { maxTokens: 12 })));
  assert.ok(parts.length > 5, 'the answer came in one piece');
  // This SDK loses events that it reads together with [DONE] (its discardSentinel); the gateway's own bytes are compared
  // by the other suites.
  const told = await engine.reply(message, 12);
  assert.ok(told.startsWith(parts.join('')), parts.join(''));
});

test('embeddings', async () => {
  const answer = await sdk().embeddings.create({ model: 'tiny', input: 'the river' });
  assert.ok(close(answer.data[0].embedding, (await engine.vectors('the river'))[0]));
});

test('images', async () => {
  const answer = await sdk().images.generate({ model: 'picture', prompt: 'a river', size: '256x256' });
  assert.deepEqual(answer.data.map(({ url }) => url), (await pictures('a river')).map(({ url }) => url));
});

test('models and health', async () => {
  const { data } = await sdk().models.modelsList();
  assert.deepEqual(data.map(({ id }) => id).sort(), ['picture', 'tiny']);
  assert.ok(await sdk().health.health());
});

test('refusals', async () => {
  const cases = [
    [sdk('sk-wrong'), {}, 401, 'invalid_api_key'],
    [sdk(), { model: 'nope' }, 404, 'model_not_found'],
    [sdk(), { topP: 7 }, 400, 'invalid_request'],
  ];
  for (const [client, members, status, code] of cases) {
    await assert.rejects(client.chat.create(asked(SECRET, members)), (error) => {
      assert.equal(error.statusCode, status);
      assert.ok(error.body.includes(code), error.body);
      assert.ok(!error.body.includes(SECRET), 'the error repeats the prompt');
      return true;
    });
  }
});
