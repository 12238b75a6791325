//! The lenient reader of an engine's event stream.

use std::{collections::VecDeque, fmt};

use bytes::Bytes;
use memchr::memchr2;

use super::{MAX_EVENT, SseError};

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// Reads an event stream in any form that the WHATWG format allows, and gives each event's data.
///
/// Lines end in LF, CR or CRLF; a BOM may begin the stream; `data:` stands with or without a blank
/// and on several lines; comments and other fields are dropped. Beyond the format, the last event
/// counts although no empty line ends it.
#[must_use]
pub struct EngineEvents {
    /// A line whose end has not come.
    line: Vec<u8>,
    /// The data of the event being read, if it has any.
    data: Option<Vec<u8>>,
    ready: VecDeque<Bytes>,
    /// Nothing but the first line may begin with a BOM.
    first_line: bool,
    /// The last byte was a CR: an LF now belongs to it.
    after_cr: bool,
}

impl Default for EngineEvents {
    fn default() -> Self {
        Self {
            line: Vec::new(),
            data: None,
            ready: VecDeque::new(),
            first_line: true,
            after_cr: false,
        }
    }
}

impl EngineEvents {
    /// A reader at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes as they come.
    ///
    /// # Errors
    /// [`SseError::TooLong`] for an event over [`MAX_EVENT`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), SseError> {
        let mut rest = bytes;
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(at) = memchr2(b'\n', b'\r', rest) {
            let (piece, end) = rest.split_at_checked(at).unwrap_or((rest, &[]));
            rest = match end {
                [b'\r', b'\n', after @ ..] => after,
                [b'\r'] => {
                    self.after_cr = true;
                    &[]
                }
                [_, after @ ..] => after,
                [] => &[],
            };
            if self.line.is_empty() {
                self.take_line(piece)?;
            } else {
                self.keep(piece)?;
                let line = std::mem::take(&mut self.line);
                self.take_line(&line)?;
            }
        }
        self.keep(rest)
    }

    /// The next whole event's data.
    pub fn next_event(&mut self) -> Option<Bytes> {
        self.ready.pop_front()
    }

    /// Ends the stream: what stands without its line end or empty line is an event, too. Ask
    /// [`Self::next_event`] once more.
    ///
    /// # Errors
    /// [`SseError::TooLong`] for an event over [`MAX_EVENT`].
    pub fn finish(&mut self) -> Result<(), SseError> {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.take_line(&line)?;
        }
        self.dispatch();
        Ok(())
    }

    fn keep(&mut self, piece: &[u8]) -> Result<(), SseError> {
        self.room_for(piece)?;
        self.line.extend_from_slice(piece);
        Ok(())
    }

    fn room_for(&self, piece: &[u8]) -> Result<(), SseError> {
        let held = self.line.len() + self.data.as_ref().map_or(0, Vec::len);
        if held + piece.len() > MAX_EVENT {
            Err(SseError::TooLong)
        } else {
            Ok(())
        }
    }

    fn take_line(&mut self, line: &[u8]) -> Result<(), SseError> {
        let first = std::mem::take(&mut self.first_line);
        let line = if first {
            line.strip_prefix(BOM).unwrap_or(line)
        } else {
            line
        };
        if line.is_empty() {
            self.dispatch();
            return Ok(());
        }
        let Some(value) = data_of(line) else {
            return Ok(());
        };
        self.room_for(value)?;
        match &mut self.data {
            Some(data) => {
                data.push(b'\n');
                data.extend_from_slice(value);
            }
            None => self.data = Some(value.to_vec()),
        }
        Ok(())
    }

    fn dispatch(&mut self) {
        if let Some(data) = self.data.take().filter(|data| !data.is_empty()) {
            self.ready.push_back(data.into());
        }
    }
}

impl fmt::Debug for EngineEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineEvents")
            .field("ready", &self.ready.len())
            .finish_non_exhaustive()
    }
}

