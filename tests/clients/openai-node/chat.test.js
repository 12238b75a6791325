// Conversations, embeddings and images: what a caller gets is what the engine says.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import OpenAI from 'openai';

import { CANARY, SECRET, engine, pictures, sdk } from './common.js';

const client = sdk();

function chat(message, members = {}, through = client) {
  const messages = [{ role: 'user', content: message }];
  return through.chat.completions.create({ model: 'tiny', messages, temperature: 0, ...members });
}

const TOOL = {
  type: 'function',
  function: {
    name: 'look',
    parameters: {
      type: 'object',
      properties: { way: { type: 'string', enum: ['north', 'south'] } },
      required: ['way'],
      additionalProperties: false,
    },
  },
};

test('chat', async () => {
  const message = `${CANARY} the river`;
  const completion = await chat(message, { max_tokens: 12 });
  assert.equal(completion.object, 'chat.completion');
  const [choice] = completion.choices;
  assert.equal(choice.message.role, 'assistant');
  assert.equal(choice.message.content, await engine.reply(message, 12));
  assert.equal(choice.finish_reason, 'length');
  assert.equal(completion.usage.completion_tokens, 12);
});

test('chat in a stream', async () => {
  const message = `${CANARY} the mountain`;
  const members = { max_tokens: 20, stream: true, stream_options: { include_usage: true } };
  const chunks = await Array.fromAsync(await chat(message, members));
  const last = chunks.pop();
  assert.deepEqual(last.choices, []);
  assert.equal(last.usage.completion_tokens, 20);
  assert.ok(chunks.length > 10, 'the answer came in one piece');
  const text = chunks.map((chunk) => chunk.choices[0].delta.content ?? '').join('');
  assert.equal(text, await engine.reply(message, 20));
  assert.equal(chunks.at(-1).choices[0].finish_reason, 'length');
});

for (const stream of [false, true]) {
  test(`a tool call, ${stream ? 'stream' : 'unary'}`, async () => {
    const [told] = (await engine.chat('please call', 200, { tools: [TOOL] })).message.tool_calls;
    const answer = await chat('please call', { max_tokens: 200, tools: [TOOL], tool_choice: 'required', stream });
    let name, id, reason, said = '';
    for (const part of stream ? await Array.fromAsync(answer) : [answer]) {
      const [choice] = part.choices;
      for (const call of (choice.delta ?? choice.message).tool_calls ?? []) {
        name ??= call.function.name;
        id ??= call.id;
        said += call.function.arguments ?? '';
      }
      reason = choice.finish_reason ?? reason;
    }
    assert.ok(id);
    assert.deepEqual([name, said, reason], ['look', told.function.arguments, 'tool_calls']);
    assert.match(JSON.parse(said).way, /^(north|south)$/);
  });
}

for (const form of ['string', 'strings', 'tokens', 'token arrays']) {
  for (const encoding of ['float', undefined]) {
    test(`embeddings of ${form}, ${encoding ?? 'as the SDK asks'}`, async () => {
      const texts = [`${CANARY} the river`, 'a quiet harbour'].slice(0, /s$/.test(form) && form !== 'tokens' ? 2 : 1);
      const tokens = await Promise.all(texts.map((text) => engine.tokens(text)));
      const input = { string: texts[0], strings: texts, tokens: tokens[0], 'token arrays': tokens }[form];
      const answer = await client.embeddings.create({ model: 'tiny', input, encoding_format: encoding });
      const told = await engine.vectors(texts);
      assert.equal(answer.data.length, texts.length);
      answer.data.forEach(({ embedding, index }, at) => {
        assert.equal(index, at);
        assert.equal(embedding.length, told[at].length);
        assert.ok(embedding.every((value, place) => Math.abs(value - told[at][place]) < 1e-6));
      });
    });
  }
}

test('images', async () => {
  const prompt = `${CANARY} a river`;
  for (const form of ['b64_json', 'url']) {
    const { data } = await client.images.generate({ model: 'picture', prompt, response_format: form });
    const told = await pictures(prompt, { response_format: form });
    assert.deepEqual(data.map((image) => image[form]), told.map((image) => image[form]));
  }
});

test('refusals', async () => {
  const cases = [
    [() => chat(SECRET, {}, sdk({ apiKey: 'sk-wrong' })), OpenAI.AuthenticationError, 'invalid_api_key'],
    [() => chat(SECRET, { model: 'nope' }), OpenAI.NotFoundError, 'model_not_found'],
    [() => chat(SECRET, { top_p: 7 }), OpenAI.BadRequestError, 'invalid_request', 'top_p'],
    [
      () => client.embeddings.create({ model: 'tiny', input: SECRET, dimensions: 0 }),
      OpenAI.BadRequestError,
      'invalid_request',
      'dimensions',
    ],
  ];
  for (const [asked, kind, code, param] of cases) {
    await assert.rejects(asked(), (error) => {
      assert.ok(error instanceof kind, `${error}`);
      assert.equal(error.code, code);
      if (param) assert.equal(error.param, param);
      assert.ok(!JSON.stringify([error.message, error.error]).includes(SECRET), 'the error repeats the prompt');
      return true;
    });
  }
});
