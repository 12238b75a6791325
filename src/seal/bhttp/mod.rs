//! Binary HTTP (RFC 9292), as far as a sealed exchange needs it.
//!
//! The reader takes bytes as they come and refuses whatever two readers could understand
//! differently; the writer never makes what the reader refuses.

mod fields;
mod item;
mod reader;
mod writer;

pub use fields::Fields;
#[cfg(fuzzing)]
pub(in crate::seal) use reader::Control;
pub(in crate::seal) use reader::{Event, Reader, RequestLine, StatusLine};
pub(in crate::seal) use writer::{
    Put, count, put_content, put_fields, put_final_head, put_framing, put_informational,
    put_response_head, put_zero, request,
};

/// Most field lines of a message, in all its sections together; those of an informational response
/// are gone once it was read, and count for themselves.
const MAX_FIELDS: usize = 100;
/// Most bytes of names and values of a message, in the same way.
const MAX_FIELD_BYTES: usize = 32 * 1024;
/// Most bytes of names and values of the trailers.
pub(in crate::seal) const MAX_TRAILER_BYTES: usize = 8 * 1024;
/// Longest method, scheme, authority or path.
const MAX_CONTROL_BYTES: usize = 8 * 1024;
/// Most informational responses before the final one: a paced stream has one at each tick until its
/// status is known.
const MAX_INFORMATIONAL: u32 = 1 << 16;

/// What is wrong with a Binary HTTP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// Not the framing indicator of this kind of message.
    #[error("unknown framing indicator")]
    Framing,
    /// The method, scheme, authority or path is too long or has bytes that do not belong there.
    #[error("control data is not well-formed")]
    Control,
    /// The scheme is not `https`.
    #[error("scheme is not https")]
    Scheme,
    /// The status is not between 100 and 599.
    #[error("status is out of range")]
    Status,
    /// More informational responses than allowed.
    #[error("over {MAX_INFORMATIONAL} informational responses")]
    TooManyInformational,
    /// A name that is empty, has an upper-case letter, or is no token.
    #[error("a field name is not well-formed")]
    FieldName,
    /// A value with a control character, an outer blank, or bytes that are not UTF-8.
    #[error("a field value is not well-formed")]
    FieldValue,
    /// A field line that crosses the end of its section.
    #[error("a field line crosses the end of its section")]
    FieldLine,
    /// More field lines than allowed.
    #[error("over {MAX_FIELDS} fields")]
    TooManyFields,
    /// More bytes of fields than allowed.
    #[error("fields are too long")]
    FieldsTooLong,
    /// A field that may stand only once.
    #[error("a field is repeated")]
    RepeatedField,
    /// Content longer than the caller allows.
    #[error("content is too long")]
    ContentTooLong,
    /// A byte other than zero after the end.
    #[error("padding is not zero")]
    Padding,
    /// The bytes ended before the message did.
    #[error("message is not complete")]
    Incomplete,
    /// An earlier part was already wrong.
    #[error("message was already refused")]
    Refused,
}

#[cfg(test)]
mod tests;