/// The value of a `data` field, or `None` for comments and other fields.
fn data_of(line: &[u8]) -> Option<&[u8]> {
    match line.strip_prefix(b"data")? {
        [] => Some(&[]),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let mut events = EngineEvents::new();
        let mut read = Vec::new();
        for piece in pieces {
            events.push(piece).unwrap();
            while let Some(event) = events.next_event() {
                read.push(String::from_utf8(event.to_vec()).unwrap());
            }
        }
        events.finish().unwrap();
        while let Some(event) = events.next_event() {
            read.push(String::from_utf8(event.to_vec()).unwrap());
        }
        read
    }

    #[test]
    fn every_form_of_the_format_at_every_split() {
        let cases: [(&str, &[&str]); 24] = [
            ("data: a\n\ndata: b\n\n", &["a", "b"]),
            ("data: a\r\rdata: b\r\r", &["a", "b"]),
            ("data: a\r\n\r\ndata: b\r\n\r\n", &["a", "b"]),
            ("data: a\n\r\ndata: b\r\n\n", &["a", "b"]),
            ("data: a\r\n\rdata: b\n\r", &["a", "b"]),
            ("\u{feff}data: a\n\n", &["a"]),
            ("\u{feff}\u{feff}data: a\n\ndata: b\n\n", &["b"]),
            ("data: a\n\n\u{feff}data: b\n\n", &["a"]),
            ("data:a\n\ndata:  b\n\n", &["a", " b"]),
            ("data: a\ndata: b\ndata:\ndata: c\n\n", &["a\nb\n\nc"]),
            ("data: {\ndata: \"a\":1}\n\n", &["{\n\"a\":1}"]),
            (
                ": ping\n\ndata: a\n: ping\ndata: b\n\n: ping\n\n",
                &["a\nb"],
            ),
            ("event: x\nid: 1\nretry: 5\ndata: a\nother\n\n", &["a"]),
            ("id: 1\n\n: c\n\ndata: a\n\n", &["a"]),
            ("data\n\ndata:\n\ndata: \n\n", &[]),
            ("data\ndata\n\n", &["\n"]),
            ("\n\n\n\ndata: a\n\n\n\n", &["a"]),
            ("data: a\n\ndata: b", &["a", "b"]),
            ("data: a\n\ndata: b\n", &["a", "b"]),
            ("database: a\n\nDATA: a\n\n data: a\n\n", &[]),
            (
                "data: \u{1F600}\u{1F469}\u{200D}\u{1F680} \u{e9}\n\n",
                &["\u{1F600}\u{1F469}\u{200D}\u{1F680} \u{e9}"],
            ),
            ("data: [DONE]\n\n: after\n\n", &["[DONE]"]),
            ("", &[]),
            ("\u{feff}", &[]),
        ];
        for (stream, expected) in cases {
            let bytes = stream.as_bytes();
            for at in 0..=bytes.len() {
                let (first, second) = bytes.split_at(at);
                assert_eq!(run([first, second]), expected, "{stream:?} split at {at}");
            }
            assert_eq!(
                run(bytes.chunks(1)),
                expected,
                "{stream:?} one byte at a time"
            );
        }
    }

    #[test]
    fn an_event_is_ready_with_the_end_of_its_empty_line() {
        let mut events = EngineEvents::new();
        events.push(b"data: a\r\n\r").unwrap();
        assert_eq!(events.next_event().unwrap(), "a");
        events.push(b"\ndata: b\r").unwrap();
        assert_eq!(events.next_event(), None);
    }

    #[test]
    fn an_event_without_end_is_cut_off() {
        let mut line = EngineEvents::new();
        line.push(&vec![b'x'; MAX_EVENT]).unwrap();
        assert_eq!(line.push(b"x"), Err(SseError::TooLong));
        let mut lines = EngineEvents::new();
        let piece = [&b"data: "[..], &[b'x'; 1024], b"\n"].concat();
        let mut outcome = Ok(());
        for _ in 0..=MAX_EVENT / 1024 {
            outcome = outcome.and_then(|()| lines.push(&piece));
        }
        assert_eq!(outcome, Err(SseError::TooLong));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic_and_alike_at_any_split(
            parts in proptest::collection::vec(
                prop_oneof![
                    Just("data: "), Just("data:"), Just("data"), Just("a"), Just("\n"), Just("\r"),
                    Just("\r\n"), Just(":"), Just(" "), Just("\u{1F600}"), Just("\u{feff}"),
                ],
                0..24,
            ),
            size in 1_usize..5,
        ) {
            let stream = parts.concat();
            let whole = run([stream.as_bytes()]);
            prop_assert_eq!(run(stream.as_bytes().chunks(size)), whole);
        }
    }
}
