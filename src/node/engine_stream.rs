//! An engine's event stream, levelled to the contract piece by piece.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

use crate::openai::{
    Usage,
    level::{ReplyContext, StreamEnd, StreamLeveller},
    sse::EngineEvents,
};

/// Content that is already there is given on in pieces of about this many bytes.
const MAX_PIECE: usize = 64 * 1024;
/// The engine's word that its stream is whole.
const DONE: &[u8] = b"[DONE]";

/// Why a stream broke off (docs/wire.md, "Response").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The engine's connection ended early, or it sent something that is no event stream.
    EngineFailed,
    /// The engine said nothing for too long.
    Idle,
    /// The node stops.
    Cancelled,
}

impl Why {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::EngineFailed => "engine-failed",
            Self::Idle => "idle",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A piece of a levelled stream; whole lines.
#[derive(Debug)]
pub(super) enum Part {
    Content(Vec<u8>),
    /// The rest, with `data: [DONE]`.
    End {
        content: Vec<u8>,
        usage: Option<Usage>,
    },
    /// The stream ends here, but is not whole.
    Broken {
        content: Vec<u8>,
        usage: Option<Usage>,
        why: Why,
    },
}

impl Part {
    /// What it holds of the stream.
    pub(super) fn content(&self) -> &[u8] {
        match self {
            Self::Content(content) | Self::End { content, .. } | Self::Broken { content, .. } => {
                content
            }
        }
    }
}

/// Reads an engine's stream on demand.
pub(super) struct EngineStream {
    body: Incoming,
    events: EngineEvents,
    /// Gone at the end.
    leveller: Option<StreamLeveller>,
    idle: Duration,
    /// When the engine must have said something.
    deadline: Pin<Box<Sleep>>,
}

impl EngineStream {
    /// The stream in `body`, whose first bytes may take `first` and whose next ones `idle`.
    pub(super) fn new(
        body: Incoming,
        context: ReplyContext,
        first: Duration,
        idle: Duration,
    ) -> Self {
        let (events, leveller) = (EngineEvents::new(), Some(StreamLeveller::new(context)));
        Self {
            body,
            events,
            leveller,
            idle,
            deadline: Box::pin(sleep(first)),
        }
    }

    /// The next piece: everything that is already there, up to a bound, and never nothing.
    ///
    /// Not to be called again after an end.
    pub(super) fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Part> {
        let mut content = Vec::new();
        let mut heard = false;
        loop {
            match self.level_events(&mut content) {
                Ok(false) => {}
                Ok(true) => return Poll::Ready(self.end(content, cx)),
                Err(why) => return Poll::Ready(self.broken(content, why)),
            }
            if content.len() >= MAX_PIECE {
                break;
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    heard = true;
                    let pushed = frame
                        .data_ref()
                        .map_or(Ok(()), |data| self.events.push(data));
                    if pushed.is_err() {
                        return Poll::Ready(self.broken(content, Why::EngineFailed));
                    }
                }
                Poll::Ready(None) => return Poll::Ready(self.ended(content)),
                Poll::Ready(Some(Err(_))) => {
                    return Poll::Ready(self.broken(content, Why::EngineFailed));
                }
                Poll::Pending => break,
            }
        }
        if heard {
            self.deadline.as_mut().reset(Instant::now() + self.idle);
        }
        if !content.is_empty() {
            return Poll::Ready(Part::Content(content));
        }
        self.deadline
            .as_mut()
            .poll(cx)
            .map(|()| self.broken(content, Why::Idle))
    }

    /// The end of a stream that nobody waits for any longer.
    pub(super) fn cancelled(&self) -> Part {
        self.broken(Vec::new(), Why::Cancelled)
    }

    /// Levels the events that have arrived; says whether the last of them was the end.
    fn level_events(&mut self, content: &mut Vec<u8>) -> Result<bool, Why> {
        let leveller = self.leveller.as_mut().ok_or(Why::EngineFailed)?;
        while content.len() < MAX_PIECE {
            let Some(event) = self.events.next_event() else {
                break;
            };
            let levelled = leveller.event(&event).map_err(|_| Why::EngineFailed)?;
            if event.trim_ascii() == DONE {
                return Ok(true);
            }
            content.extend_from_slice(&levelled);
            if let Some(comment) = leveller.usage_comment() {
                content.extend_from_slice(&comment);
            }
        }
        Ok(false)
    }

    /// The engine's body ended as HTTP has it, maybe after an event without a blank line.
    fn ended(&mut self, mut content: Vec<u8>) -> Part {
        let whole = self.events.finish().is_ok() && self.level_events(&mut content).is_ok();
        if whole {
            self.whole(content)
        } else {
            self.broken(content, Why::EngineFailed)
        }
    }

    fn end(&mut self, content: Vec<u8>, cx: &mut Context<'_>) -> Part {
        // The end of the body is mostly there already, and a body read to its end gives its
        // connection back to the pool.
        let _ = Pin::new(&mut self.body).poll_frame(cx);
        self.whole(content)
    }

    fn whole(&mut self, mut content: Vec<u8>) -> Part {
        let usage = self.usage();
        match self.leveller.take().map(|leveller| leveller.finish(true)) {
            Some(Ok(StreamEnd { events, usage })) => {
                content.extend_from_slice(&events);
                Part::End { content, usage }
            }
            Some(Err(_)) | None => Part::Broken {
                content,
                usage,
                why: Why::EngineFailed,
            },
        }
    }

    fn broken(&self, content: Vec<u8>, why: Why) -> Part {
        Part::Broken {
            content,
            usage: self.usage(),
            why,
        }
    }

    /// What it has used so far.
    pub(super) fn usage(&self) -> Option<Usage> {
        self.leveller.as_ref().and_then(StreamLeveller::usage)
    }
}
