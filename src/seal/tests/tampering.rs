//! What a hostile path can do to an exchange, and that none of it passes.

use super::*;
use crate::seal::{
    bhttp, chunks::OpenChunkAt, context::RequestSealing, labels, request_opener::MAX_OVERHEAD,
    suite::Header,
};

const REQUEST_HEAD: usize = 7 + 32;
const REPLY_HEAD: usize = 32;

/// A request in three chunks, the last with the end of its content.
fn small_request(node: &Node) -> Vec<u8> {
    let message = small_message();
    let (one, rest) = message.split_at(12);
    let (two, three) = rest.split_at(12);
    sealed_request(node, &[one, two, three])
}

fn small_message() -> Vec<u8> {
    let mut message = Vec::new();
    bhttp::request(&mut message, "/v1", &[("a", "b")], b"some content").unwrap();
    message
}

/// Seals what is in each chunk, whatever it is.
fn sealed_request(node: &Node, parts: &[&[u8]]) -> Vec<u8> {
    let header = Header {
        key_id: KEY_ID,
        suite: X25519,
    };
    let info = labels::request_info(&header.encode());
    let (enc, mut sealing, _) =
        RequestSealing::setup(X25519, node.public_key.as_bytes(), &info, &mut rng()).unwrap();
    let mut out = BytesMut::from(&header.encode()[..]);
    out.extend_from_slice(enc.as_bytes());
    for (number, part) in (1..).zip(parts) {
        let is_last = number == parts.len();
        let place = if is_last { Place::Final } else { Place::Middle };
        let chunk = OpenChunkAt::begin(&mut out, part.len(), place).unwrap();
        out.extend_from_slice(part);
        chunk.end(&mut out, &mut sealing).unwrap();
    }
    out.to_vec()
}

/// A reply in three chunks, and what each says.
const SAID: [&[u8]; 3] = [b"data: 1\n\n", b"data: 2\n\n", b"data: [DONE]\n\n"];

fn small_reply(sealer: ReplySealer) -> Vec<u8> {
    let mut stream = sealer.into_stream(200, &[], Padding::Off).unwrap();
    let mut reply = stream.chunk(SAID[0]).unwrap().to_vec();
    reply.extend_from_slice(&stream.chunk(SAID[1]).unwrap());
    reply.extend_from_slice(&stream.finish(SAID[2], &[]).unwrap());
    reply
}

/// An opener for the same reply as often as a test needs one.
struct Replies {
    secret: [u8; 32],
    enc: [u8; 32],
}

impl Replies {
    fn new() -> Self {
        Self {
            secret: [3; 32],
            enc: [4; 32],
        }
    }

    fn secret(&self) -> crate::seal::context::ReplySecret {
        crate::seal::context::ReplySecret::fixed(Aead::Aes256Gcm, self.secret, self.enc)
    }

    fn opener(&self) -> ReplyOpener {
        ReplyOpener::new(self.secret())
    }

    fn sealer(&self) -> ReplySealer {
        ReplySealer::new(self.secret())
    }
}

/// Refused, and nothing was given on but whole chunks before the one that was touched.
fn assert_refused(seen: &Seen, untouched: usize, name: &str) {
    assert!(seen.error.is_some() && seen.end.is_none(), "{name}");
    let honest = SAID[..untouched].concat();
    assert_eq!(seen.content, honest, "{name}");
}

#[test]
fn every_flipped_bit_of_a_request_is_refused() {
    let node = Node::new();
    let body = small_request(&node);
    assert_eq!(
        node.open([&body[..]]).unwrap().0.content,
        &b"some content"[..]
    );
    assert_eq!(chunks(&body, REQUEST_HEAD).len(), 3);
    for bit in 0..body.len() * 8 {
        let mut flipped = body.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(node.open([&flipped[..]]).is_err(), "bit {bit}");
    }
}

