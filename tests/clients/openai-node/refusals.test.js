// What is wrong is refused with the class, the code and the member that the SDK shows, and never quoted.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import OpenAI from 'openai';

import { SECRET, complete, sdk } from './common.js';

async function refusal(asked, kind) {
  const error = await asked.then(
    () => assert.fail('nothing was refused'),
    (error) => error,
  );
  assert.ok(error instanceof kind, `${error}`);
  assert.equal(typeof error.type, 'string');
  assert.ok(error.requestID, 'an error without x-request-id');
  assert.ok(!JSON.stringify([error.message, error.error]).includes(SECRET), 'the error repeats the prompt');
  return error;
}

test('a wrong key', async () => {
  const stranger = sdk({ apiKey: 'sk-wrong' });
  const calls = [
    () => stranger.completions.create({ model: 'tiny', prompt: SECRET }),
    () => stranger.models.list(),
  ];
  for (const call of calls) {
    const error = await refusal(call(), OpenAI.AuthenticationError);
    assert.equal(error.code, 'invalid_api_key');
  }
});

test('an unknown model', async () => {
  const calls = [() => complete(SECRET, { model: 'nope' }), () => sdk().models.retrieve('nope')];
  for (const call of calls) {
    const error = await refusal(call(), OpenAI.NotFoundError);
    assert.equal(error.code, 'model_not_found');
  }
});

const wrong = [
  ['temperature', 3],
  ['temperature', '0'],
  ['top_p', 1.1],
  ['frequency_penalty', 2.1],
  ['presence_penalty', -2.1],
  ['logprobs', 21],
  ['n', 0],
  ['best_of', 0],
  ['stop', ['a', 'b', 'c', 'd', 'e']],
  ['logit_bias', { 1: 101 }],
  ['max_tokens', -1],
  ['stream', 'yes'],
  ['prompt', ['a', 5]],
  ['prompt', undefined],
];
for (const [param, value] of wrong) {
  test(`${param} is ${JSON.stringify(value)}`, async () => {
    const error = await refusal(complete(SECRET, { [param]: value }), OpenAI.BadRequestError);
    assert.equal(error.code, 'invalid_request');
    assert.equal(error.param, param);
  });
}

test('a body over 8 MiB', async () => {
  const prompt = SECRET.repeat((8 * 1024 * 1024) / SECRET.length + 1);
  const error = await refusal(complete(prompt), OpenAI.APIError);
  assert.deepEqual([error.status, error.code], [413, 'request_too_large']);
});
