//! Bodies: a request's, read within its limits, and the forms that a reply's can take.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue,
    header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT},
};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    admit::{Admission, BodyRoom},
    error::Error,
    paced::PacedReply,
    relay::Relayed,
    sealed_reply::SealedEvents,
    stream::EventStream,
    whole::WholeReply,
};
use crate::{
    pace::{LeastRate, Pace},
    seal::REQUEST_MEDIA_TYPE,
    sealer::is_media_type,
};

/// Bytes that a body is given room for at least.
const ROOM_STEP: usize = 64 * 1024;
/// Bytes that a connection is given at once of what is held in a room.
const MAX_PIECE: usize = 256 * 1024;
/// What is read of a refused request's body, so that its sender gets to read the refusal, and how
/// long that may take.
const MAX_DISCARDED: usize = 32 << 20;
const MAX_DISCARD_TIME: Duration = Duration::from_secs(1);

/// Checks what the head says of the body.
///
/// # Errors
/// [`Error::MediaType`] unless it is plain `application/json`; [`Error::TooLarge`].
pub(super) fn check_head(headers: &HeaderMap, body: &Incoming, max: usize) -> Result<(), Error> {
    if !is_plain(headers, b"application/json") {
        return Err(Error::MediaType);
    }
    check_size(body, max)
}

/// Checks what the head says of a body that is sealed.
///
/// # Errors
/// [`Error::SealedMediaType`] unless it is a plain sealed request; [`Error::TooLarge`].
pub(super) fn check_sealed_head(
    headers: &HeaderMap,
    body: &Incoming,
    max: usize,
) -> Result<(), Error> {
    if !is_plain(headers, REQUEST_MEDIA_TYPE.as_bytes()) {
        return Err(Error::SealedMediaType);
    }
    check_size(body, max)
}

fn is_plain(headers: &HeaderMap, expected: &[u8]) -> bool {
    let is_coded = |coding: &HeaderValue| !coding.as_bytes().eq_ignore_ascii_case(b"identity");
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| is_media_type(value.as_bytes(), expected))
        && !headers.get(CONTENT_ENCODING).is_some_and(is_coded)
}

fn check_size(body: &Incoming, max: usize) -> Result<(), Error> {
    let least = body.size_hint().lower();
    if usize::try_from(least).map_or(true, |least| least > max) {
        return Err(Error::TooLarge { max });
    }
    Ok(())
}

/// How slowly a body may come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For all of it.
    pub(super) within: Duration,
    pub(super) rate: LeastRate,
}

/// Reads a request's body of at most `max` bytes. What is held grows with what has come, whatever
/// length was said, so that a slow one holds little.
///
/// # Errors
/// [`Error::TooLarge`], [`Error::Overloaded`] without room for it, [`Error::BodyTimeout`],
/// [`Error::BodyTooSlow`], [`Error::BodyBroken`].
pub(super) async fn read(
    body: &mut Incoming,
    max: usize,
    patience: Patience,
    admission: &Admission,
) -> Result<(Bytes, BodyRoom), Error> {
    let reading = read_all(body, max, patience.rate, admission.body_room());
    timeout(patience.within, reading)
        .await
        .unwrap_or(Err(Error::BodyTimeout))
}

async fn read_all(
    body: &mut Incoming,
    max: usize,
    rate: LeastRate,
    mut room: BodyRoom,
) -> Result<(Bytes, BodyRoom), Error> {
    let said = body.size_hint().exact();
    let most = said.map_or(max, |said| usize::try_from(said).unwrap_or(max).min(max));
    if said.is_some() {
        room.fits(most)?;
    }
    let mut pace = Pace::begin(rate, Instant::now());
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(data) = next_data(body, &mut pace).await? {
        let len = first
            .len()
            .saturating_add(all.len())
            .saturating_add(data.len());
        if len > max {
            return Err(Error::TooLarge { max });
        }
        if all.is_empty() && first.is_empty() {
            room.grow_to(len)?;
            first = data;
            continue;
        }
        if all.capacity() < len {
            let capacity = len.saturating_mul(2).max(ROOM_STEP).min(most).max(len);
            room.grow_to(capacity)?;
            all.reserve(capacity.saturating_sub(all.len()));
        }
        if all.is_empty() {
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&data);
    }
    let whole = if all.is_empty() { first } else { all.freeze() };
    Ok((whole, room))
}

/// The next bytes of a body, as long as it keeps up.
async fn next_data(body: &mut Incoming, pace: &mut Pace) -> Result<Option<Bytes>, Error> {
    loop {
        let frame = match pace.too_slow_at() {
            Some(at) => timeout_at(at, body.frame()).await,
            None => Ok(body.frame().await),
        };
        let Some(frame) = frame.map_err(|_| Error::BodyTooSlow)? else {
            return Ok(None);
        };
        if let Ok(data) = frame.map_err(Error::BodyBroken)?.into_data() {
            pace.came(data.len(), Instant::now());
            return Ok(Some(data));
        }
    }
}