#[test]
fn every_flipped_bit_of_a_reply_is_refused_and_its_chunk_kept_back() {
    let replies = Replies::new();
    let reply = small_reply(replies.sealer());
    assert_eq!(
        read_reply(replies.opener(), [&reply[..]]).complete().1,
        SAID.concat()
    );
    let ends: Vec<usize> = chunks(&reply, REPLY_HEAD)
        .iter()
        .scan(REPLY_HEAD, |end, (_, chunk)| {
            *end += chunk.len();
            Some(*end)
        })
        .collect();
    assert_eq!(ends.len(), 3);
    for bit in 0..reply.len() * 8 {
        let mut flipped = reply.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let in_nonce = bit / 8 < REPLY_HEAD;
        let untouched = ends
            .iter()
            .filter(|end| !in_nonce && bit / 8 >= **end)
            .count();
        let whole = read_reply(replies.opener(), [&flipped[..]]);
        assert_refused(&whole, untouched, &format!("bit {bit}"));
        let bytewise = read_reply(replies.opener(), flipped.chunks(1));
        assert_refused(&bytewise, untouched, &format!("bit {bit}, bytewise"));
    }
}

#[test]
fn every_cut_is_refused() {
    let node = Node::new();
    let request = small_request(&node);
    for cut in 0..request.len() {
        let error = node.open([&request[..cut]]).unwrap_err();
        // In the final chunk the tag goes with the last bytes.
        let expected = [OpenError::Truncated, OpenError::Decrypt];
        assert!(expected.contains(&error), "request cut at {cut}: {error}");
    }
    let replies = Replies::new();
    let reply = small_reply(replies.sealer());
    for cut in 0..reply.len() {
        let seen = read_reply(replies.opener(), [&reply[..cut]]);
        assert!(seen.error.is_some(), "reply cut at {cut}");
        assert!(SAID.concat().starts_with(&seen.content));
        assert!(!seen.content.ends_with(SAID[2]), "reply cut at {cut}");
    }
    for more in [1, 100, 20_000] {
        let longer = [&reply[..], &vec![0; more]].concat();
        assert_refused(&read_reply(replies.opener(), [&longer[..]]), 2, "longer");
        let longer = [&request[..], &vec![0; more]].concat();
        assert!(node.open([&longer[..]]).is_err());
    }
}

/// Every way to order, double and drop three chunks, with the length each way leaves.
fn arrangements() -> Vec<Vec<usize>> {
    let mut all = vec![vec![]];
    let mut longest = vec![vec![]];
    for _ in 0..4 {
        longest = longest
            .iter()
            .flat_map(|some: &Vec<usize>| (0..3).map(|next| [&some[..], &[next]].concat()))
            .collect();
        all.extend(longest.clone());
    }
    all.retain(|order| order != &[0, 1, 2]);
    all
}

/// The chunk put in another place: its length prefix is the sender's to choose.
fn arranged(body: &[u8], head: usize, order: &[usize]) -> Vec<u8> {
    let chunks: Vec<Vec<u8>> = chunks(body, head)
        .into_iter()
        .map(|(_, chunk)| chunk[varint::len_from(chunk[0])..].to_vec())
        .collect();
    let mut out = body[..head].to_vec();
    for (at, index) in order.iter().enumerate() {
        let len = if at + 1 == order.len() {
            0
        } else {
            chunks[*index].len()
        };
        out.extend_from_slice(varint::encode(len).unwrap().as_bytes());
        out.extend_from_slice(&chunks[*index]);
    }
    out
}

