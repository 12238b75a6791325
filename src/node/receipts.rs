//! Receipts of what an engine made (docs/wire.md, "Receipts").
//!
//! A draft is there from a request's acceptance on, with the salts, which the head of the reply says
//! already: whoever reads it can take its content in as it passes. It is signed when the reply's end is
//! known, and goes out with it under the seal. What cannot be signed goes without, which whoever asked
//! can see.

use std::sync::Arc;

use attestation::StatementDigest;
use bytes::{Buf as _, BytesMut};

use super::{State, request::Form, said::Said, seal::trailer};
use crate::{
    clock::unix_seconds,
    ids::RequestId,
    openai::{Endpoint, Usage},
    seal::{
        Commitment, Commitments, Committer, OpenedRequest, RandomError, Receipt, ReceiptError,
        ReceiptScope, Salts,
    },
};

/// The trailers that a receipt travels in; the salts stand in the head as well.
const RECEIPT: &str = "sealgate-receipt";
const SALTS: &str = "sealgate-receipt-salts";

/// What is known of a receipt before the reply.
pub(super) struct Draft {
    state: Arc<State>,
    id: RequestId,
    statement: StatementDigest,
    key_id: u8,
    path: &'static str,
    model: String,
    /// Where the receipt is to prove contents.
    contents: Option<Box<Contents>>,
}

/// What proves the caller's body, and will prove the reply.
struct Contents {
    salts: Salts,
    request: Commitment,
}

impl Contents {
    fn of(request: &[u8]) -> Result<Self, RandomError> {
        let salts = Salts::generate()?;
        let request = salts.request.commit(request);
        Ok(Self { salts, request })
    }
}

/// A receipt's trailers.
#[derive(Default)]
pub(super) struct Signed {
    fields: Vec<(&'static str, String)>,
}

impl Signed {
    pub(super) fn fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.fields
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
    }
}

impl Draft {
    /// For an accepted request, if it asks for a receipt.
    pub(super) fn of(
        state: &Arc<State>,
        request: &OpenedRequest,
        form: &Form,
        endpoint: Endpoint,
    ) -> Option<Self> {
        let contents = match form.receipt {
            ReceiptScope::None => return None,
            ReceiptScope::Usage => None,
            ReceiptScope::Content => Some(
                Contents::of(&request.content)
                    .inspect_err(|error| tracing::error!(request_id = %form.id, %error, "receipt"))
                    .ok()?,
            ),
        };
        Some(Self {
            state: Arc::clone(state),
            id: form.id,
            statement: form.statement(),
            key_id: request.key_id,
            path: endpoint.path(),
            model: String::new(),
            contents: contents.map(Box::new),
        })
    }

    /// Names the model that is asked, as the node calls it.
    pub(super) fn with_model(self, model: &str) -> Self {
        Self {
            model: model.to_owned(),
            ..self
        }
    }

    /// The field in the head of a reply that an engine makes, where the receipt is to prove contents.
    pub(super) fn salts(&self) -> Option<(&'static str, String)> {
        let contents = self.contents.as_ref()?;
        Some((SALTS, contents.salts.to_string()))
    }

    /// The same of what is known whole, if an engine said it.
    pub(super) fn salts_of(&self, said: &Said<'_>) -> Option<(&'static str, String)> {
        self.salts().filter(|_| said.by_engine().is_some())
    }

    /// The receipt of what is known whole, if an engine said it.
    pub(super) fn sign_whole(&self, said: &Said<'_>) -> Signed {
        let Some(content) = said.by_engine() else {
            return Signed::default();
        };
        let contents = self.contents.as_ref();
        let response = contents.map(|it| it.salts.response.commit(content));
        self.sign(said.status(), said.usage(), response)
    }

    fn sign(&self, status: u16, usage: Option<&Usage>, response: Option<Commitment>) -> Signed {
        self.try_sign(status, usage, response)
            .inspect_err(|error| tracing::error!(request_id = %self.id, %error, "receipt"))
            .unwrap_or_default()
    }

    fn try_sign(
        &self,
        status: u16,
        usage: Option<&Usage>,
        response: Option<Commitment>,
    ) -> Result<Signed, ReceiptError> {
        let content = match (&self.contents, response) {
            (Some(contents), Some(response)) => Some(Commitments {
                request: contents.request,
                response,
            }),
            _ => None,
        };
        let receipt = Receipt {
            request_id: *self.id.as_bytes(),
            statement: self.statement,
            key_id: self.key_id,
            path: self.path.to_owned(),
            model: self.model.clone(),
            status,
            usage: usage.map(trailer),
            iat: unix_seconds(self.state.clock.now()),
            content,
        };
        let jws = self.state.identity.sign_receipt(&receipt)?;
        let fields = [(RECEIPT, jws)].into_iter().chain(self.salts());
        Ok(Signed {
            fields: fields.collect(),
        })
    }
}

/// The receipt of an event stream that goes on.
pub(super) struct Running {
    draft: Draft,
    /// What went out, where the receipt is to prove contents.
    sent: Option<Committer>,
    /// What is to go out, in turn.
    waiting: BytesMut,
}

impl From<Draft> for Running {
    fn from(draft: Draft) -> Self {
        Self {
            sent: draft
                .contents
                .as_ref()
                .map(|it| Committer::of_events(&it.salts.response)),
            draft,
            waiting: BytesMut::new(),
        }
    }
}

impl Running {
    /// The field in the head of the reply.
    pub(super) fn salts(&self) -> Option<(&'static str, String)> {
        self.draft.salts()
    }

    /// The same of what turns out to be no stream.
    pub(super) fn salts_of(&self, said: &Said<'_>) -> Option<(&'static str, String)> {
        self.draft.salts_of(said)
    }

    /// Content goes out.
    pub(super) fn sent(&mut self, content: &[u8]) {
        if let Some(sent) = &mut self.sent {
            sent.update(content);
        }
    }

    /// Content is to go out, after what waits already.
    pub(super) fn waits(&mut self, content: &[u8]) {
        if self.sent.is_some() {
            self.waiting.extend_from_slice(content);
        }
    }

    /// All of what waited went out but for so many bytes.
    pub(super) fn left(&mut self, waiting: usize) {
        let gone = self.waiting.len().saturating_sub(waiting);
        if let (Some(sent), Some(content)) = (&mut self.sent, self.waiting.get(..gone)) {
            sent.update(content);
        }
        self.waiting.advance(gone);
    }

    /// The receipt of a stream that ends when all that waits went out.
    pub(super) fn sign(&self, usage: Option<&Usage>) -> Signed {
        let all = self.sent.clone().map(|mut all| {
            all.update(&self.waiting);
            all.commitment()
        });
        self.draft.sign(200, usage, all)
    }

    /// The receipt of a stream that is cut, so that nothing goes out of what waits.
    pub(super) fn sign_cut(&self, usage: Option<&Usage>) -> Signed {
        let sent = self.sent.as_ref().map(Committer::commitment);
        self.draft.sign(200, usage, sent)
    }

    /// The receipt of what turns out to be no stream.
    pub(super) fn sign_whole(&self, said: &Said<'_>) -> Signed {
        self.draft.sign_whole(said)
    }
}