/// Reads on after a refusal, within bounds: closing a connection while the other side still writes
/// makes many clients report a reset in place of the refusal.
pub(super) async fn discard(headers: &HeaderMap, mut body: Incoming) {
    // Who waits to be told to go on sends nothing.
    if body.is_end_stream() || headers.contains_key(EXPECT) {
        return;
    }
    let discarding = async {
        let mut left = MAX_DISCARDED;
        while let Some(Ok(frame)) = body.frame().await {
            let len = frame.data_ref().map_or(0, Bytes::len);
            left = left.saturating_sub(len);
            if left == 0 {
                return;
            }
        }
    };
    let _ = timeout(MAX_DISCARD_TIME, discarding).await;
}

/// A reply that ended before it was complete. The connection is aborted.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the reply was aborted")]
pub(super) struct Aborted;

/// The body of a reply to a caller.
#[derive(Debug)]
pub(super) enum ReplyBody {
    /// Bytes of the gateway's own.
    Own(Option<Bytes>),
    /// The same in room that it holds until all of it went.
    Roomy(Box<InRoom>),
    /// A node's complete reply.
    Whole(Box<WholeReply>),
    /// A node's event stream as it comes.
    Stream(Box<EventStream>),
    /// The same, sealed to the caller.
    Sealed(Box<SealedEvents>),
    /// What a caller who sealed gets at ticks.
    Paced(Box<PacedReply>),
    /// A node's reply that is sealed to the caller.
    Relay(Box<Relayed>),
}

/// Bytes of the gateway's own, piece by piece, and the room that they are held in.
#[derive(Debug)]
pub(super) struct InRoom {
    left: Bytes,
    _room: BodyRoom,
}

impl InRoom {
    /// A piece that a connection takes in soon: what it has not taken stays here, with the room.
    fn next(&mut self) -> Option<Bytes> {
        let piece = self.left.len().min(MAX_PIECE);
        Some(self.left.split_to(piece)).filter(|piece| !piece.is_empty())
    }
}

impl ReplyBody {
    /// The same of the gateway's own, in room that it holds until all of it went.
    pub(super) fn in_room(self, room: BodyRoom) -> Self {
        match self {
            Self::Own(Some(left)) => Self::Roomy(Box::new(InRoom { left, _room: room })),
            other => other,
        }
    }
}

impl From<Bytes> for ReplyBody {
    fn from(bytes: Bytes) -> Self {
        Self::Own(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        match self.get_mut() {
            Self::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Roomy(body) => Poll::Ready(body.next().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Whole(reply) => Poll::Ready(reply.next().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(stream) => stream.poll_next(cx).map_ok(Frame::data),
            Self::Sealed(stream) => stream.poll_next(cx).map_ok(Frame::data),
            Self::Paced(reply) => reply.poll(cx).map_ok(Frame::data).map_err(|_| Aborted),
            Self::Relay(relayed) => relayed.poll_next(cx).map_ok(Frame::data),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_none(),
            Self::Roomy(body) => body.left.is_empty(),
            Self::Whole(reply) => reply.is_ended(),
            Self::Stream(stream) => stream.is_ended(),
            Self::Sealed(stream) => stream.is_ended(),
            Self::Paced(reply) => reply.is_ended(),
            Self::Relay(relayed) => relayed.is_ended(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let exact = |len: usize| SizeHint::with_exact(u64::try_from(len).unwrap_or(u64::MAX));
        match self {
            Self::Own(bytes) => exact(bytes.as_ref().map_or(0, Bytes::len)),
            Self::Roomy(body) => exact(body.left.len()),
            Self::Whole(reply) => exact(reply.left()),
            Self::Stream(_) | Self::Sealed(_) | Self::Paced(_) => SizeHint::default(),
            Self::Relay(relayed) => relayed
                .left()
                .map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_held_in_room_holds_it_until_all_of_it_went() {
        let len = 2 * MAX_PIECE + 1024;
        let admission = Admission::new(1, 2 * len);
        let mut room = admission.body_room();
        room.grow_to(len).unwrap();
        let sent = Bytes::from(vec![7; len]);
        let mut body = ReplyBody::from(sent.clone()).in_room(room);
        assert_eq!(body.size_hint().exact(), u64::try_from(len).ok());
        let mut got = BytesMut::new();
        while !body.is_end_stream() {
            assert_eq!(admission.bodies_bytes(), len);
            let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!((1..=MAX_PIECE).contains(&piece.len()));
            got.extend_from_slice(&piece);
        }
        assert!(body.frame().await.is_none());
        assert_eq!(got, sent);
        drop(body);
        assert_eq!(admission.bodies_bytes(), 0);
    }
}
