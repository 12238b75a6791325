//! What a node replied, opened and proved.

use std::{fmt, future::poll_fn, task::Poll, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use memchr::memchr;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use crate::{
    openai::Usage,
    sealer::{ExchangeError, Gathered, Progress, Reading, Unread, WholeContent},
};

/// A reply in the form that the request asked for, or an error of the engine's, which is whole.
#[must_use]
#[derive(Debug)]
pub enum Reply {
    /// All of it.
    Whole(Whole),
    /// An event stream that has begun.
    Stream(Events),
}

/// A reply whose end was proved.
#[must_use]
pub struct Whole {
    status: StatusCode,
    retry_after_s: Option<u32>,
    body: Bytes,
    usage: Option<Usage>,
}

/// A text that is not the JSON that was asked for. It says no more, since errors hold nothing of a
/// reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the JSON that was asked for")]
pub struct NotJson;

impl Whole {
    pub(super) fn new(content: WholeContent) -> Self {
        let body = match <[Bytes; 1]>::try_from(content.parts) {
            Ok([only]) => only,
            Err(parts) => parts.concat().into(),
        };
        Self {
            status: content.status,
            retry_after_s: content.retry_after_s,
            body,
            usage: content.usage,
        }
    }

    /// The status under the seal: 200, or an error of the engine's between 400 and 499.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// When to try again, in seconds, if it is said.
    #[must_use]
    pub fn retry_after_s(&self) -> Option<u32> {
        self.retry_after_s
    }

    /// The body, byte for byte as the node sealed it: JSON.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The body, read.
    ///
    /// # Errors
    /// [`NotJson`] if it is no `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, NotJson> {
        serde_json::from_slice(&self.body).map_err(|_| NotJson)
    }

    /// The node's own count, if it gave one.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }
}

impl fmt::Debug for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Whole")
            .field("status", &self.status)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// The events of a stream, one by one, each proved before it is given.
///
/// Dropping it closes the connection, and the node stops the engine. That a stream is complete is
/// shown by [`Events::finish`] and nothing else.
#[must_use = "a stream is complete only if it is read to its end and finished"]
pub struct Events {
    state: State,
    /// Whole events that were not given yet.
    ready: Bytes,
    idle: Duration,
}

enum State {
    Open(Box<Reading>),
    /// Its end was proved.
    Ended(Option<Usage>),
    /// It failed: with what is still to be told, if it was not told yet.
    Failed(Option<ExchangeError>),
}

/// One event: a JSON object in the contract's form of a chunk.
#[derive(Clone, PartialEq, Eq)]
pub struct Event(Bytes);

impl Event {
    /// The object's text.
    #[must_use]
    pub fn data(&self) -> &Bytes {
        &self.0
    }

    /// The object, read.
    ///
    /// # Errors
    /// [`NotJson`] if it is no `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, NotJson> {
        serde_json::from_slice(&self.0).map_err(|_| NotJson)
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Event({} bytes)", self.0.len())
    }
}

/// The proof that a stream came to its end, with nothing missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complete {
    usage: Option<Usage>,
}

impl Complete {
    /// The node's own count, if it gave one.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }
}

/// A stream that was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream was not read to its end")]
pub struct Unfinished;

impl Events {
    pub(super) fn new(unread: Unread, idle: Duration) -> Self {
        Self {
            state: State::Open(Box::new(Reading::new(unread))),
            ready: Bytes::new(),
            idle,
        }
    }

