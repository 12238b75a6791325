//! What a paced reply of the gateway's own says to the caller who sealed: what a plain one would get.
//!
//! The work for it is a task, which goes on whether anybody reads or not. From the head of the answer on
//! an event stream is pulled. What the answer holds is held until its last chunk is out.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    body::ReplyBody,
    error::{Error, NodeFailure},
    sealed_reply::{inside, trailer, trailers},
    stream::{EventStream, Part},
    whole::WholeReply,
};
use crate::{
    attester::paced::{self, Failed, Next, Pacing, Source, Went},
    ids::RequestId,
    seal::{PacedSealer, SealError},
    sealer::ExchangeError,
};

/// What asks nodes for a caller; dropped, it ends.
pub(super) type Work = AbortOnDropHandle<Response<ReplyBody>>;

/// The body of a paced reply.
pub(super) type PacedReply = paced::PacedReply<Answering>;

/// Begins the reply that `work` gives, until it is `cut`.
pub(super) fn reply(
    sealer: PacedSealer,
    work: Work,
    id: RequestId,
    pacing: Pacing,
    cut: CancellationToken,
) -> PacedReply {
    let answering = Answering {
        from: From::Work(work),
        id,
        filled: 0,
    };
    PacedReply::new(sealer, answering, pacing, cut)
}

/// A request that is being answered.
pub(super) struct Answering {
    from: From,
    id: RequestId,
    /// Bytes that went before there was an answer.
    filled: usize,
}

/// Where content comes from.
enum From {
    /// No node has begun to answer.
    Work(Work),
    Events(Box<EventStream>),
    /// A node's complete reply, which is known and has not gone.
    Whole(Box<WholeReply>),
    /// All of it is known, and holds nothing.
    Ended,
}

impl Source for Answering {
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        sealer: &mut PacedSealer,
    ) -> Poll<Result<Next, Failed>> {
        match &mut self.from {
            From::Whole(_) | From::Ended => return Poll::Ready(Ok(Next::Ended)),
            From::Work(work) => {
                let response = ready!(Pin::new(work).poll(cx)).map_err(|_| Failed::Work)?;
                self.begin(sealer, response)?;
            }
            From::Events(events) => match ready!(events.poll_part(cx)) {
                Some(part) => add(events, sealer, part)?,
                None => return Poll::Ready(Ok(Next::Ended)),
            },
        }
        Poll::Ready(Ok(Next::More))
    }

    fn give_up(&mut self, sealer: &mut PacedSealer) -> Result<(), SealError> {
        let error = Error::from(NodeFailure::from(ExchangeError::FirstByteTimeout));
        self.begin(sealer, error.into_response())
    }

    fn cut(&mut self, sealer: &mut PacedSealer) -> Result<(), SealError> {
        let (mut is_cut, mut usage) = (false, None);
        if let From::Events(events) = &mut self.from {
            // Only what the gateway takes to be true is given on, which it says of what has ended.
            is_cut = events.is_open();
            if is_cut {
                events.cut();
            }
            usage = events.usage();
        }
        if !sealer.has_begun() {
            self.from = From::Ended;
            let id = self.id.to_string();
            sealer.begin(
                200,
                &[("content-type", EVENT_STREAM), ("x-request-id", &id)],
            )?;
        }
        let usage = usage.as_ref().map(trailer);
        let why = NodeFailure::Cut.as_incomplete();
        let lost = sealer.cut(&trailers(usage.as_deref(), Some(why)))?;
        match &mut self.from {
            From::Events(events) if lost && !is_cut => events.cut(),
            _ => {}
        }
        Ok(())
    }

    fn went(&mut self, bytes: usize, what: Went, _left: usize) {
        let is_last = what == Went::Last;
        match &mut self.from {
            From::Work(_) | From::Ended => self.filled = self.filled.saturating_add(bytes),
            From::Events(events) => {
                events.went(bytes);
                if is_last {
                    events.finish();
                }
            }
            From::Whole(reply) => reply.went(self.filled.saturating_add(bytes)),
        }
        if is_last {
            self.from = From::Ended;
        }
    }

    fn abort(&mut self) {
        self.from = From::Ended;
    }
}

impl Answering {
    /// There is an answer, as a plain caller would get it.
    fn begin(
        &mut self,
        sealer: &mut PacedSealer,
        response: Response<ReplyBody>,
    ) -> Result<(), SealError> {
        let (head, body) = response.into_parts();
        let (status, id) = (head.status.as_u16(), self.id.to_string());
        let fields = inside(&head.headers, &id);
        self.from = match body {
            ReplyBody::Own(content) => {
                sealer.say(status, &fields, &content.unwrap_or_default(), &[])?;
                From::Ended
            }
            ReplyBody::Whole(reply) => {
                let usage = reply.usage().map(trailer);
                let trailers = trailers(usage.as_deref(), None);
                sealer.say(status, &fields, &reply.content(), &trailers)?;
                From::Whole(reply)
            }
            ReplyBody::Stream(mut events) => {
                sealer.begin(status, &fields)?;
                events.needs_no_sign_of_life();
                events.went(self.filled);
                From::Events(events)
            }
            // What is sealed already was not asked for here.
            ReplyBody::Roomy(_)
            | ReplyBody::Sealed(_)
            | ReplyBody::Paced(_)
            | ReplyBody::Relay(_) => {
                return Err(SealError::Failed);
            }
        };
        Ok(())
    }
}

const EVENT_STREAM: &str = "text/event-stream";

fn add(events: &EventStream, sealer: &mut PacedSealer, part: Part) -> Result<(), SealError> {
    let (content, incomplete) = match part {
        Part::Content(content) => return sealer.push(&content),
        Part::End(content) => (content, None),
        Part::Failed { content, why, .. } => (content, Some(why)),
    };
    sealer.push(&content)?;
    let usage = events.usage().as_ref().map(trailer);
    sealer.end(&trailers(usage.as_deref(), incomplete))
}