#[test]
fn chunks_out_of_order_doubled_or_dropped_are_refused() {
    let node = Node::new();
    let request = small_request(&node);
    let replies = Replies::new();
    let reply = small_reply(replies.sealer());
    assert_eq!(arranged(&reply, REPLY_HEAD, &[0, 1, 2]), reply);
    for order in arrangements() {
        let name = format!("{order:?}");
        let other = arranged(&request, REQUEST_HEAD, &order);
        assert!(node.open([&other[..]]).is_err(), "{name}");
        let seen = read_reply(
            replies.opener(),
            [&arranged(&reply, REPLY_HEAD, &order)[..]],
        );
        // The last place of an order is the final chunk's, which is never given on unproved.
        let in_place = order.iter().take(order.len().saturating_sub(1)).enumerate();
        let untouched = in_place
            .take_while(|(at, index)| at == *index && *at < 2)
            .count();
        assert_refused(&seen, untouched, &name);
    }
}

#[test]
fn chunks_of_another_exchange_are_refused() {
    let node = Node::new();
    let (opener, _) = node.exchange();
    let (_, sealer) = node.exchange();
    let seen = read_reply(opener, [&small_reply(sealer)[..]]);
    assert_eq!(seen.error, Some(OpenError::Decrypt));
    let (one, two) = (small_request(&node), small_request(&node));
    let spliced = [&one[..REQUEST_HEAD + 29], &two[REQUEST_HEAD + 29..]].concat();
    assert_eq!(node.open([&spliced[..]]).unwrap_err(), OpenError::Decrypt);
}

#[test]
fn a_request_never_opens_as_a_reply() {
    let node = Node::new();
    let (request, opener) = node.sealed(b"{}", Padding::Off);
    assert!(read_reply(opener, [&request[7..]]).error.is_some());
}

/// Every chunk is authentic, and whoever sealed them ended the message too soon.
#[test]
fn a_message_that_is_not_whole_is_refused_though_its_chunks_are() {
    let node = Node::new();
    let message = small_message();
    for end in 0..=message.len() {
        let request = sealed_request(&node, &[&message[..end]]);
        let opened = node.open([&request[..]]);
        assert_eq!(opened.is_ok(), end == message.len(), "request of {end}");
    }
    let replies = Replies::new();
    // Status 200 and no field; one piece of content and its end; no trailer.
    let message = b"\x03\x40\xc8\x00\x03abc\x00\x00";
    for end in 0..=message.len() {
        let (nonce, mut sealing) = replies.sealer().begin(&mut rng()).unwrap();
        let mut reply = BytesMut::from(nonce.as_bytes());
        let chunk = OpenChunkAt::begin(&mut reply, end, Place::Final).unwrap();
        reply.extend_from_slice(&message[..end]);
        chunk.end(&mut reply, &mut sealing).unwrap();
        let seen = read_reply(replies.opener(), [&reply[..]]);
        let is_whole = end == message.len();
        assert_eq!(seen.end.is_some(), is_whole, "reply of {end}");
        assert_eq!(seen.error.is_none(), is_whole, "reply of {end}");
    }
}

#[test]
fn plaintext_is_bounded_to_its_last_byte() {
    let node = Node::new();
    let limits = RequestLimits { content_bytes: 12 };
    let most = (limits.content_bytes + MAX_OVERHEAD) * 2;
    let opened = |len: usize| {
        let mut message = small_message();
        message.resize(len, 0);
        let parts: Vec<_> = message.chunks(16_384).collect();
        let mut opener = RequestOpener::new(limits);
        opener
            .push(&node.keys, sealed_request(&node, &parts).into())
            .unwrap();
        opener.finish().map(|_| ())
    };
    assert_eq!(opened(most), Ok(()));
    assert_eq!(opened(most + 1), Err(OpenError::TooLarge { max: 12 }));
}

#[test]
fn an_opener_that_failed_stays_failed() {
    let node = Node::new();
    let mut opener = RequestOpener::new(RequestLimits::default());
    assert!(
        opener
            .push(&node.keys, Bytes::from_static(&[0; 39]))
            .is_err()
    );
    let (request, _) = node.sealed(b"{}", Padding::Off);
    assert_eq!(opener.push(&node.keys, request), Err(OpenError::Failed));
    assert_eq!(opener.finish().unwrap_err(), OpenError::Failed);
}
