// Makes tests/vectors/hpke-js.json: the same bytes each time.
//
//   node vectors.js >../../vectors/hpke-js.json
import { DhkemX25519HkdfSha256 } from '@hpke/core';
import { XWing } from '@hpke/hybridkem-x-wing';

import { binaryRequest, seal } from './ohttp.js';

const hex = (bytes) => Buffer.from(bytes).toString('hex');
const counting = (from, length) => Uint8Array.from({ length }, (_, at) => (from + at) & 0xff);

const FIELDS = { 'content-type': 'application/json', date: 'Mon, 23 Nov 2026 22:00:00 GMT' };
const request = binaryRequest('/v1/completions', FIELDS, new TextEncoder().encode('{"model":"m","prompt":"hpke-js"}'));

async function vector(suite, kem, pair, ekmLength) {
  const [skR, pkR] = [await kem.serializePrivateKey(pair.privateKey), await kem.serializePublicKey(pair.publicKey)];
  const key = { suite, key_id: 5, public_key: Buffer.from(pkR).toString('base64') };
  const [ekm, size] = [counting(0x60, ekmLength), 50];
  const sealed = await seal(key, request, { size, ekm });
  return {
    suite,
    keyId: key.key_id,
    skR: hex(skR),
    pkR: hex(pkR),
    ekm: hex(ekm),
    size,
    request: hex(request),
    encapsulatedRequest: hex(sealed.body),
    secret: hex(sealed.secret),
  };
}

const source =
  'Made with JavaScript by tests/clients/hpke-js/vectors.js: hpke-js, @hpke/core 1.9.0 and @hpke/hybridkem-x-wing 0.7.0 ' +
  'of npm, with counting bytes for key and randomness. encapsulatedRequest seals request in chunks of size bytes; secret ' +
  'is what its reply is sealed with.';
const [xWing, x25519] = [new XWing(), new DhkemX25519HkdfSha256()];
const vectors = [
  await vector('x-wing', xWing, await xWing.generateKeyPairDerand(counting(0x20, 32)), 64),
  await vector('x25519', x25519, await x25519.deriveKeyPair(counting(0x20, 32).buffer), 32),
];
console.log(JSON.stringify({ source, vectors }, null, 1));
