// Encrypted HTTP bodies by the older of the client's two generations, pointed at a node.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Identity, KeyConfigMismatchError, Transport, createTransport } from 'ehbp';

import { CANARY, NODE_URL, SECRET, engine } from '../common/engine.js';

const transport = await createTransport(NODE_URL);

/** A chat of one message; URLs have to be absolute here. */
function ask(message, members = {}, through = transport) {
  const messages = [{ role: 'user', content: message }];
  const body = JSON.stringify({ model: 'tiny', messages, temperature: 0, ...members });
  const headers = { 'content-type': 'application/json' };
  return through.post(`${NODE_URL}/v1/chat/completions`, body, { headers });
}

test('discovery', async () => {
  assert.match(await transport.getServerPublicKeyHex(), /^[0-9a-f]{64}$/);
});

test('unary', async () => {
  const message = `${CANARY} the river`;
  const answer = await ask(message, { max_tokens: 12 });
  assert.equal(answer.status, 200);
  assert.match(answer.headers.get('content-type'), /^application\/json/);
  assert.equal((await answer.json()).choices[0].message.content, await engine.reply(message, 12));
});

test('stream', async () => {
  const message = `${CANARY} the mountain`;
  const answer = await ask(message, { max_tokens: 12, stream: true });
  assert.match(answer.headers.get('content-type'), /^text\/event-stream/);
  const events = (await answer.text()).split('\n').filter((line) => line.startsWith('data: '));
  assert.equal(events.pop(), 'data: [DONE]');
  assert.ok(events.length > 5, 'the answer came in one piece');
  const parts = events.map((event) => JSON.parse(event.slice(6)).choices[0].delta.content ?? '');
  assert.equal(parts.join(''), await engine.reply(message, 12));
});

test('errors are sealed and quote nothing', async () => {
  for (const [members, status] of [[{ model: 'nope' }, 404], [{ top_p: 7 }, 400]]) {
    const answer = await ask(SECRET, members);
    assert.equal(answer.status, status);
    const text = await answer.text();
    assert.ok(JSON.parse(text).error.message && !text.includes(SECRET));
  }
});

test("a key that is not the node's", async () => {
  const stranger = new Transport(await Identity.generate(), new URL(NODE_URL).host);
  await assert.rejects(ask(SECRET, {}, stranger), KeyConfigMismatchError);
});
