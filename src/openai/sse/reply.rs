//! The strict reader of a node's event stream (WIRE section 4).

use std::fmt;

use bytes::Bytes;
use memchr::memchr;
use serde::de::IgnoredAny;

use super::{MAX_EVENT, SseError};
use crate::openai::Usage;

const DATA: &[u8] = b"data: ";

/// Longest line that can still be valid, in bytes, without its LF.
const MAX_LINE: usize = MAX_EVENT + DATA.len();

/// Most memory that is kept for the next event, in bytes: a stream may be idle for long.
const KEPT: usize = 16 * 1024;

/// Reads the content of a sealed event stream, takes the comments out and checks every line.
///
/// After an error the reply is invalid: drop it.
#[must_use]
#[derive(Default)]
pub struct ReplyEvents {
    /// A line whose LF has not come.
    line: Vec<u8>,
    /// Lines after the last empty one. Not given on: the event may yet prove invalid or cut.
    held: Vec<u8>,
    /// `held` has a data line.
    has_data: bool,
    end: End,
    usage: Option<Usage>,
}

/// How far the end of the stream has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    /// No end event, and none allowed: this is not the final content.
    #[default]
    Forbidden,
    /// No end event yet.
    Awaited,
    /// The end event's line was read.
    Line,
    /// And its empty line.
    Complete,
}

impl ReplyEvents {
    /// A reader at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes content that is not the final, and gives what of it can be given on: whole events,
    /// without comments, up to the last empty line.
    ///
    /// # Errors
    /// [`SseError`] if the content cannot be that of a valid reply.
    pub fn push(&mut self, content: &[u8]) -> Result<Bytes, SseError> {
        // Made when there is an event to give: much of what comes is comments alone.
        let mut out = Vec::new();
        self.read(content, &mut out)?;
        Ok(out.into())
    }

    /// Takes the final content, and gives the rest of the stream, its end event included.
    ///
    /// # Errors
    /// [`SseError`] if the stream is not valid to its end. Then nothing of the final content may
    /// be given on.
    pub fn finish(mut self, content: &[u8]) -> Result<Bytes, SseError> {
        let mut out = Vec::with_capacity(self.held.len() + self.line.len() + content.len());
        let rest = if self.line.is_empty() {
            content
        } else {
            // A line that began earlier does not stand in the final content.
            let split = memchr(b'\n', content).map_or(content.len(), |at| at + 1);
            let (first, rest) = content.split_at_checked(split).unwrap_or((content, &[]));
            self.read(first, &mut out)?;
            rest
        };
        self.end = End::Awaited;
        self.read(rest, &mut out)?;
        let whole = self.line.is_empty() && self.held.is_empty();
        if whole && self.end == End::Complete {
            Ok(out.into())
        } else {
            Err(SseError::Truncated)
        }
    }

    /// What the stream says that it has used so far: its last `:usage` comment.
    #[must_use]
    pub const fn usage(&self) -> Option<Usage> {
        self.usage
    }

    fn read(&mut self, content: &[u8], out: &mut Vec<u8>) -> Result<(), SseError> {
        let mut rest = content;
        while let Some(at) = memchr(b'\n', rest) {
            let (piece, after) = rest.split_at_checked(at).unwrap_or((rest, &[]));
            rest = after.get(1..).unwrap_or_default();
            if self.line.is_empty() {
                self.take_line(piece, out)?;
            } else {
                self.keep(piece)?;
                let line = std::mem::take(&mut self.line);
                self.take_line(&line, out)?;
            }
        }
        self.keep(rest)
    }

    fn keep(&mut self, piece: &[u8]) -> Result<(), SseError> {
        if self.line.len() + piece.len() > MAX_LINE {
            return Err(SseError::TooLong);
        }
        if memchr(b'\r', piece).is_some() {
            return Err(SseError::Line);
        }
        self.line.extend_from_slice(piece);
        Ok(())
    }

    fn take_line(&mut self, line: &[u8], out: &mut Vec<u8>) -> Result<(), SseError> {
        if memchr(b'\r', line).is_some() {
            return Err(SseError::Line);
        }
        match line {
            [] => {
                self.held.push(b'\n');
                out.extend_from_slice(&self.held);
                self.held.clear();
                self.held.shrink_to(KEPT);
                self.has_data = false;
                if self.end == End::Line {
                    self.end = End::Complete;
                }
                Ok(())
            }
            [b':', ..] => {
                let told = line
                    .strip_prefix(b":usage ")
                    .and_then(|u| Usage::from_json(u).ok());
                self.usage = told.or(self.usage);
                Ok(())
            }
            _ => {
                self.check_data(line)?;
                self.has_data = true;
                self.held.extend_from_slice(line);
                self.held.push(b'\n');
                Ok(())
            }
        }
    }

