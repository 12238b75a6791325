//! A strict reader of messages that come in pieces, in both length forms (RFC 9292 section 3).

use std::mem;

use bytes::{Buf as _, Bytes};

use super::{
    FormError, MAX_CONTROL_BYTES, MAX_FIELD_BYTES, MAX_FIELDS, MAX_INFORMATIONAL,
    MAX_TRAILER_BYTES,
    fields::{Fields, is_name, is_token},
    item::Item,
};

/// What a message begins with: the control data of its kind.
pub(in crate::seal) trait Control: Sized {
    /// Framing indicator of the form with known lengths; the other form's is two more.
    const KNOWN_LENGTH: u64;
    /// Framing indicator of the form with indeterminate lengths.
    const INDETERMINATE: u64;

    /// The control data, of which `texts` have come before; `None` asks for more input.
    fn read(
        texts: &mut Vec<String>,
        item: &mut Item,
        input: &mut Bytes,
    ) -> Result<Option<Self>, FormError>;

    /// Whether another head follows this one.
    fn is_informational(&self) -> bool;
}

/// Control data of a request.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::seal) struct RequestLine {
    pub(in crate::seal) method: String,
    pub(in crate::seal) path: String,
}

impl Control for RequestLine {
    const KNOWN_LENGTH: u64 = 0;
    const INDETERMINATE: u64 = 2;

    fn read(
        texts: &mut Vec<String>,
        item: &mut Item,
        input: &mut Bytes,
    ) -> Result<Option<Self>, FormError> {
        while texts.len() < 4 {
            let text = item.counted(input, MAX_CONTROL_BYTES, FormError::Control)?;
            let Some(text) = text else { return Ok(None) };
            if !text.iter().all(u8::is_ascii_graphic) {
                return Err(FormError::Control);
            }
            texts.push(String::from_utf8(text).map_err(|_| FormError::Control)?);
        }
        let [method, scheme, _authority, path] =
            <[String; 4]>::try_from(mem::take(texts)).map_err(|_| FormError::Control)?;
        if !is_token(method.as_bytes()) {
            return Err(FormError::Control);
        }
        if scheme != "https" {
            return Err(FormError::Scheme);
        }
        Ok(Some(Self { method, path }))
    }

    fn is_informational(&self) -> bool {
        false
    }
}

/// Control data of a response.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::seal) struct StatusLine {
    pub(in crate::seal) status: u16,
}

impl Control for StatusLine {
    const KNOWN_LENGTH: u64 = 1;
    const INDETERMINATE: u64 = 3;

    fn read(
        _texts: &mut Vec<String>,
        item: &mut Item,
        input: &mut Bytes,
    ) -> Result<Option<Self>, FormError> {
        let Some(status) = item.integer(input) else {
            return Ok(None);
        };
        let status = u16::try_from(status)
            .ok()
            .filter(|status| (100..600).contains(status));
        Ok(Some(Self {
            status: status.ok_or(FormError::Status)?,
        }))
    }

    fn is_informational(&self) -> bool {
        self.status < 200
    }
}

/// What a message was found to hold next.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::seal) enum Event<C> {
    Head(C, Fields),
    /// A piece of the content, a view of the input.
    Content(Bytes),
    Trailers(Fields),
}

/// Reads one message. After an error it refuses everything.
pub(in crate::seal) struct Reader<C> {
    state: State<C>,
    item: Item,
    form: Form,
    budget: Budget,
    informational: u32,
    content_left: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    KnownLength,
    Indeterminate,
}

/// What the fields of a message may still take up.
struct Budget {
    fields: usize,
    bytes: usize,
}

enum State<C> {
    Framing,
    Control(Vec<String>),
    Fields(C, Section),
    /// The length of the content, or of its next chunk.
    ContentLength,
    Content(u64),
    Trailers(Section),
    Padding,
    Refused,
}

enum Step<C> {
    /// The input is used up.
    More,
    Next(State<C>),
    Event(Event<C>, State<C>),
}

impl<C: Control> Reader<C> {
    /// Reads a message with at most `max_content` bytes of content.
    pub(in crate::seal) fn new(max_content: u64) -> Self {
        Self {
            state: State::Framing,
            item: Item::default(),
            form: Form::KnownLength,
            budget: Budget::WHOLE,
            informational: 0,
            content_left: max_content,
        }
    }

