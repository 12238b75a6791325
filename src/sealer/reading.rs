//! An event stream as it opens: whole events, each proved, and its end.

use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::{
    error::ExchangeError,
    exchange::{Unread, check_complete, usage},
};
use crate::{
    openai::{Usage, sse::ReplyEvents},
    seal::{ContentDigest, ContentHasher, ReplyPart, Trailers},
};

/// Most bytes that are gathered before they are given on.
const MAX_GATHERED: usize = 64 * 1024;

/// A stream that is being read. Whoever drops it closes the connection.
#[must_use]
#[derive(Debug)]
pub(crate) struct Reading {
    from: Unread,
    events: ReplyEvents,
    /// Takes in the content, where a receipt is to be held against it.
    content: Option<ContentHasher>,
}

/// How a reply ended as a message.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) trailers: Trailers,
    /// The digest of its content, where that was asked for.
    pub(crate) content: Option<ContentDigest>,
    /// The last content. If it is not complete, nothing of that may be given on.
    pub(crate) rest: Result<Bytes, ExchangeError>,
}

/// How far reading came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There is more than should be gathered at once.
    Full,
    /// Nothing more has arrived yet.
    Waiting,
    /// The message ended.
    Ended,
}

impl Reading {
    pub(crate) fn new(from: Unread) -> Self {
        Self {
            from,
            events: ReplyEvents::new(),
            content: None,
        }
    }

    /// Has the digest of its content be told at the end. Before anything is read.
    pub(crate) fn digest_content(&mut self) {
        self.content = Some(ContentHasher::of_events());
    }

    /// What the stream says that it has used so far.
    pub(crate) const fn usage(&self) -> Option<Usage> {
        self.events.usage()
    }

    /// Reads what has arrived into `out`, and notes when a part opened.
    ///
    /// # Errors
    /// If the reply is not valid so far.
    pub(crate) fn read(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Gathered,
        opened_at: &mut Instant,
    ) -> Result<Progress, ExchangeError> {
        loop {
            let Unread::Open { body, opener } = &mut self.from else {
                return Ok(Progress::Ended);
            };
            let opened = opener.chunks_opened();
            while let Some(part) = opener.next_part()? {
                match part {
                    ReplyPart::Content(content) => {
                        if let Some(hasher) = &mut self.content {
                            hasher.update(&content);
                        }
                        out.add(self.events.push(&content)?);
                    }
                    ReplyPart::Head(_) => return Err(ExchangeError::Unexpected("two heads")),
                }
            }
            if opener.chunks_opened() > opened {
                *opened_at = Instant::now();
            }
            if out.len() >= MAX_GATHERED {
                return Ok(Progress::Full);
            }
            match body.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => opener.push(data)?,
                Poll::Ready(Some(Err(error))) => return Err(ExchangeError::Broken(error)),
                Poll::Ready(None) => return Ok(Progress::Ended),
                Poll::Pending => return Ok(Progress::Waiting),
            }
        }
    }

    /// The last content, and the node's count, of a reply that ended as a message.
    ///
    /// # Errors
    /// If it is not complete; then nothing of the last content may be given on.
    pub(crate) fn complete(self) -> Result<(Bytes, Option<Usage>), ExchangeError> {
        let ending = self.finish()?;
        Ok((ending.rest?, usage(&ending.trailers)))
    }

    /// The end of a reply that ended as a message, complete or not.
    ///
    /// # Errors
    /// If its end is not proved.
    pub(crate) fn finish(mut self) -> Result<Ending, ExchangeError> {
        let last = match self.from {
            Unread::Open { opener, .. } => opener.finish()?,
            Unread::Ended(last) => last,
        };
        if let Some(hasher) = &mut self.content {
            hasher.update(&last.content);
        }
        let rest =
            check_complete(&last.trailers).and_then(|()| Ok(self.events.finish(&last.content)?));
        Ok(Ending {
            trailers: last.trailers,
            content: self.content.as_ref().map(ContentHasher::digest),
            rest,
        })
    }
}

/// Bytes on their way out; copied only if there is more than one piece.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    first: Bytes,
    more: BytesMut,
}

impl Gathered {
    pub(crate) fn add(&mut self, bytes: Bytes) {
        if self.is_empty() {
            self.first = bytes;
            return;
        }
        if self.more.is_empty() {
            self.more
                .extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.more.extend_from_slice(&bytes);
    }

    pub(crate) fn len(&self) -> usize {
        self.first.len().saturating_add(self.more.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        if self.more.is_empty() {
            self.first
        } else {
            self.more.freeze()
        }
    }
}
