// A caller that leaves takes the engine's work along, whatever the phase.
import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';

import OpenAI from 'openai';

import { ENGINE_LOOKS_EVERY, STOPS_WITHIN, complete, engine, within } from './common.js';

// Some ten seconds of work for the engine.
const LONG = 24_000;

beforeEach(async () => {
  assert.ok(await within(30_000, () => engine.idle()), 'the engine is still busy with an earlier test');
});

test('in the middle of a stream', async () => {
  const stream = await complete('the river', { max_tokens: LONG, stream: true });
  let seen = 0;
  for await (const _ of stream) {
    if (++seen === 5) break;
  }
  assert.ok(await within(STOPS_WITHIN, () => engine.idle()), 'the engine went on');
});

test('a stream that is aborted', async () => {
  const stream = await complete('the river', { max_tokens: LONG, stream: true });
  await stream[Symbol.asyncIterator]().next();
  assert.ok(await engine.busy());
  stream.controller.abort();
  assert.ok(await within(STOPS_WITHIN, () => engine.idle()), 'the engine went on');
});

test('waiting for a unary answer', async () => {
  const before = engine.cancelled();
  const leaving = new AbortController();
  const asked = complete('the river', { max_tokens: LONG }, { signal: leaving.signal });
  assert.ok(await within(10_000, () => engine.busy()), 'the request never arrived');
  leaving.abort();
  await assert.rejects(asked, OpenAI.APIUserAbortError);
  const limit = STOPS_WITHIN + ENGINE_LOOKS_EVERY;
  assert.ok(await within(limit, () => engine.cancelled() > before), 'the engine went on');
});
