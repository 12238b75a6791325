// The confidential API as the seed's SDK calls it.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { CANARY, SECRET, asked, close, engine, pictures, sdk, textOf } from './common.js';

test('chat', async () => {
  const message = `${CANARY} the river`;
  const answer = await sdk().confidentialChat.create(asked(message, { maxTokens: 12 }));
  assert.equal(answer.choices[0].message.content, await engine.reply(message, 12));
  assert.equal(answer.usage.completionTokens, 12);
});

test('chat in a stream', async () => {
  const message = `${CANARY} the mountain`;
  const parts = await textOf(await sdk().confidentialChat.createStream(asked(message, { maxTokens: 12 })));
  assert.ok(parts.length > 5, 'the answer came in one piece');
  assert.equal(parts.join(''), await engine.reply(message, 12));
});

test('embeddings', async () => {
  const answer = await sdk().confidentialEmbeddings.create({ model: 'tiny', input: 'the river' });
  assert.ok(close(answer.data[0].embedding, (await engine.vectors('the river'))[0]));
});

test('images', async () => {
  const prompt = `${CANARY} a river`;
  const answer = await sdk().confidentialImages.generate({ model: 'picture', prompt, size: '256x256' });
  assert.deepEqual(answer.data.map(({ url }) => url), (await pictures(prompt)).map(({ url }) => url));
});

test('refusals', async () => {
  const cases = [
    [sdk('sk-wrong'), {}],
    [sdk(), { model: 'nope' }],
    [sdk(), { topP: 7 }],
  ];
  for (const [client, members] of cases) {
    await assert.rejects(client.confidentialChat.create(asked(SECRET, members)), (error) => {
      assert.ok(!`${error.message} ${error.body}`.includes(SECRET), 'the error repeats the prompt');
      return true;
    });
  }
});
