//! Each request of a connection, from its head to the last of its reply's body.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
};

use http::{HeaderValue, Request, Response, Version, header::CONNECTION};
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, service::Service};
use pin_project_lite::pin_project;
use tokio_util::sync::CancellationToken;

use super::{
    Peer,
    activity::{Activity, InFlight, Untaken},
};

/// Counts a connection's requests, tells the service who asks, and who asks when to go.
pub(super) struct Tracked<S> {
    pub(super) service: S,
    pub(super) peer: Peer,
    pub(super) activity: Arc<Activity>,
    pub(super) shutdown: CancellationToken,
    pub(super) leave: CancellationToken,
}

impl<S, B> Service<Request<Incoming>> for Tracked<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
{
    type Response = Response<TrackedBody<B>>;
    type Error = Infallible;
    type Future = TrackedReply<S::Future>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer);
        let shares = request.version() == Version::HTTP_2;
        if self.shutdown.is_cancelled() {
            self.leave.cancel();
        }
        TrackedReply {
            shutdown: (!shares).then(|| self.shutdown.clone()),
            in_flight: Some(InFlight::begin(&self.activity)),
            untaken: shares.then(|| self.activity.watch()),
            reply: self.service.call(request),
        }
    }
}

pin_project! {
    pub(super) struct TrackedReply<F> {
        #[pin]
        reply: F,
        in_flight: Option<InFlight>,
        untaken: Option<Arc<Untaken>>,
        // Of HTTP/1 alone: on HTTP/2 the connection itself says it.
        shutdown: Option<CancellationToken>,
    }
}

impl<F, B> Future for TrackedReply<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = Result<Response<TrackedBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let reply = ready!(this.reply.poll(cx));
        let (in_flight, untaken) = (this.in_flight.take(), this.untaken.take());
        let tracked = |body| TrackedBody {
            body,
            in_flight,
            untaken,
        };
        let closes = this.shutdown.as_ref();
        let closes = closes.is_some_and(CancellationToken::is_cancelled);
        Poll::Ready(reply.map(|mut reply| {
            if closes {
                let close = HeaderValue::from_static("close");
                reply.headers_mut().insert(CONNECTION, close);
            }
            reply.map(tracked)
        }))
    }
}

pin_project! {
    /// A reply's body that counts as in flight until it is dropped.
    pub(super) struct TrackedBody<B> {
        #[pin]
        body: B,
        in_flight: Option<InFlight>,
        untaken: Option<Arc<Untaken>>,
    }
}

impl<B: Body> Body for TrackedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let polled = this.body.poll_frame(cx);
        if let (Some(in_flight), Some(untaken)) = (this.in_flight, this.untaken) {
            let gave = matches!(polled, Poll::Ready(Some(Ok(_))));
            // It is asked for more only once the peer has taken what was given.
            let now = in_flight.0.took();
            let since = if gave { now } else { 0 };
            untaken.store(since, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
