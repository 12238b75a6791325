// A client that shares no code with the node: hpke-js for HPKE, X25519 and X-Wing, and ohttp.js, which was written from
// docs/wire.md. It takes the keys out of the node's statement and **does not appraise the evidence**: who the node is it
// does not know. `sealgate verify` and the clients of this project do that.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { CANARY, NODE_URL, SECRET, engine } from '../common/engine.js';
import { binaryRequest, binaryResponse, open, seal } from './ohttp.js';

const SUITES = ['x-wing', 'x25519'];
const PATH = '/v1/chat/completions';

const nonce = randomBytes(32).toString('hex');
const answer = await (await fetch(`${NODE_URL}/v1/attestation?nonce=${nonce}`)).json();
const bytes = Buffer.from(answer.statement, 'base64');
const statement = JSON.parse(bytes);
const digest = createHash('sha256').update(bytes).digest('hex');
const keyOf = (suite) => statement.keys.find((key) => key.suite === suite);

function request(members, fields = {}) {
  const own = {
    'content-type': 'application/json',
    date: new Date().toUTCString(),
    'sealgate-statement': digest,
    'sealgate-request-id': randomBytes(16).toString('hex'),
    'sealgate-padding': 'bucket',
    ...fields,
  };
  const body = JSON.stringify({ model: 'tiny', temperature: 0, ...members });
  return binaryRequest(PATH, own, new TextEncoder().encode(body));
}

function post(body) {
  const headers = { 'content-type': 'message/ohttp-chunked-req', incremental: '?1' };
  return fetch(`${NODE_URL}/.well-known/ohttp-gateway`, { method: 'POST', headers, body });
}

/** The opened reply, and how many chunks it came in. */
async function ask(suite, message, options) {
  const sealed = await seal(keyOf(suite), message, options);
  const reply = await post(sealed.body);
  assert.equal(reply.status, 200);
  assert.equal(reply.headers.get('content-type'), 'message/ohttp-chunked-res');
  const chunks = [];
  for await (const chunk of open(sealed, reply.body)) chunks.push(chunk);
  return { ...binaryResponse(Buffer.concat(chunks)), chunks: chunks.length };
}

test('the statement', () => {
  assert.equal(answer.nonce, nonce);
  assert.deepEqual(
    statement.keys.map((key) => key.suite).filter((suite) => SUITES.includes(suite)),
    SUITES,
  );
  assert.equal(Buffer.from(keyOf('x-wing').public_key, 'base64').length, 1216);
});

for (const suite of SUITES) {
  test(`${suite}, unary`, async () => {
    for (const size of [7, 16_384]) {
      const content = `${CANARY} the harbour`;
      const messages = [{ role: 'user', content }];
      const reply = await ask(suite, request({ messages, max_tokens: 12 }), { size });
      assert.equal(reply.status, 200, reply.content.toString());
      const body = JSON.parse(reply.content);
      assert.equal(body.choices[0].message.content, await engine.reply(content, 12));
      assert.deepEqual(JSON.parse(reply.trailers['sealgate-usage']), body.usage);
    }
  });

  test(`${suite}, stream`, async () => {
    const content = `${CANARY} the island`;
    const messages = [{ role: 'user', content }];
    const reply = await ask(suite, request({ messages, max_tokens: 12, stream: true }));
    assert.equal(reply.fields['content-type'], 'text/event-stream');
    assert.ok(reply.chunks > 5, 'the answer came in one piece');
    const events = reply.content.toString().split('\n').filter((line) => line.startsWith('data: '));
    assert.equal(events.pop(), 'data: [DONE]');
    const parts = events.map((event) => JSON.parse(event.slice(6)).choices[0]?.delta.content ?? '');
    assert.equal(parts.join(''), await engine.reply(content, 12));
    assert.equal(reply.trailers['sealgate-incomplete'], undefined);
  });

  test(`${suite}, refused inside`, async () => {
    const messages = [{ role: 'user', content: SECRET }];
    const reply = await ask(suite, request({ messages }, { date: 'Mon, 23 Nov 2020 22:00:00 GMT' }));
    assert.equal(reply.status, 400);
    assert.match(JSON.parse(reply.content).type, /#date$/);
  });

  test(`${suite}, a bit that is another`, async () => {
    const messages = [{ role: 'user', content: SECRET }];
    const { body, enc } = await seal(keyOf(suite), request({ messages }));
    for (const at of [0, 7, 7 + enc.length - 1, 7 + enc.length + 5]) {
      const bent = body.slice();
      bent[at] ^= 1;
      const reply = await post(bent);
      assert.equal(reply.status, 400, `byte ${at}`);
      assert.match((await reply.json()).type, /#ohttp-key$/, `byte ${at}`);
    }
  });
}

test('what hpke-js made, kept for the node to open', async () => {
  const vectors = JSON.parse(readFileSync(new URL('../../vectors/hpke-js.json', import.meta.url)));
  assert.equal(vectors.vectors.length, 2);
  for (const vector of vectors.vectors) {
    const key = {
      suite: vector.suite,
      key_id: vector.keyId,
      public_key: Buffer.from(vector.pkR, 'hex').toString('base64'),
    };
    const ekm = new Uint8Array(Buffer.from(vector.ekm, 'hex'));
    const message = new Uint8Array(Buffer.from(vector.request, 'hex'));
    const sealed = await seal(key, message, { size: vector.size, ekm });
    assert.equal(Buffer.from(sealed.body).toString('hex'), vector.encapsulatedRequest);
    assert.equal(Buffer.from(sealed.secret).toString('hex'), vector.secret);
  }
});
