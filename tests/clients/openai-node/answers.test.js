// What a caller gets is what the engine says, sealed on the way or not.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { CANARY, WORDS, complete, engine, sdk, textOf } from './common.js';

const PROMPT = 'the sealed gateway';

test('unary', async () => {
  const prompt = `${CANARY} the river`;
  const completion = await complete(prompt, { max_tokens: 12 });
  assert.equal(completion.object, 'text_completion');
  assert.equal(completion.model, 'tiny');
  assert.equal(completion.choices.length, 1);
  const [choice] = completion.choices;
  assert.equal(choice.text, await engine.text(prompt, 12));
  assert.equal(choice.finish_reason, 'length');
  const { usage } = completion;
  assert.equal(usage.prompt_tokens, (await engine.tokens(prompt)).length);
  assert.equal(usage.completion_tokens, 12);
  assert.equal(usage.total_tokens, usage.prompt_tokens + 12);
  assert.ok(usage.prompt_tokens_details && usage.completion_tokens_details);
});

test('max_tokens is 16 unless said', async () => {
  assert.equal((await complete(PROMPT)).choices[0].text, await engine.text(PROMPT, 16));
});

test('stream', async () => {
  const prompt = `${CANARY} the mountain`;
  const chunks = await Array.fromAsync(await complete(prompt, { max_tokens: 20, stream: true }));
  assert.ok(chunks.length > 10, 'the answer came in one piece');
  assert.ok(chunks.every((chunk) => chunk.choices.length === 1 && chunk.id === chunks[0].id && !chunk.usage));
  assert.equal(chunks.map((chunk) => chunk.choices[0].text).join(''), await engine.text(prompt, 20));
  assert.equal(chunks.at(-1).choices[0].finish_reason, 'length');
});

test('stream with usage', async () => {
  const members = { max_tokens: 8, stream: true, stream_options: { include_usage: true } };
  const chunks = await Array.fromAsync(await complete(PROMPT, members));
  const last = chunks.pop();
  assert.deepEqual(last.choices, []);
  assert.equal(last.usage.completion_tokens, 8);
  assert.equal(last.usage.total_tokens, last.usage.prompt_tokens + 8);
  assert.ok(chunks.every((chunk) => chunk.usage === null));
  assert.equal(chunks.map((chunk) => chunk.choices[0].text).join(''), await engine.text(PROMPT, 8));
});

for (const form of ['string', 'strings', 'tokens', 'token arrays']) {
  for (const stream of [false, true]) {
    test(`prompt as ${form}, ${stream ? 'stream' : 'unary'}`, async () => {
      const texts = ['the river', 'a quiet harbour'].slice(0, form.endsWith('s') && form !== 'tokens' ? 2 : 1);
      const tokens = await Promise.all(texts.map((text) => engine.tokens(text)));
      const prompt = { string: texts[0], strings: texts, tokens: tokens[0], 'token arrays': tokens }[form];
      const answer = await complete(prompt, { max_tokens: 8, stream });
      const answers = texts.map(() => '');
      for (const part of stream ? await Array.fromAsync(answer) : [answer]) {
        for (const choice of part.choices) answers[choice.index] += choice.text;
      }
      assert.deepEqual(answers, await Promise.all(texts.map((text) => engine.text(text, 8))));
    });
  }
}

test('logprobs', async () => {
  const [{ text, logprobs }] = (await complete(PROMPT, { max_tokens: 6, logprobs: 2 })).choices;
  assert.equal(logprobs.tokens.join(''), text);
  assert.equal(logprobs.token_logprobs.length, 6);
  // The tiny model's likeliest next token always has this chance.
  for (const logprob of logprobs.token_logprobs) assert.ok(Math.abs(logprob - Math.log(0.7)) < 0.01);
  logprobs.top_logprobs.forEach((top, index) => {
    assert.equal(top[logprobs.tokens[index]], Math.max(...Object.values(top)));
  });
  assert.equal(logprobs.text_offset.length, 6);
});

test('two choices', async () => {
  const { choices } = await complete(PROMPT, { max_tokens: 6, n: 2 });
  const text = await engine.text(PROMPT, 6);
  assert.deepEqual(
    choices.map((choice) => [choice.index, choice.text]),
    [[0, text], [1, text]],
  );
});

test('stop as a string and as an array', async () => {
  const words = (await engine.text(PROMPT, 8)).trim().split(' ');
  for (const stop of [words[3], [words[3]], ['never said', words[3]]]) {
    const [choice] = (await complete(PROMPT, { max_tokens: 8, stop })).choices;
    assert.equal(choice.finish_reason, 'stop');
    assert.deepEqual(choice.text.trim().split(' '), words.slice(0, 3));
  }
});

test('null members are absent members', async () => {
  const names =
    'best_of echo frequency_penalty logit_bias logprobs max_tokens n presence_penalty seed stop stream ' +
    'stream_options suffix top_p user';
  const nulls = Object.fromEntries(names.split(' ').map((name) => [name, null]));
  assert.equal((await complete(PROMPT, nulls)).choices[0].text, await engine.text(PROMPT, 16));
});

test('emoji whose bytes are tokens', async () => {
  const told = await engine.text('say emoji', 25);
  assert.equal(told.split('\u{1f600}').length, 6);
  assert.equal((await complete('say emoji', { max_tokens: 25 })).choices[0].text, told);
  assert.equal(await textOf(await complete('say emoji', { max_tokens: 25, stream: true })), told);
});

test('a prompt of 1 MiB', async () => {
  // Sixteen of these are one token (tests/engine/tiny_model.py), so that the engine soon has read them.
  const prompt = ' confidentialinferenceneedsevidenceandnotpromisesbeforeanysecret'.repeat(16_384);
  assert.equal(prompt.length, 1 << 20);
  const completion = await complete(prompt, { max_tokens: 4 });
  assert.equal(completion.usage.prompt_tokens, (await engine.tokens(prompt)).length);
  assert.equal(completion.choices[0].text, await engine.text(prompt, 4));
});

for (const stream of [false, true]) {
  test(`100 at once get their own answers, ${stream ? 'stream' : 'unary'}`, async () => {
    const prompts = WORDS.slice(0, 100).map((word) => `tell me of ${word}`);
    const ask = async (prompt) => {
      const answer = await complete(prompt, { max_tokens: 12, stream });
      return stream ? textOf(answer) : answer.choices[0].text;
    };
    const answers = await Promise.all(prompts.map(ask));
    assert.equal(new Set(answers).size, 100);
    for (const [index, prompt] of prompts.entries()) {
      assert.equal(answers[index], await engine.text(prompt, 12));
    }
  });
}

test('every answer has an id and says what was attested', async () => {
  const ids = new Set();
  for (const stream of [false, true]) {
    const { data, response, request_id: id } = await complete(PROMPT, { max_tokens: 2, stream }).withResponse();
    assert.match(id, /^[0-9a-f]{32}$/);
    ids.add(id);
    if (stream) await textOf(data);
    else assert.equal(data._request_id, id);
    assert.match(response.headers.get('sealgate-attestation'), /^sev-snp; root="software root"; age=[0-9]+$/);
    assert.ok(response.headers.get('sealgate-node'));
  }
  assert.equal(ids.size, 2);
});

test('models', async () => {
  const models = await Array.fromAsync(await sdk().models.list());
  assert.deepEqual(
    models.map((model) => model.id).sort(),
    ['picture', 'tiny'],
  );
  assert.equal((await sdk().models.retrieve('tiny')).id, 'tiny');
});