    fn check_data(&mut self, line: &[u8]) -> Result<(), SseError> {
        if matches!(self.end, End::Line | End::Complete) {
            return Err(SseError::AfterEnd);
        }
        if is_end(line) && self.end == End::Forbidden {
            return Err(SseError::EarlyEnd);
        }
        let data = line.strip_prefix(DATA).ok_or(SseError::Line)?;
        if self.has_data {
            return Err(SseError::Joined);
        }
        if data == b"[DONE]" {
            self.end = End::Line;
            return Ok(());
        }
        if data.len() > MAX_EVENT {
            return Err(SseError::TooLong);
        }
        if is_object(data) {
            Ok(())
        } else {
            Err(SseError::Data)
        }
    }
}

impl fmt::Debug for ReplyEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyEvents")
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

/// Whether some client would take this line for the end.
fn is_end(line: &[u8]) -> bool {
    line.strip_prefix(b"data:")
        .map(|value| value.strip_prefix(b" ").unwrap_or(value))
        .is_some_and(|value| value.starts_with(b"[DONE]"))
}

fn is_object(data: &[u8]) -> bool {
    data.starts_with(b"{")
        && str::from_utf8(data).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "data: {\"text\":\"a \u{1F600}\"}\n\n:    \n\n: padding\ndata: {\"a\":[1]}\n:x\n\
                        :usage {\"prompt_tokens\":3,\"completion_tokens\":64,\"total_tokens\":67}\n\n";
    const GOOD_END: &str = "data: {\"choices\":[]}\n\ndata: [DONE]\n:  \n\n:  \n";
    const GIVEN: &str = "data: {\"text\":\"a \u{1F600}\"}\n\n\ndata: {\"a\":[1]}\n\n\
                         data: {\"choices\":[]}\n\ndata: [DONE]\n\n";

    /// Feeds `content` in pieces, then the final content; all that was given on.
    fn run<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
        end: &[u8],
    ) -> Result<(Vec<u8>, Option<Usage>), SseError> {
        let mut events = ReplyEvents::new();
        let mut given = Vec::new();
        for piece in pieces {
            given.extend_from_slice(&events.push(piece)?);
            let blank = given.iter().all(|byte| *byte == b'\n');
            assert!(blank || given.ends_with(b"\n\n"), "an event was torn");
        }
        let usage = events.usage();
        given.extend_from_slice(&events.finish(end)?);
        Ok((given, usage))
    }

    #[test]
    fn a_good_stream_comes_out_without_comments_at_every_split() {
        let content = GOOD.as_bytes();
        let expected = Ok((GIVEN.as_bytes().to_vec(), Some(Usage::new(3, 64))));
        for at in 0..=content.len() {
            let (first, second) = content.split_at(at);
            assert_eq!(
                run([first, second], GOOD_END.as_bytes()),
                expected,
                "split at {at}"
            );
        }
        assert_eq!(
            run(content.chunks(1), GOOD_END.as_bytes()),
            expected,
            "one byte at a time"
        );
        let all = [GOOD, GOOD_END].concat();
        let (given, _) = run([], all.as_bytes()).unwrap();
        assert_eq!(given, GIVEN.as_bytes(), "all of it final");
    }

    #[test]
    fn a_long_event_leaves_no_memory_behind() {
        let mut events = ReplyEvents::new();
        let event = format!("data: {{\"a\":\"{}\"}}\n\n", "x".repeat(1 << 20));
        for part in event.as_bytes().chunks(1 << 14) {
            let _ = events.push(part).unwrap();
        }
        assert!(events.held.capacity() <= KEPT && events.line.capacity() <= KEPT);
    }

    #[test]
    fn an_event_is_given_on_with_its_empty_line_and_not_before() {
        let mut events = ReplyEvents::new();
        assert_eq!(events.push(b"data: {}").unwrap(), "");
        assert_eq!(events.push(b"\n").unwrap(), "");
        assert_eq!(events.push(b":usage {}\n: ping\n").unwrap(), "");
        assert_eq!(
            events.usage(),
            None,
            "a usage comment that does not parse says nothing"
        );
        assert_eq!(events.push(b"\ndata: {\"a\"").unwrap(), "data: {}\n\n");
        assert_eq!(events.push(b":1}\n").unwrap(), "");
        assert_eq!(
            events.finish(b"\ndata: [DONE]\n\n").unwrap(),
            "data: {\"a\":1}\n\ndata: [DONE]\n\n"
        );
    }

    #[test]
    fn what_the_format_does_not_have_is_refused() {
        use SseError::{Data, EarlyEnd, Joined, Line};
        let cases: [(&[u8], SseError); 27] = [
            (b"data: {}\r\n\r\n", Line),
            (b"data: {}\r\r", Line),
            (b": \r\n", Line),
            (b"\xEF\xBB\xBFdata: {}\n\n", Line),
            (b"\xEF\xBB\xBF\n", Line),
            (b"data:{}\n\n", Line),
            (b"event: error\n", Line),
            (b"id: 1\n", Line),
            (b"id\n", Line),
            (b"retry: 5\n", Line),
            (b" data: {}\n", Line),
            (b"Data: {}\n", Line),
            (b"data\n", Line),
            (b"{}\n", Line),
            (b"data: \n", Data),
            (b"data: null\n\n", Data),
            (b"data: []\n\n", Data),
            (b"data:  {}\n\n", Data),
            (b"data: {} {}\n\n", Data),
            (b"data: {\"a\":}\n\n", Data),
            (b"data: {\"a\":\"\xFF\"}\n\n", Data),
            (b"data: {\"a\":\"\0\"}\n\n", Data),
            (b"data: {}\ndata: {}\n\n", Joined),
            (b"data: [DONE]\n\n", EarlyEnd),
            (b"data:[DONE]\n", EarlyEnd),
            (b"data: [DONE] \n", EarlyEnd),
            (b"data: {}\ndata: [DONE]\n\n", EarlyEnd),
        ];
        for (content, expected) in cases {
            let shown = content.escape_ascii();
            assert_eq!(
                run([content], b"data: [DONE]\n\n"),
                Err(expected),
                "{shown}"
            );
            assert_eq!(
                run(content.chunks(1), b"data: [DONE]\n\n"),
                Err(expected),
                "{shown}"
            );
        }
    }

    #[test]
    fn a_stream_without_its_whole_end_is_truncated() {
        use SseError::{AfterEnd, Data, EarlyEnd, Joined, Line, Truncated};
        let cases: [(&[u8], &[u8], SseError); 15] = [
            (b"data: {}\n\n", b"", Truncated),
            (b"data: {}\n\n", b": \n", Truncated),
            (b"", b"data: [DONE]", Truncated),
            (b"", b"data: [DONE]\n", Truncated),
            (b"", b"data: [DONE]\n\n:", Truncated),
            (b"", b"data: [DONE]\n\ndata: {}\n\n", AfterEnd),
            (b"", b"data: [DONE]\n\ndata: [DONE]\n\n", AfterEnd),
            (b"", b"data: [DONE]\ndata: {}\n\n", AfterEnd),
            (b"", b"data: {}\ndata: [DONE]\n\n", Joined),
            (b"", b"data:[DONE]\n\n", Line),
            (b"", b"data: [DONE] \n\n", Data),
            (b"data: [DONE]", b"\n\n", EarlyEnd),
            (b"data: [DO", b"NE]\n\n", EarlyEnd),
            (b"d", b"ata: [DONE]\n\n", EarlyEnd),
            (b"data: {}", b"\ndata: [DONE]\n\n", Joined),
        ];
        for (content, end, expected) in cases {
            let shown = (
                content.escape_ascii().to_string(),
                end.escape_ascii().to_string(),
            );
            assert_eq!(run([content], end), Err(expected), "{shown:?}");
        }
    }

    #[test]
    fn an_event_may_be_as_long_as_the_limit_and_no_longer() {
        let event = |len: usize| format!("data: {{\"a\":\"{}\"}}\n\n", "x".repeat(len - 8));
        let longest = event(MAX_EVENT);
        assert!(run([longest.as_bytes()], b"data: [DONE]\n\n").is_ok());
        let longer = event(MAX_EVENT + 1);
        assert_eq!(run([longer.as_bytes()], b""), Err(SseError::TooLong));
        let mut events = ReplyEvents::new();
        assert_eq!(events.push(&vec![b':'; MAX_LINE]).unwrap(), "");
        assert_eq!(
            events.push(b":"),
            Err(SseError::TooLong),
            "no line is kept without end"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic_and_alike_at_any_split(
            content in proptest::collection::vec(
                prop_oneof![
                    Just("data: "), Just("{}"), Just("\n"), Just("\n\n"), Just(":"),
                    Just("[DONE]"), Just(" "), Just("\r"), Just("x"), Just("data: {}\n\n"),
                ],
                0..20,
            ),
            size in 1_usize..7,
        ) {
            let content = content.concat();
            let whole = run([content.as_bytes()], b"data: [DONE]\n\n");
            prop_assert_eq!(run(content.as_bytes().chunks(size), b"data: [DONE]\n\n"), whole);
        }
    }
}