    /// Takes from `input` up to the next event; `None` when all of it was taken.
    pub(in crate::seal) fn read(
        &mut self,
        input: &mut Bytes,
    ) -> Result<Option<Event<C>>, FormError> {
        loop {
            // An error leaves the state refused.
            let state = mem::replace(&mut self.state, State::Refused);
            match self.step(state, input)? {
                Step::Next(state) => self.state = state,
                Step::Event(event, state) => {
                    self.state = state;
                    return Ok(Some(event));
                }
                Step::More => return Ok(None),
            }
        }
    }

    /// Content that is known to come still.
    pub(in crate::seal) fn content_to_come(&self) -> u64 {
        match self.state {
            State::Content(left) => left,
            _ => 0,
        }
    }

    /// Ends the message.
    pub(in crate::seal) fn finish(self) -> Result<(), FormError> {
        match self.state {
            State::Padding => Ok(()),
            State::Refused => Err(FormError::Refused),
            _ => Err(FormError::Incomplete),
        }
    }

    fn step(&mut self, state: State<C>, input: &mut Bytes) -> Result<Step<C>, FormError> {
        match state {
            State::Framing => self.framing(input),
            State::Control(texts) => self.control(texts, input),
            State::Fields(control, section) => self.fields(control, section, input),
            State::ContentLength => self.content_length(input),
            State::Content(left) => Ok(self.content(left, input)),
            State::Trailers(section) => self.trailers(section, input),
            State::Padding => self.padding(input),
            State::Refused => Err(FormError::Refused),
        }
    }

    fn wait(&mut self, state: State<C>) -> Step<C> {
        self.state = state;
        Step::More
    }

    fn framing(&mut self, input: &mut Bytes) -> Result<Step<C>, FormError> {
        let Some(framing) = self.item.integer(input) else {
            return Ok(self.wait(State::Framing));
        };
        self.form = match framing {
            known if known == C::KNOWN_LENGTH => Form::KnownLength,
            indeterminate if indeterminate == C::INDETERMINATE => Form::Indeterminate,
            _ => return Err(FormError::Framing),
        };
        Ok(Step::Next(State::Control(Vec::new())))
    }

    fn control(&mut self, mut texts: Vec<String>, input: &mut Bytes) -> Result<Step<C>, FormError> {
        Ok(match C::read(&mut texts, &mut self.item, input)? {
            Some(control) => Step::Next(State::Fields(control, Section::default())),
            None => self.wait(State::Control(texts)),
        })
    }

    fn fields(
        &mut self,
        control: C,
        mut section: Section,
        input: &mut Bytes,
    ) -> Result<Step<C>, FormError> {
        if !section.read(self.form, &mut self.item, &mut self.budget, input)? {
            return Ok(self.wait(State::Fields(control, section)));
        }
        if control.is_informational() {
            self.informational = self
                .informational
                .checked_add(1)
                .filter(|count| *count <= MAX_INFORMATIONAL)
                .ok_or(FormError::TooManyInformational)?;
            self.budget = Budget::WHOLE;
            return Ok(Step::Next(State::Control(Vec::new())));
        }
        Ok(Step::Event(
            Event::Head(control, section.fields),
            State::ContentLength,
        ))
    }

    fn content_length(&mut self, input: &mut Bytes) -> Result<Step<C>, FormError> {
        let Some(len) = self.item.integer(input) else {
            return Ok(self.wait(State::ContentLength));
        };
        self.content_left = self
            .content_left
            .checked_sub(len)
            .ok_or(FormError::ContentTooLong)?;
        Ok(Step::Next(match (self.form, len) {
            (Form::Indeterminate, 0) => self.begin_trailers(),
            (Form::KnownLength | Form::Indeterminate, _) => State::Content(len),
        }))
    }

    fn content(&mut self, left: u64, input: &mut Bytes) -> Step<C> {
        if left == 0 {
            return Step::Next(match self.form {
                Form::KnownLength => self.begin_trailers(),
                Form::Indeterminate => State::ContentLength,
            });
        }
        if input.is_empty() {
            return self.wait(State::Content(left));
        }
        let here = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
        let piece = input.split_to(here);
        let left = left.saturating_sub(u64::try_from(piece.len()).unwrap_or(left));
        Step::Event(Event::Content(piece), State::Content(left))
    }

