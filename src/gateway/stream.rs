//! An event stream on its way from a node to the caller.
//!
//! No task and no channel stand between: what the caller does not read is not read from the node,
//! and when the caller leaves, the connection to the node closes at once. The caller gets whole
//! events only, each proved; the end event only after the authenticated end. Whatever goes wrong
//! on the way becomes one error event and an aborted connection.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{
    admit::Permit,
    ask::Held,
    body::Aborted,
    error::{Error, NodeFailure},
    health::Shown,
    node::Chosen,
    receipts::Awaited,
    record::Record,
    trust::Trust,
};
use crate::{
    openai::{Code, Usage, sse::Obfuscation},
    sealer::{ExchangeError, Gathered, Progress, Reading, Unread, usage},
};

/// Time for the error event to leave before the connection is aborted.
const LINGER: Duration = Duration::from_millis(20);
/// A comment: clients ignore it, and proxies see that the connection is alive.
const SIGN_OF_LIFE: &[u8] = b": waiting\n\n";

/// Events that wait for others leave when they are so many bytes together.
const MAX_COALESCED: usize = 16 * 1024;

/// How long a stream waits, for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// For the next part of the node's reply.
    pub(super) idle: Duration,
    /// Between two signs of life.
    pub(super) sign_of_life: Duration,
    /// That events wait for others, to leave with them in one piece.
    pub(super) coalesce: Duration,
}

/// A reply that is an event stream.
#[derive(Debug)]
pub(super) struct EventStream {
    source: Source,
    timing: Timing,
    /// How the lengths of events are levelled, if they are.
    obfuscation: Option<Obfuscation>,
    /// Events that wait for others, and until when.
    gathered: Gathered,
    leaves: Option<Pin<Box<Sleep>>>,
    /// When the last part of the reply opened, and when the caller last got something.
    opened_at: Instant,
    sent_at: Instant,
    /// Fires no later than something is due; what it is, is found out then.
    timer: Pin<Box<Sleep>>,
    trust: Trust,
    trust_ended: Pin<Box<WaitForCancellationFutureOwned>>,
    record: Record,
    /// What is to become of its receipt.
    receipt: Option<Box<Awaited>>,
    /// Given back as soon as the reply has ended.
    held: Option<Held>,
    /// The place of a reply that has ended, until all of it went to the caller.
    place: Option<Permit>,
}

#[expect(
    clippy::large_enum_variant,
    reason = "a stream is boxed and spends its life in the large one"
)]
#[derive(Debug)]
enum Source {
    /// The node's reply.
    Open(Reading),
    /// It failed, which was said.
    Failed,
    /// Nothing more comes.
    Ended,
}

/// What comes next of a reply.
#[derive(Debug)]
pub(super) enum Part {
    /// Whole events, or a sign of life.
    Content(Bytes),
    /// The last events: the reply is complete.
    End(Bytes),
    /// What was proved before the reply failed.
    Failed {
        content: Bytes,
        /// What a plain caller is told.
        code: Code,
        /// What one who sealed is told (docs/wire.md, "Response").
        why: &'static str,
    },
}

/// What is due while nothing arrives.
enum Due {
    Nothing,
    SignOfLife,
    Failure(NodeFailure),
}

impl EventStream {
    pub(super) fn new(
        from: Unread,
        (timing, obfuscation): (Timing, Option<Obfuscation>),
        trust: Trust,
        record: Record,
        held: Held,
    ) -> Self {
        let now = Instant::now();
        Self {
            source: Source::Open(Reading::new(from)),
            timing,
            obfuscation,
            gathered: Gathered::default(),
            leaves: None,
            opened_at: now,
            sent_at: now,
            timer: Box::pin(sleep_until(now + timing.idle.min(timing.sign_of_life))),
            trust_ended: Box::pin(trust.ended()),
            trust,
            record,
            receipt: None,
            held: Some(held),
            place: None,
        }
    }

    /// Nobody between here and the caller has to see that the connection is alive.
    pub(super) fn needs_no_sign_of_life(&mut self) {
        // The reply has failed by then.
        self.timing.sign_of_life = self.timing.idle;
    }

    /// The same, whose receipt is awaited.
    pub(super) fn with_receipt(mut self, mut receipt: Option<Box<Awaited>>) -> Self {
        if let (Some(receipt), Source::Open(reading)) = (&mut receipt, &mut self.source) {
            reading.take_content_in(receipt.passing());
        }
        self.receipt = receipt;
        self
    }

    pub(super) fn is_ended(&self) -> bool {
        matches!(self.source, Source::Ended)
    }

