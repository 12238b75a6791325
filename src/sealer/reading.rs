//! An event stream as it opens: whole events, each proved, and its end.

use std::{
    fmt,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::{
    error::ExchangeError,
    exchange::{Unread, check_complete, usage},
};
use crate::{
    openai::{Usage, sse::ReplyEvents},
    seal::{Commitment, Committer, EventLines, ReplyPart, Salt, Trailers},
};

/// Most bytes that are gathered before they are given on.
const MAX_GATHERED: usize = 64 * 1024;

/// A stream that is being read. Whoever drops it closes the connection.
#[must_use]
#[derive(Debug)]
pub(crate) struct Reading {
    from: Unread,
    events: ReplyEvents,
    content: Passing,
}

/// What takes in the content as it passes, where a receipt is to be held against it.
#[derive(Debug, Default)]
pub(crate) enum Passing {
    #[default]
    Nothing,
    /// Its salt is known already.
    Commits(Committer),
    /// Its salt comes with the end.
    Keeps(Box<KeptContent>),
}

impl Passing {
    fn take(&mut self, content: &[u8]) {
        match self {
            Self::Nothing => {}
            Self::Commits(committer) => committer.update(content),
            Self::Keeps(kept) => kept.take(content),
        }
    }

    /// What stands for the content under `salt`, which must be the one that it was taken in with, if it
    /// was with one; nothing where it was not taken in, or was too long.
    pub(crate) fn commitment(&self, salt: &Salt) -> Option<Commitment> {
        match self {
            Self::Nothing => None,
            Self::Commits(committer) => Some(committer.commitment()),
            Self::Keeps(kept) => kept.content.as_ref().map(|content| salt.commit(content)),
        }
    }
}

/// Room for what is kept, as there is some for all.
pub(crate) trait Grows: fmt::Debug + Send + Sync {
    /// Takes room for so many bytes in all; false if there is none.
    fn grows_to(&mut self, bytes: usize) -> bool;
}

/// A stream's content, without its comments, as far as there is room for it.
pub(crate) struct KeptContent {
    /// Nothing once it was too much.
    content: Option<Vec<u8>>,
    lines: EventLines,
    room: Box<dyn Grows>,
}

impl KeptContent {
    pub(crate) fn new(room: impl Grows + 'static) -> Self {
        Self {
            content: Some(Vec::new()),
            lines: EventLines::default(),
            room: Box::new(room),
        }
    }

    fn take(&mut self, piece: &[u8]) {
        let Some(mut content) = self.content.take() else {
            return;
        };
        let most = content.len().saturating_add(piece.len());
        if most > content.capacity() {
            // Doubled, so that it is not copied for each piece; room is for all that is held.
            let doubled = most.max(content.capacity().saturating_mul(2));
            let mut sizes = [doubled, most].into_iter();
            let Some(size) = sizes.find(|size| self.room.grows_to(*size)) else {
                return;
            };
            content.reserve_exact(size.saturating_sub(content.len()));
        }
        self.lines
            .take(piece, |line| content.extend_from_slice(line));
        self.content = Some(content);
    }
}

impl fmt::Debug for KeptContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeptContent(..)")
    }
}

/// How a reply ended as a message.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) trailers: Trailers,
    /// What took in its content.
    pub(crate) content: Passing,
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
            content: Passing::Nothing,
        }
    }

    /// Has its content be taken in as it passes. Before anything is read.
    pub(crate) fn take_content_in(&mut self, passing: Passing) {
        self.content = passing;
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
                        self.content.take(&content);
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
        self.content.take(&last.content);
        let rest =
            check_complete(&last.trailers).and_then(|()| Ok(self.events.finish(&last.content)?));
        Ok(Ending {
            trailers: last.trailers,
            content: self.content,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::Salts;

    /// Room for so many bytes.
    #[derive(Debug)]
    struct Room(usize);

    impl Grows for Room {
        fn grows_to(&mut self, bytes: usize) -> bool {
            bytes <= self.0
        }
    }

    #[test]
    fn a_stream_is_kept_without_its_comments_as_far_as_there_is_room() {
        let salt = Salts::generate().unwrap().response;
        let content = b"data: {}\n:  comment\n\ndata: [DONE]\n\n";
        let expected = salt.commit(b"data: {}\n\ndata: [DONE]\n\n");
        for (room, piece, is_kept) in [
            (usize::MAX, 1, true),
            (25, 1, true),
            (24, 1, true),
            (23, 1, false),
            (usize::MAX, 100, true),
            (content.len() - 1, 100, false),
        ] {
            let mut passing = Passing::Keeps(Box::new(KeptContent::new(Room(room))));
            content.chunks(piece).for_each(|piece| passing.take(piece));
            let kept = passing.commitment(&salt);
            assert_eq!(kept, is_kept.then_some(expected), "{room} {piece}");
        }
        assert_eq!(Passing::Nothing.commitment(&salt), None);
    }
}
