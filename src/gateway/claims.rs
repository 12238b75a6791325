//! What a node says that a request used, held to what can be true.
//!
//! A node is believed to run the code of its evidence, and yet what it claims is money. A token is a byte of
//! the prompt or of the reply at least, so a claim of more tokens than there are bytes is cut, and so is one
//! of more than the request allowed. What a node does not say stays unsaid.

use crate::openai::{Asked, Endpoint, Usage};

/// Tokens that templates put around a prompt, and that stand nowhere in its body.
const PROMPT_SLACK: u64 = 2048;
/// Tokens of a text that show in none of its bytes: its end, the marks of a role.
const CHOICE_SLACK: u64 = 16;

/// Most tokens that may be claimed of a request; nothing where nobody can say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    prompt: Option<u64>,
    /// What the request allows.
    completion: Option<u64>,
    /// Tokens besides those that the reply's bytes can hold; nothing where bytes say nothing.
    beside_bytes: Option<u64>,
}

/// What was too much, where it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cut {
    /// The claim and its bound.
    pub(super) prompt: Option<(u64, u64)>,
    pub(super) completion: Option<(u64, u64)>,
}

impl Bounds {
    /// Those of a request whose body has so many bytes. Of pictures and sounds, bytes say nothing: a
    /// link stands for a whole picture.
    pub(super) fn of(asked: &Asked, body: usize) -> Self {
        if asked.endpoint == Endpoint::Images {
            return Self::default();
        }
        let body = u64::try_from(body).unwrap_or(u64::MAX);
        let slack = PROMPT_SLACK.saturating_mul(asked.inputs.max(1));
        Self {
            prompt: asked.is_text().then(|| body.saturating_add(slack)),
            completion: asked.most_completion_tokens(),
            beside_bytes: (asked.candidates == asked.n)
                .then(|| CHOICE_SLACK.saturating_mul(asked.made())),
        }
    }

    /// So many tokens of completion that were seen, as far as the request allows them.
    pub(super) fn seen(&self, tokens: u64) -> u64 {
        self.completion.map_or(tokens, |most| tokens.min(most))
    }

    /// A claim as far as it can be true, where `came` bytes of the reply came.
    pub(super) fn hold(&self, claimed: Usage, came: usize) -> (Usage, Cut) {
        let came = u64::try_from(came).unwrap_or(u64::MAX);
        let by_bytes = self.beside_bytes.map(|it| it.saturating_add(came));
        let most = [self.completion, by_bytes].into_iter().flatten().min();
        let above = |claim: u64, most: Option<u64>| {
            most.filter(|most| claim > *most).map(|most| (claim, most))
        };
        let cut = Cut {
            prompt: above(claimed.prompt_tokens, self.prompt),
            completion: above(claimed.completion_tokens, most),
        };
        let mut held = claimed;
        if let Some((_, most)) = cut.prompt {
            held.prompt_tokens = most;
        }
        if let Some((_, most)) = cut.completion {
            held.completion_tokens = most;
        }
        // A part is no more than the whole.
        let (prompt, completion) = (held.prompt_tokens, held.completion_tokens);
        held.total_tokens = prompt.saturating_add(completion);
        for part in [
            &mut held.prompt_tokens_details.cached_tokens,
            &mut held.prompt_tokens_details.audio_tokens,
        ] {
            *part = (*part).min(prompt);
        }
        for part in [
            &mut held.completion_tokens_details.reasoning_tokens,
            &mut held.completion_tokens_details.audio_tokens,
            &mut held.completion_tokens_details.accepted_prediction_tokens,
        ] {
            *part = (*part).min(completion);
        }
        (held, cut)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::openai::Request;

    fn bounds(endpoint: Endpoint, body: &str) -> Bounds {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let request = Request::parse(endpoint, body).unwrap();
        Bounds::of(request.asked(), request.body().len())
    }

    #[test]
    fn a_claim_is_no_more_than_was_allowed_and_no_more_than_came() {
        use Endpoint::{ChatCompletions as Chat, Completions as Texts, Embeddings, Images};
        let texts = r#"{"model":"m","prompt":"hi"}"#;
        let two = r#"{"model":"m","prompt":["a","b"],"max_tokens":100,"n":2}"#;
        let best = r#"{"model":"m","prompt":"a","max_tokens":100,"best_of":5}"#;
        let chat = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
        let most = chat.replace("\"messages\"", "\"max_completion_tokens\":7,\"messages\"");
        let picture = chat.replace(
            "\"hi\"",
            r#"[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"u"}}]"#,
        );
        let embed = r#"{"model":"m","input":["a","b"]}"#;
        let image = r#"{"model":"m","prompt":"a cat"}"#;
        // Claimed prompt and completion, bytes that came, and what is left of the claim.
        let cases = [
            (Texts, texts, (2, 16), 1_000, (2, 16)),
            (Texts, texts, (2, 17), 1_000, (2, 16)),
            (Texts, texts, (9_999, 1), 1_000, (27 + PROMPT_SLACK, 1)),
            (Texts, two, (2, 401), 1_000, (2, 400)),
            (Texts, two, (2, 400), 10, (2, 10 + 4 * CHOICE_SLACK)),
            // Those that are not given show in no byte.
            (Texts, best, (2, 500), 10, (2, 500)),
            (Texts, best, (2, 501), 10, (2, 500)),
            (Chat, chat, (2, 900), 1_000, (2, 900)),
            (Chat, chat, (2, u64::MAX), 1_000, (2, 1_000 + CHOICE_SLACK)),
            (Chat, &most, (2, 8), 1_000, (2, 7)),
            (Chat, &picture, (900_000, 8), 1_000, (900_000, 8)),
            (Embeddings, embed, (2, 1), 1_000, (2, 0)),
            (Images, image, (900_000, 900_000), 0, (900_000, 900_000)),
        ];
        for (endpoint, body, (prompt, completion), came, expected) in cases {
            let claimed = Usage::new(prompt, completion);
            let (held, cut) = bounds(endpoint, body).hold(claimed, came);
            let told = (held.prompt_tokens, held.completion_tokens);
            assert_eq!(told, expected, "{body} {claimed:?} {came}");
            assert_eq!(held.total_tokens, told.0 + told.1);
            let were_cut = (cut.prompt.is_some(), cut.completion.is_some());
            assert_eq!(were_cut, (told.0 < prompt, told.1 < completion), "{body}");
        }
    }

    #[test]
    fn a_part_is_no_more_than_the_whole() {
        let mut claimed = Usage::new(10, 20);
        claimed.prompt_tokens_details.cached_tokens = 11;
        claimed.completion_tokens_details.reasoning_tokens = u64::MAX;
        let (held, _) = Bounds::default().hold(claimed, 0);
        assert_eq!(held.prompt_tokens_details.cached_tokens, 10);
        assert_eq!(held.completion_tokens_details.reasoning_tokens, 20);
    }
}