    /// Whether the node's reply is still coming.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.source, Source::Open(_))
    }

    /// The node's own count of the tokens, as far as it is known; once the reply has ended, what of it can
    /// be true.
    pub(super) fn usage(&self) -> Option<Usage> {
        match &self.source {
            Source::Open(reading) => reading.usage(),
            Source::Failed | Source::Ended => self.record.usage().copied(),
        }
    }

    /// All that there is of it went to the caller.
    pub(super) fn finish(&mut self) {
        if let Source::Ended = self.source {
            self.record.complete();
        }
        self.place = None;
    }

    /// Ends it where it is: the gateway stops, and what has not gone of it is lost.
    pub(super) fn cut(&mut self) {
        let failure = NodeFailure::Cut;
        if let Source::Open(_) = self.source {
            self.fail(Bytes::new(), failure);
        } else {
            self.record.failed(&failure.into());
            // Its last chunk says that it was cut: it does not end as complete.
            self.source = Source::Failed;
        }
    }

    /// Counts bytes that went to the caller.
    pub(super) fn went(&mut self, bytes: usize) {
        self.record.bytes_out = self.record.bytes_out.saturating_add(bytes);
    }

    /// The next bytes for a plain caller; an error means that the connection must be aborted.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Aborted>>> {
        if let Source::Failed = self.source {
            ready!(self.timer.as_mut().poll(cx));
            self.source = Source::Ended;
            return Poll::Ready(Some(Err(Aborted)));
        }
        let Some(part) = ready!(self.poll_part(cx)) else {
            return Poll::Ready(None);
        };
        let bytes = match part {
            Part::Content(bytes) => bytes,
            Part::End(bytes) => {
                self.finish();
                bytes
            }
            // What was proved, then one error event; the abort is left to the next call.
            Part::Failed { content, code, .. } => {
                self.finish();
                self.timer.as_mut().reset(Instant::now() + LINGER);
                let mut out = Gathered::default();
                out.add(content);
                out.add(code.object().sse_event());
                out.into_bytes()
            }
        };
        self.went(bytes.len());
        Poll::Ready(Some(Ok(bytes)))
    }

    /// What comes next; nothing after the end, or the failure.
    pub(super) fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Part>> {
        let Source::Open(reading) = &mut self.source else {
            return Poll::Ready(None);
        };
        let mut out = mem::take(&mut self.gathered);
        // Asked each time, and first: a node that is always ahead of the caller never waits, and
        // what has come since is not given on.
        let ended = if self.trust_ended.as_mut().poll(cx).is_ready() {
            Some(Err(self.trust.failure()))
        } else {
            let mut fresh = Gathered::default();
            let read = reading.read(cx, &mut fresh, &mut self.opened_at);
            self.add(&mut out, fresh.into_bytes());
            match read {
                Ok(Progress::Ended) => Some(self.end(&mut out)),
                Err(error) => Some(Err(error.into())),
                Ok(Progress::Waiting) if out.is_empty() => match self.poll_due(cx) {
                    Due::Nothing => return Poll::Pending,
                    Due::SignOfLife => {
                        out.add(Bytes::from_static(SIGN_OF_LIFE));
                        None
                    }
                    Due::Failure(failure) => Some(Err(failure)),
                },
                Ok(Progress::Waiting) if self.waits(cx, out.len()) => {
                    self.gathered = out;
                    return Poll::Pending;
                }
                Ok(Progress::Full | Progress::Waiting) => None,
            }
        };
        self.leaves = None;
        self.sent_at = Instant::now();
        Poll::Ready(Some(match ended {
            None => Part::Content(out.into_bytes()),
            Some(Ok(())) => Part::End(out.into_bytes()),
            Some(Err(failure)) => self.fail(out.into_bytes(), failure),
        }))
    }

    /// Adds events, levelled if they are to be.
    fn add(&mut self, out: &mut Gathered, events: Bytes) {
        self.record.came = self.record.came.saturating_add(events.len());
        self.record.seen = self.record.seen.saturating_add(count(&events));
        match self.obfuscation {
            Some(obfuscation) if !events.is_empty() => {
                out.add(obfuscation.level(&events, &mut rand::rng()).into());
            }
            _ => out.add(events),
        }
    }

    /// Whether so many bytes of events wait for more.
    fn waits(&mut self, cx: &mut Context<'_>, len: usize) -> bool {
        let coalesce = self.timing.coalesce;
        if coalesce.is_zero() || len >= MAX_COALESCED {
            return false;
        }
        let leaves = self.leaves.get_or_insert_with(|| Box::pin(sleep(coalesce)));
        leaves.as_mut().poll(cx).is_pending()
    }

    /// The reply ended as a message; now it is shown whether it is complete.
    fn end(&mut self, out: &mut Gathered) -> Result<(), NodeFailure> {
        let Source::Open(reading) = mem::replace(&mut self.source, Source::Ended) else {
            return Ok(());
        };
        let told = reading.usage();
        let ending = match reading.finish() {
            Ok(ending) => ending,
            Err(error) => {
                self.record.claimed(told);
                return Err(error.into());
            }
        };
        let counted = usage(&ending.trailers).or(told);
        let receipt = self.receipt.take();
        let content = ending.content;
        let checked = receipt.map_or(Ok(()), |it| it.ended(&ending.trailers, content));
        let rest = match (ending.rest, checked) {
            (Ok(rest), Ok(())) => rest,
            (rest, checked) => {
                self.record.claimed(counted);
                rest?;
                checked?;
                return Ok(());
            }
        };
        self.add(out, rest);
        self.record.claimed(counted);
        if let Some(chosen) = self.let_go() {
            chosen.node.note(Shown::Success);
        }
        Ok(())
    }

    /// What the node said last of the tokens, where nothing said how many there were in all.
    fn tell_usage(&mut self) {
        if let Source::Open(reading) = &self.source {
            self.record.claimed(reading.usage());
        }
    }

    /// Gives back all but the place here, and says which node it was.
    fn let_go(&mut self) -> Option<Chosen> {
        let Held { permit, node, .. } = self.held.take()?;
        self.place = Some(permit);
        Some(node)
    }

    fn fail(&mut self, content: Bytes, failure: NodeFailure) -> Part {
        self.tell_usage();
        self.source = Source::Failed;
        if let (Some(chosen), Some(shown)) = (self.let_go(), failure.shows()) {
            chosen.node.note(shown);
        }
        let why = failure.as_incomplete();
        let error = Error::from(failure);
        self.record.failed(&error);
        Part::Failed {
            content,
            code: error.code(),
            why,
        }
    }

    fn poll_due(&mut self, cx: &mut Context<'_>) -> Due {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let silent_at = self.opened_at + self.timing.idle;
            if now >= silent_at {
                return Due::Failure(ExchangeError::IdleTimeout.into());
            }
            let is_sign_due = now >= self.sent_at + self.timing.sign_of_life;
            let from = if is_sign_due { now } else { self.sent_at };
            self.timer
                .as_mut()
                .reset(silent_at.min(from + self.timing.sign_of_life));
            if is_sign_due {
                return Due::SignOfLife;
            }
        }
        Due::Nothing
    }
}

