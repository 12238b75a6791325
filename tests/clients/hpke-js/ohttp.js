// A sealer and an opener of chunked OHTTP, written from docs/wire.md on another HPKE than the node's.
import { Aes256Gcm, CipherSuite, DhkemX25519HkdfSha256, HkdfSha256 } from '@hpke/core';
import { XWing } from '@hpke/hybridkem-x-wing';

const KDF_ID = 1;
const AEAD_ID = 2;
/** A name in a statement, and what is made of it here. */
const KEMS = { 'x-wing': [0x647a, XWing], x25519: [0x0020, DhkemX25519HkdfSha256] };
const NK = 32;
const NN = 12;
const MAX_CHUNK = 16_384;
const TAG = 16;
const INFORMATIVE = [100, 199];

const text = new TextEncoder();
const { subtle } = globalThis.crypto;

function concat(...parts) {
  const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** An integer in the shortest form of RFC 9000 section 16. */
function integer(value) {
  if (value < 1 << 6) return Uint8Array.of(value);
  if (value < 1 << 14) return Uint8Array.of(0x40 | (value >> 8), value & 0xff);
  return Uint8Array.of(0x80 | (value >>> 24), (value >> 16) & 0xff, (value >> 8) & 0xff, value & 0xff);
}

/** Reads bytes from the front; `undefined` where there are not enough. */
class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  left() {
    return this.bytes.length - this.at;
  }

  take(length) {
    if (this.left() < length) return undefined;
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }

  integer() {
    if (this.left() === 0) return undefined;
    const length = 1 << (this.bytes[this.at] >> 6);
    const encoded = this.take(length);
    return encoded?.reduce((value, byte, index) => value * 256 + (index === 0 ? byte & 0x3f : byte), 0);
  }

  sized() {
    const length = this.integer();
    return length === undefined ? undefined : this.take(length);
  }
}

function prefixed(bytes) {
  return concat(integer(bytes.length), bytes);
}

function fieldLines(fields) {
  return concat(...Object.entries(fields).flatMap(([name, value]) => [prefixed(text.encode(name)), prefixed(text.encode(value))]));
}

/** A Binary HTTP request of known length (RFC 9292). */
export function binaryRequest(path, fields, content) {
  const control = ['POST', 'https', '', path].map((part) => prefixed(text.encode(part)));
  return concat(integer(0), ...control, prefixed(fieldLines(fields)), prefixed(content), prefixed(new Uint8Array()));
}

/** A Binary HTTP response of indeterminate length, as a node sends it; what is left over must be zeros. */
export function binaryResponse(bytes) {
  const reader = new Reader(bytes);
  const lines = () => {
    const fields = {};
    for (;;) {
      const name = reader.sized();
      if (name.length === 0) return fields;
      fields[Buffer.from(name).toString()] = Buffer.from(reader.sized()).toString();
    }
  };
  if (reader.integer() !== 3) throw new Error('no response of indeterminate length');
  let status = reader.integer();
  while (status >= INFORMATIVE[0] && status <= INFORMATIVE[1]) {
    lines();
    status = reader.integer();
  }
  const fields = lines();
  const parts = [];
  for (let part = reader.sized(); part.length > 0; part = reader.sized()) parts.push(part);
  const trailers = lines();
  if (reader.take(reader.left()).some((byte) => byte !== 0)) throw new Error('padding that is not zero');
  return { status, fields, content: Buffer.concat(parts), trailers };
}

async function sealWith(context, message, size) {
  const sealed = [];
  let at = 0;
  for (; message.length - at > size; at += size) {
    sealed.push(prefixed(new Uint8Array(await context.seal(message.slice(at, at + size)))));
  }
  const last = await context.seal(message.slice(at), text.encode('final'));
  return concat(...sealed, integer(0), new Uint8Array(last));
}

/** Seals a message to a key of a statement; `ekm` fixes what is otherwise drawn. */
export async function seal(key, message, { size = MAX_CHUNK, ekm } = {}) {
  const [kemId, Kem] = KEMS[key.suite];
  const ids = [kemId, KDF_ID, AEAD_ID].flatMap((id) => [id >> 8, id & 0xff]);
  const header = Uint8Array.of(key.key_id, ...ids);
  const suite = new CipherSuite({ kem: new Kem(), kdf: new HkdfSha256(), aead: new Aes256Gcm() });
  const recipientPublicKey = await suite.kem.deserializePublicKey(new Uint8Array(Buffer.from(key.public_key, 'base64')));
  const info = concat(text.encode('message/bhttp chunked request\0'), header);
  const context = await suite.createSenderContext({ recipientPublicKey, info, ekm });
  const enc = new Uint8Array(context.enc);
  const secret = new Uint8Array(await context.export(text.encode('message/bhttp chunked response'), NK));
  return { body: concat(header, enc, await sealWith(context, message, size)), enc, secret };
}

async function replyKeys(secret, enc, nonce) {
  const prk = await subtle.importKey('raw', secret, 'HKDF', false, ['deriveBits']);
  const expand = async (info, length) => {
    const params = { name: 'HKDF', hash: 'SHA-256', salt: concat(enc, nonce), info: text.encode(info) };
    return new Uint8Array(await subtle.deriveBits(params, prk, 8 * length));
  };
  const key = await subtle.importKey('raw', await expand('key', NK), 'AES-GCM', false, ['decrypt']);
  return { key, base: await expand('nonce', NN) };
}

/** Opens a reply as its bytes come: gives the plaintext of each chunk, and ends only after the final one. */
export async function* open({ enc, secret }, pieces) {
  let bytes = new Uint8Array();
  let keys;
  let counter = 0;
  let isLast = false;
  const opened = async (chunk, additionalData) => {
    const iv = keys.base.slice();
    for (let at = NN - 1, left = counter; left > 0; at -= 1, left = Math.floor(left / 256)) iv[at] ^= left % 256;
    counter += 1;
    return new Uint8Array(await subtle.decrypt({ name: 'AES-GCM', iv, additionalData }, keys.key, chunk));
  };
  for await (const piece of pieces) {
    bytes = concat(bytes, piece);
    for (;;) {
      const reader = new Reader(bytes);
      if (!keys) {
        const nonce = reader.take(NK);
        if (!nonce) break;
        keys = await replyKeys(secret, enc, nonce);
      } else if (isLast) {
        break;
      } else {
        const length = reader.integer();
        if (length === undefined) break;
        if (length === 0) {
          isLast = true;
        } else {
          if (length <= TAG || length > MAX_CHUNK + TAG) throw new Error(`a chunk of ${length} bytes`);
          const chunk = reader.take(length);
          if (!chunk) break;
          yield await opened(chunk, new Uint8Array());
        }
      }
      bytes = bytes.slice(reader.at);
    }
  }
  if (!isLast) throw new Error('no final chunk');
  yield await opened(bytes, text.encode('final'));
}
