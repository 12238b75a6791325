//! Which errors which kind of operation can end in.

use std::collections::BTreeMap;

use crate::openai::Code;

/// Operations that fail alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Anybody may ask, and it says what is there.
    Open,
    /// The same, and it can say that it is not ready.
    Readiness,
    /// A list of what the caller may know.
    List,
    /// One model of it.
    Model,
    /// What a node showed.
    Evidence,
    /// What a node signed of a reply.
    Receipt,
    /// A request that an engine answers.
    Inference,
    /// A node announces itself.
    Announcement,
    /// A lock is taken.
    Lock,
    /// What is sealed in the seed's format is carried.
    Confidential,
    /// What can be sealed to a node with.
    Keys,
    /// What is sealed to them is carried.
    Relay,
    /// What the gateway shows of itself.
    Own,
    /// What is sealed to the gateway itself.
    Sealed,
}

impl Kind {
    /// Those that have a body.
    const POSTS: [Self; 6] = [
        Self::Inference,
        Self::Announcement,
        Self::Lock,
        Self::Confidential,
        Self::Relay,
        Self::Sealed,
    ];

    /// Whether no key is asked for.
    pub(super) fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::Readiness) || self.is_own()
    }

    /// Whether it is asked of the gateway as it could be of a node, and refused as by a node.
    pub(super) fn is_own(self) -> bool {
        matches!(self, Self::Own | Self::Sealed)
    }

    /// Whether a node's reply is given back as it is.
    pub(super) fn is_carried(self) -> bool {
        matches!(self, Self::Confidential | Self::Relay)
    }

    /// Whether an operation of this kind can end so.
    fn can_end_in(self, code: Code) -> bool {
        let posts = Self::POSTS.contains(&self);
        match code {
            Code::NotFound | Code::UriTooLong | Code::HeadersTooLarge | Code::Internal => true,
            Code::InvalidApiKey => !self.is_open(),
            Code::RequestTimeout | Code::RequestTooLarge | Code::UnsupportedMediaType => posts,
            Code::InvalidRequest => {
                posts || matches!(self, Self::Evidence | Self::Receipt | Self::Own)
            }
            Code::InvalidJson | Code::DuplicateMember => {
                posts && !matches!(self, Self::Relay | Self::Sealed)
            }
            Code::Overloaded => {
                posts
                    || matches!(
                        self,
                        Self::Evidence | Self::Receipt | Self::Keys | Self::Own
                    )
            }
            Code::Draining => posts || matches!(self, Self::Readiness | Self::Own),
            Code::ModelNotAllowed => {
                matches!(self, Self::Inference | Self::Lock | Self::Confidential)
            }
            Code::ModelNotFound => matches!(self, Self::Inference | Self::Lock | Self::Model),
            Code::NoAttestedNode => {
                matches!(
                    self,
                    Self::Inference | Self::Lock | Self::Model | Self::Readiness | Self::Keys
                ) || self.is_carried()
            }
            Code::NoNodeAvailable => {
                matches!(self, Self::Inference | Self::Lock | Self::Evidence) || self.is_carried()
            }
            Code::NodeReplyInvalid | Code::UpstreamTruncated => {
                matches!(self, Self::Inference | Self::Evidence) || self.is_carried()
            }
            Code::EngineError => matches!(self, Self::Inference),
            Code::FirstByteTimeout | Code::IdleTimeout => {
                matches!(self, Self::Inference | Self::Evidence) || self.is_carried()
            }
            Code::RateLimited => {
                matches!(self, Self::Announcement | Self::Inference) || self.is_carried()
            }
            Code::BudgetExceeded => self == Self::Inference,
            Code::StoreUnavailable => !self.is_open(),
            Code::AnnouncementNotAllowed
            | Code::NodeIdTaken
            | Code::EvidenceRefused
            | Code::TooManyNodes => self == Self::Announcement,
            Code::NodeNotFound => matches!(self, Self::Evidence | Self::Keys | Self::Relay),
            Code::RelayNotAllowed => self.is_carried(),
            Code::DialectForbidden => matches!(self, Self::Lock | Self::Confidential),
            Code::ReceiptNotFound | Code::EvidenceNotArchived => self == Self::Receipt,
            Code::LockNotFound => self == Self::Confidential,
            Code::TooManyLocks => self == Self::Lock,
            Code::LengthRequired => false,
            // The operations of a document take their methods.
            Code::MethodNotAllowed => false,
        }
    }
}

/// The codes of a kind, by their status.
pub(super) fn by_status(kind: Kind) -> BTreeMap<u16, Vec<Code>> {
    let mut all: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in Code::ALL.into_iter().filter(|code| kind.can_end_in(*code)) {
        all.entry(code.status().as_u16()).or_default().push(code);
    }
    all
}

/// What each code means.
pub(super) fn description(codes: &[Code]) -> String {
    let lines = codes
        .iter()
        .map(|code| format!("`{}`: {}", code.code(), code.message()));
    lines.collect::<Vec<_>>().join("\n\n")
}