    /// The next event, or `None` after the proved end. It can be cancelled without loss.
    ///
    /// # Errors
    /// If the stream broke off, was cut or altered, or fell silent. What was given before is a true
    /// beginning.
    pub async fn next(&mut self) -> Result<Option<Event>, ExchangeError> {
        loop {
            if let Some(event) = take_event(&mut self.ready) {
                return Ok(Some(event));
            }
            match &mut self.state {
                State::Ended(_) => return Ok(None),
                State::Failed(error) => {
                    let told = ExchangeError::Unexpected("more of a stream that failed");
                    return Err(error.take().unwrap_or(told));
                }
                State::Open(_) => self.read().await,
            }
        }
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// [`Unfinished`] unless [`Events::next`] gave `None`: then events may be missing.
    pub fn finish(self) -> Result<Complete, Unfinished> {
        match self.state {
            State::Ended(usage) if self.ready.is_empty() => Ok(Complete { usage }),
            _ => Err(Unfinished),
        }
    }

    /// Reads on until there are events, the end, or a failure.
    async fn read(&mut self) {
        let State::Open(reading) = &mut self.state else {
            return;
        };
        // Silence counts while it is waited for: whoever asks seldom loses nothing.
        let asked_at = Instant::now();
        let (mut out, mut opened_at) = (Gathered::default(), asked_at);
        let reading = poll_fn(|cx| match reading.read(cx, &mut out, &mut opened_at) {
            Ok(Progress::Waiting) if out.is_empty() => Poll::Pending,
            read => Poll::Ready(read),
        });
        let read = timeout(self.idle, reading).await;
        match read {
            Ok(Ok(Progress::Ended)) => self.complete(&mut out),
            Ok(Ok(Progress::Full | Progress::Waiting)) => {}
            Ok(Err(error)) => self.state = State::Failed(Some(error)),
            // Parts without content are signs of life.
            Err(_) if opened_at > asked_at => {}
            Err(_) => self.state = State::Failed(Some(ExchangeError::IdleTimeout)),
        }
        self.ready = out.into_bytes();
    }

    /// The reply ended as a message; now it is shown whether it is complete.
    fn complete(&mut self, out: &mut Gathered) {
        let State::Open(reading) = std::mem::replace(&mut self.state, State::Failed(None)) else {
            return;
        };
        let said = reading.usage();
        self.state = match reading.complete() {
            Ok((rest, counted)) => {
                out.add(rest);
                State::Ended(counted.or(said))
            }
            Err(error) => State::Failed(Some(error)),
        };
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Open(_) => "open",
            State::Ended(_) => "ended",
            State::Failed(_) => "failed",
        };
        write!(f, "Events({state})")
    }
}

/// Takes the first event out of lines that were checked before; the end event is none.
fn take_event(ready: &mut Bytes) -> Option<Event> {
    while !ready.is_empty() {
        let end = memchr(b'\n', ready).map_or(ready.len(), |at| at.saturating_add(1));
        let line = ready.split_to(end);
        let data = line.strip_prefix(b"data: ").map(<[u8]>::trim_ascii_end);
        if let Some(data) = data.filter(|data| data.starts_with(b"{")) {
            return Some(Event(line.slice_ref(data)));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::{FinalPart, Trailers};

    fn stream(content: &'static [u8], incomplete: Option<&str>) -> Events {
        let last = FinalPart {
            head: None,
            content: Bytes::from_static(content),
            trailers: Trailers {
                incomplete: incomplete.map(str::to_owned),
                ..Trailers::default()
            },
        };
        Events::new(Unread::Ended(last), Duration::from_secs(1))
    }

    const WHOLE: &[u8] = b":usage {}\ndata: {\"a\":1}\n\n\ndata: {\"b\":2}\n\ndata: [DONE]\n\n";

    #[tokio::test]
    async fn events_come_one_by_one_and_the_end_is_proved() {
        let mut events = stream(WHOLE, None);
        for expected in [&b"{\"a\":1}"[..], b"{\"b\":2}"] {
            let event = events.next().await.unwrap().unwrap();
            assert_eq!(event.data(), expected);
            assert_eq!(format!("{event:?}"), "Event(7 bytes)");
        }
        assert_eq!(events.next().await.unwrap(), None);
        assert_eq!(events.next().await.unwrap(), None);
        assert_eq!(events.finish(), Ok(Complete { usage: None }));
    }

    #[tokio::test]
    async fn a_stream_that_is_left_early_is_not_complete() {
        let unread = stream(WHOLE, None);
        assert_eq!(unread.finish(), Err(Unfinished));
        let mut events = stream(WHOLE, None);
        assert!(events.next().await.unwrap().is_some());
        assert_eq!(events.finish(), Err(Unfinished));
    }

    #[tokio::test]
    async fn what_is_not_complete_is_an_error_and_stays_one() {
        let cases = [
            ("no end event", stream(b"data: {\"a\":1}\n\n", None)),
            ("no empty line", stream(b"data: [DONE]\n", None)),
            ("the engine died", stream(WHOLE, Some("engine-failed"))),
            ("no event", stream(b"data: 1\n\ndata: [DONE]\n\n", None)),
        ];
        for (name, mut events) in cases {
            assert!(events.next().await.is_err(), "{name}");
            assert!(events.next().await.is_err(), "{name}: asked again");
            assert_eq!(events.finish(), Err(Unfinished), "{name}");
        }
    }

    #[test]
    fn a_whole_reply_reads_as_json_and_shows_nothing() {
        let parts = vec![
            Bytes::from_static(b"{\"text\":"),
            Bytes::from_static(b"\"secret\"}"),
        ];
        let whole = Whole::new(WholeContent {
            status: StatusCode::OK,
            retry_after_s: None,
            parts,
            usage: None,
            trailers: Trailers::default(),
            receipt_salts: None,
        });
        let read: serde_json::Value = whole.json().unwrap();
        assert_eq!(read["text"], "secret");
        assert_eq!(whole.json::<Vec<u8>>(), Err(NotJson));
        assert!(!format!("{whole:?}").contains("secret"));
    }
}
