//! What a paced reply of the node says: what the work for its request comes to.
//!
//! That work is a task, which goes on whether anybody reads or not: what waits in turn with others must
//! not depend on one reader. From the engine's first word on its stream is pulled.

use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio_util::task::AbortOnDropHandle;

use super::{
    State,
    answer::{Answer, Begun},
    engine_stream::{EngineStream, Part, Why},
    places::EnginePlace,
    problem::Refusal,
    receipts::{Running, Signed},
    record::Record,
    reply::Place,
    seal::{event_fields, trailer, trailers},
};
use crate::{
    attester::paced::{self, Failed, Next, Pacing, Source, Went},
    openai::Usage,
    seal::{PacedSealer, SealError},
};

/// What works on a request; dropped, it ends.
pub(super) type Work = AbortOnDropHandle<Answer>;

/// The body of a paced reply.
pub(super) type PacedReply = paced::PacedReply<Answering>;

/// Begins the reply that `work` gives.
pub(super) fn reply(
    (sealer, receipt): (PacedSealer, Option<Running>),
    work: Work,
    pacing: Pacing,
    state: Arc<State>,
    (record, place): (Record, Place),
) -> PacedReply {
    let cut = state.cut.clone();
    let answering = Answering {
        from: From::Work(work),
        receipt,
        state,
        outcome: record.outcome,
        record,
        _place: place,
    };
    PacedReply::new(sealer, answering, pacing, cut)
}

/// A request that is being answered, with what it holds.
pub(super) struct Answering {
    from: From,
    receipt: Option<Running>,
    state: Arc<State>,
    /// What the record says once the last chunk is out.
    outcome: &'static str,
    record: Record,
    _place: Place,
}

/// Where content comes from.
enum From {
    /// The engine has not begun to answer.
    Work(Work),
    Engine {
        engine: Box<EngineStream>,
        _place: EnginePlace,
    },
    /// All of it is known.
    Ended,
}

impl Source for Answering {
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        sealer: &mut PacedSealer,
    ) -> Poll<Result<Next, Failed>> {
        match &mut self.from {
            From::Ended => return Poll::Ready(Ok(Next::Ended)),
            From::Work(work) => {
                let answer = ready!(Pin::new(work).poll(cx)).map_err(|_| Failed::Work)?;
                self.begin(sealer, answer)?;
            }
            From::Engine { engine, .. } => {
                let part = ready!(engine.poll_part(cx));
                self.add(sealer, &part)?;
            }
        }
        Poll::Ready(Ok(Next::More))
    }

    fn give_up(&mut self, sealer: &mut PacedSealer) -> Result<(), SealError> {
        self.begin(sealer, Refusal::EngineFailed.into())
    }

    fn cut(&mut self, sealer: &mut PacedSealer) -> Result<(), SealError> {
        let usage = match mem::replace(&mut self.from, From::Ended) {
            From::Engine { engine, .. } => engine.usage(),
            From::Work(_) | From::Ended => None,
        };
        // Of what no engine has begun, there is none.
        let receipt = self.receipt.as_ref().filter(|_| sealer.has_begun());
        let signed = receipt.map(|it| it.sign_cut(usage.as_ref()));
        if !sealer.has_begun() {
            self.record.status = 200;
            self.begin_events(sealer)?;
        }
        let lost = end(usage.as_ref(), Some(Why::Cancelled), signed, |trailers| {
            sealer.cut(trailers)
        })?;
        if lost {
            self.outcome = Why::Cancelled.as_str();
        }
        Ok(())
    }

    fn went(&mut self, bytes: usize, what: Went, left: usize) {
        if let (Some(receipt), Went::Filling | Went::Content) = (&mut self.receipt, what) {
            receipt.left(left);
        }
        match what {
            Went::Filling => self.record.filled(bytes),
            Went::Content => self.record.went(bytes),
            Went::Last => {
                self.record.outcome = self.outcome;
                self.record.went(bytes);
            }
        }
    }

    fn abort(&mut self) {
        self.record.outcome = "internal";
        self.from = From::Ended;
    }
}

impl Answering {
    /// The reply is an event stream.
    fn begin_events(&self, sealer: &mut PacedSealer) -> Result<(), SealError> {
        let salts = self.receipt.as_ref().and_then(Running::salts);
        sealer.begin(200, &event_fields(salts.as_ref()))
    }

    /// The engine has answered, or nobody will.
    fn begin(&mut self, sealer: &mut PacedSealer, answer: Answer) -> Result<(), SealError> {
        self.from = From::Ended;
        match answer {
            Answer::Stream(begun) => {
                let Begun {
                    engine,
                    place,
                    first,
                } = *begun;
                self.record.status = 200;
                self.begin_events(sealer)?;
                self.from = From::Engine {
                    engine: Box::new(engine),
                    _place: place,
                };
                self.add(sealer, &first)
            }
            Answer::Said(said) => {
                let state = Arc::clone(&self.state);
                let said = said.said(&state.clock);
                self.outcome = said.outcome();
                self.record.says(&said);
                let mut message = said.to_sealer();
                let salts = self.receipt.as_ref().and_then(|it| it.salts_of(&said));
                message.fields.extend(salts);
                let signed = self.receipt.as_ref().map(|it| it.sign_whole(&said));
                let signed = signed.unwrap_or_default();
                let usage = said.usage().map(trailer);
                let trailers = trailers(usage.as_deref(), None, &signed);
                sealer.say(
                    message.status,
                    &message.fields(),
                    &message.content,
                    &trailers,
                )
            }
        }
    }

    fn add(&mut self, sealer: &mut PacedSealer, part: &Part) -> Result<(), SealError> {
        sealer.push(part.content())?;
        if let Some(receipt) = &mut self.receipt {
            receipt.waits(part.content());
        }
        let (usage, broken) = match part {
            Part::Content(_) => return Ok(()),
            Part::End { usage, .. } => (usage, None),
            Part::Broken { usage, why, .. } => (usage, Some(*why)),
        };
        // Its place goes to the next one, however long the rest travels.
        self.from = From::Ended;
        self.outcome = broken.map_or("complete", Why::as_str);
        if let Some(why) = broken.filter(|why| *why != Why::Cancelled) {
            self.record.engine_broke(why.as_str());
        }
        let signed = self.receipt.as_ref().map(|it| it.sign(usage.as_ref()));
        end(usage.as_ref(), broken, signed, |trailers| {
            sealer.end(trailers)
        })
    }
}

/// Ends a stream with the trailers that say how it went.
fn end<T>(
    usage: Option<&Usage>,
    broken: Option<Why>,
    signed: Option<Signed>,
    with: impl FnOnce(&[(&str, &str)]) -> T,
) -> T {
    let usage = usage.map(trailer);
    with(&trailers(
        usage.as_deref(),
        broken,
        &signed.unwrap_or_default(),
    ))
}