    /// Trailers may take what is left of the fields' budget, up to their own limit.
    fn begin_trailers(&mut self) -> State<C> {
        self.budget.bytes = self.budget.bytes.min(MAX_TRAILER_BYTES);
        State::Trailers(Section::default())
    }

    fn trailers(&mut self, mut section: Section, input: &mut Bytes) -> Result<Step<C>, FormError> {
        if !section.read(self.form, &mut self.item, &mut self.budget, input)? {
            return Ok(self.wait(State::Trailers(section)));
        }
        Ok(Step::Event(Event::Trailers(section.fields), State::Padding))
    }

    fn padding(&mut self, input: &mut Bytes) -> Result<Step<C>, FormError> {
        // Not `all`: without a way out early the compiler makes wide words of this.
        if input.iter().fold(0, |seen, byte| seen | byte) != 0 {
            return Err(FormError::Padding);
        }
        input.clear();
        Ok(self.wait(State::Padding))
    }
}

/// A field section that comes in pieces.
#[derive(Default)]
struct Section {
    fields: Fields,
    /// The name of a line whose value has not come.
    name: Option<String>,
    /// Bytes left of a section of known length, once the length has come.
    left: Option<u64>,
}

enum Line {
    More,
    Whole,
    End,
}

impl Section {
    /// Reads lines up to the end of the section; `false` asks for more input.
    fn read(
        &mut self,
        form: Form,
        item: &mut Item,
        budget: &mut Budget,
        input: &mut Bytes,
    ) -> Result<bool, FormError> {
        match form {
            Form::KnownLength => self.read_known_length(item, budget, input),
            Form::Indeterminate => loop {
                match self.line(item, budget, input)? {
                    Line::Whole => {}
                    Line::More => return Ok(false),
                    Line::End => return Ok(true),
                }
            },
        }
    }

    fn read_known_length(
        &mut self,
        item: &mut Item,
        budget: &mut Budget,
        input: &mut Bytes,
    ) -> Result<bool, FormError> {
        let mut left = match self.left {
            Some(left) => left,
            None => match item.integer(input) {
                Some(len) => len,
                None => return Ok(false),
            },
        };
        loop {
            if left == 0 {
                let whole = self.name.is_none() && item.is_empty();
                return if whole {
                    Ok(true)
                } else {
                    Err(FormError::FieldLine)
                };
            }
            let here = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
            let mut section = input.slice(..here);
            let line = self.line(item, budget, &mut section)?;
            let taken = here.saturating_sub(section.len());
            input.advance(taken);
            left = left.saturating_sub(u64::try_from(taken).unwrap_or(left));
            self.left = Some(left);
            match line {
                Line::Whole => {}
                Line::More if left == 0 => {}
                Line::More => return Ok(false),
                // Only the other form ends with an empty name.
                Line::End => return Err(FormError::FieldName),
            }
        }
    }

    fn line(
        &mut self,
        item: &mut Item,
        budget: &mut Budget,
        input: &mut Bytes,
    ) -> Result<Line, FormError> {
        let name = match self.name.take() {
            Some(name) => name,
            None => {
                let name = item.counted(input, budget.bytes, FormError::FieldsTooLong)?;
                let Some(name) = name else {
                    return Ok(Line::More);
                };
                if name.is_empty() {
                    return Ok(Line::End);
                }
                budget.take(name.len())?;
                budget.fields = budget
                    .fields
                    .checked_sub(1)
                    .ok_or(FormError::TooManyFields)?;
                if !is_name(&name) {
                    return Err(FormError::FieldName);
                }
                String::from_utf8(name).map_err(|_| FormError::FieldName)?
            }
        };
        let Some(value) = item.counted(input, budget.bytes, FormError::FieldsTooLong)? else {
            self.name = Some(name);
            return Ok(Line::More);
        };
        budget.take(value.len())?;
        self.fields.push(name, value)?;
        Ok(Line::Whole)
    }
}

impl Budget {
    const WHOLE: Self = Self {
        fields: MAX_FIELDS,
        bytes: MAX_FIELD_BYTES,
    };

    fn take(&mut self, bytes: usize) -> Result<(), FormError> {
        self.bytes = self
            .bytes
            .checked_sub(bytes)
            .ok_or(FormError::FieldsTooLong)?;
        Ok(())
    }
}
