//! Levels the lengths of events, with the member that OpenAI has for it.

use rand::Rng;

/// The member, up to its value and after it.
const MEMBER: &[u8] = b"\"obfuscation\":\"";
const AFTER: &[u8] = b"\"}";
/// What stands in the value: as many as a random byte can choose among evenly.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// The two LF that an event ends with.
const ENDS: usize = 2;

/// Adds an `obfuscation` member of random letters to each event, so that the event's length is a
/// multiple of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Obfuscation {
    unit: usize,
}

impl Obfuscation {
    /// Lengths become multiples of `unit`, at least 1.
    #[must_use]
    pub const fn new(unit: usize) -> Self {
        Self { unit }
    }

    /// Whole events as [`super::ReplyEvents`] gives them, levelled. The end event stays as it is, and
    /// so does an event that has such a member already, wherever in it.
    #[must_use]
    pub fn level(self, events: &[u8], rng: &mut impl Rng) -> Vec<u8> {
        let mut out = Vec::with_capacity(events.len().saturating_mul(2));
        for line in events.split_inclusive(|byte| *byte == b'\n') {
            match payload(line) {
                Some(object) => self.put(&mut out, line, object, rng),
                None => out.extend_from_slice(line),
            }
        }
        out
    }

    /// The same with letters that a seed chooses.
    #[cfg(fuzzing)]
    #[must_use]
    pub fn level_seeded(self, events: &[u8], seed: u64) -> Vec<u8> {
        use rand::SeedableRng as _;
        self.level(events, &mut rand::rngs::StdRng::seed_from_u64(seed))
    }

    /// One line, of whose bytes the first `object` are those up to the brace that ends its object.
    fn put(self, out: &mut Vec<u8>, line: &[u8], object: usize, rng: &mut impl Rng) {
        let (before, _) = line.split_at_checked(object).unwrap_or((line, &[]));
        let start = out.len();
        out.extend_from_slice(before);
        if !before.trim_ascii_end().ends_with(b"{") {
            out.push(b',');
        }
        out.extend_from_slice(MEMBER);
        let bare = out.len() - start + AFTER.len() + ENDS;
        let letters = bare.next_multiple_of(self.unit.max(1)) - bare;
        let at = out.len();
        out.resize(at + letters, 0);
        if let Some(random) = out.get_mut(at..) {
            rng.fill_bytes(random);
            for byte in random {
                let letter = LETTERS.get(usize::from(*byte % 64));
                *byte = letter.copied().unwrap_or(b'_');
            }
        }
        out.extend_from_slice(AFTER);
        out.push(b'\n');
    }
}

/// Where the object of an event's line ends, if the line has one that can take the member.
fn payload(line: &[u8]) -> Option<usize> {
    let data = line.strip_prefix(b"data: {")?;
    let has_member = memchr::memmem::find(data, b"obfuscation").is_some();
    let end = memchr::memrchr(b'}', line).filter(|_| !has_member);
    end.filter(|end| {
        line.get(*end..)
            .is_some_and(|rest| rest.trim_ascii() == b"}")
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng as _, rngs::StdRng};
    use serde_json::Value;

    use super::*;

    fn level(unit: usize, events: &str) -> String {
        let mut rng = StdRng::seed_from_u64(1);
        let levelled = Obfuscation::new(unit).level(events.as_bytes(), &mut rng);
        String::from_utf8(levelled).unwrap()
    }

    #[test]
    fn events_have_lengths_of_the_unit_and_say_what_they_said() {
        for unit in [1, 32, 100, 256] {
            for len in 0..600 {
                let event = format!("data: {{\"text\":\"{}\"}}\n\n", "x".repeat(len));
                let levelled = level(unit, &event);
                assert_eq!(levelled.len() % unit, 0, "{len}");
                let mut said: Value = serde_json::from_str(&levelled[6..]).unwrap();
                let letters = said["obfuscation"].take();
                assert!(letters.as_str().unwrap().len() < unit, "{len}");
                assert!(levelled.starts_with(event.trim_end().trim_end_matches('}')));
                assert!(levelled.ends_with("\"}\n\n"));
            }
        }
    }

    #[test]
    fn what_has_no_place_for_it_stays() {
        let cases = [
            "data: [DONE]\n\n",
            "\n",
            "data: {\"obfuscation\":\"x\"}\n\n",
            "data: {\"a\":{\"obfuscation\":\"x\"}}\n\n",
            "",
        ];
        for events in cases {
            assert_eq!(level(64, events), events);
        }
        let many = "data: {}\n\n\ndata: { }  \n\ndata: {\"a\":\"}\"}\n\ndata: [DONE]\n\n";
        let levelled = level(64, many);
        let objects: Vec<Value> = levelled
            .lines()
            .filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
            .collect();
        assert_eq!(objects.len(), 3, "{levelled}");
        assert!(levelled.ends_with("\n\ndata: [DONE]\n\n"));
        assert!(levelled.contains("data: {\"obfuscation\":\""), "{levelled}");
    }

    proptest! {
        #[test]
        fn any_object_stays_one_with_one_member_more(
            members in proptest::collection::btree_map("[a-z\"\\\\{}]{0,6}", ".*", 0..5),
            unit in 1_usize..300,
        ) {
            let event = format!("data: {}\n\n", serde_json::to_string(&members).unwrap());
            let levelled = level(unit, &event);
            let mut said: serde_json::Map<String, Value> =
                serde_json::from_str(&levelled[6..]).unwrap();
            let has_word = event.contains("obfuscation");
            prop_assert_eq!(said.remove("obfuscation").is_some(), !has_word);
            prop_assert_eq!(Value::Object(said), serde_json::to_value(&members).unwrap());
            prop_assert!(has_word || levelled.len().is_multiple_of(unit));
        }
    }
}
