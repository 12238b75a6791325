//! What the engine makes of a text: words with the blanks before them, which are its tokens.

/// Cuts a text before the blanks that begin each word; together the parts are the text.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut in_word = true;
    for character in text.chars() {
        let blank = character.is_whitespace();
        match words.last_mut() {
            Some(word) if !(blank && in_word) => word.push(character),
            _ => words.push(character.into()),
        }
        in_word = !blank;
    }
    words
}

/// The tokens made, and why they end.
pub(super) fn answer(
    words: &[String],
    limit: usize,
    stops: &[String],
) -> (Vec<String>, &'static str) {
    let mut made = words.to_vec();
    let mut finish_reason = "stop";
    if made.len() > limit {
        made.truncate(limit);
        finish_reason = "length";
    }
    let text = made.concat();
    let Some(mut left) = stops.iter().filter_map(|stop| text.find(stop)).min() else {
        return (made, finish_reason);
    };
    let kept = made.into_iter().map_while(|mut word| {
        let room = left;
        left = left.saturating_sub(word.len());
        word.truncate(room);
        (room > 0).then_some(word)
    });
    (kept.collect(), "stop")
}

pub(super) fn count(words: &[String]) -> u64 {
    u64::try_from(words.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn words_together_are_the_text(text in any::<String>()) {
            prop_assert_eq!(words(&text).concat(), text);
        }
    }
}
