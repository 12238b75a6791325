//! What can be asked of a model, each at its path.

/// A kind of request. Everything that differs between kinds is looked up by it; the way through
/// gateway and node is the same for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `POST /v1/completions`: text that goes on from a prompt.
    Completions,
    /// `POST /v1/chat/completions`: the next message of a conversation.
    ChatCompletions,
    /// `POST /v1/embeddings`: vectors of texts.
    Embeddings,
    /// `POST /v1/images/generations`: images of a description.
    Images,
}

impl Endpoint {
    /// Every kind.
    pub const ALL: [Self; 4] = [
        Self::Completions,
        Self::ChatCompletions,
        Self::Embeddings,
        Self::Images,
    ];

    /// The kind that is asked for at a path, compared byte for byte.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|endpoint| endpoint.path() == path)
    }

    /// Its path, the same at the gateway, under the seal and at the engine.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Completions => "/v1/completions",
            Self::ChatCompletions => "/v1/chat/completions",
            Self::Embeddings => "/v1/embeddings",
            Self::Images => "/v1/images/generations",
        }
    }

    /// Its path for requests that are sealed in the seed's format.
    #[must_use]
    pub const fn confidential_path(self) -> &'static str {
        match self {
            Self::Completions => "/v1/confidential/completions",
            Self::ChatCompletions => "/v1/confidential/chat/completions",
            Self::Embeddings => "/v1/confidential/embeddings",
            Self::Images => "/v1/confidential/images/generations",
        }
    }

    /// Whether its reply can be asked for as an event stream.
    #[must_use]
    pub const fn streams(self) -> bool {
        matches!(self, Self::Completions | Self::ChatCompletions)
    }
}