/// Events, each of which is taken for a token where nobody counts them.
fn count(events: &[u8]) -> u64 {
    let ends = events.windows(2).filter(|pair| *pair == b"\n\n");
    u64::try_from(ends.count()).unwrap_or(u64::MAX)
}

impl Drop for EventStream {
    fn drop(&mut self) {
        // Whoever leaves has used what the node counted until then.
        self.tell_usage();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{future::poll_fn, sync::Arc};

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        clock::Clock,
        gateway::{
            admit::Admission,
            authenticate::Callers,
            metrics::Metrics,
            node::{Chosen, Node, Terms},
        },
        ids::RequestId,
        seal::{FinalPart, Trailers},
        sealer::Roots,
    };

    /// What a request holds that `admission` let in.
    pub(in crate::gateway) fn held(admission: &Admission) -> Held {
        let url = "http://127.0.0.1:1".parse().unwrap();
        let node = Node::new(url, None, Roots::Public, Terms::default());
        let Callers::Anybody(caller) = Callers::anybody(1) else {
            unreachable!("nobody has a key");
        };
        Held {
            permit: admission.admit(&caller).unwrap(),
            node: Chosen::new(&Arc::new(node)).unwrap(),
            _retries: Vec::new(),
        }
    }

    pub(in crate::gateway) fn record() -> Record {
        let metrics = Arc::new(Metrics::new(Clock::system()));
        Record::new(RequestId::generate(), "/v1/completions", &metrics)
    }

    /// A stream whose node sent all of it, up to its proved end.
    pub(in crate::gateway) fn complete_stream(trust: &Trust, held: Held) -> EventStream {
        let last = FinalPart {
            head: None,
            content: Bytes::from_static(b"data: {\"choices\":[]}\n\ndata: [DONE]\n\n"),
            trailers: Trailers::default(),
        };
        let timing = Timing {
            idle: Duration::from_secs(1),
            sign_of_life: Duration::from_secs(1),
            coalesce: Duration::ZERO,
        };
        let unread = Unread::Ended(last);
        EventStream::new(unread, (timing, None), trust.clone(), record(), held)
    }

    async fn next(stream: &mut EventStream) -> String {
        let bytes = poll_fn(|cx| stream.poll_next(cx)).await.unwrap().unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_had_come_of_a_node_that_is_no_longer_verified_is_not_given_on() {
        let trust = Trust::begin(&CancellationToken::new());
        let text = next(&mut complete_stream(&trust, held(&Admission::new(1, 0)))).await;
        assert!(text.contains("[DONE]"), "{text}");

        let mut stream = complete_stream(&trust, held(&Admission::new(1, 0)));
        trust.end();
        let text = next(&mut stream).await;
        assert!(text.contains("upstream_truncated"), "{text}");
        assert!(
            !text.contains("[DONE]") && !text.contains("choices"),
            "{text}"
        );
        let end = poll_fn(|cx| stream.poll_next(cx)).await;
        assert!(end.unwrap().is_err(), "the connection is aborted");
    }
}
