//! Which padding a request has: what its sender asks for, else what its key says, else the gateway's.
//! The policy's least is above all of them, and raises what asks for less.

use attestation::Padding;
use http::{HeaderMap, HeaderName};

use super::error::Error;
use crate::openai::RequestError;

/// The field that names the padding of a request and its reply.
pub(super) const PADDING: HeaderName = HeaderName::from_static("sealgate-padding");

/// What the fields of a request ask for, if they do.
///
/// # Errors
/// [`Error::Request`] if it is no padding, or comes twice.
pub(super) fn asked(headers: &HeaderMap) -> Result<Option<Padding>, Error> {
    let mut values = headers.get_all(PADDING).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let named = value.to_str().ok().and_then(|text| text.parse().ok());
    match named {
        Some(padding) if values.next().is_none() => Ok(Some(padding)),
        _ => Err(Error::Request(RequestError::Invalid {
            param: Some(PADDING.as_str().to_owned().into()),
            expected: "`off`, `bucket` or `paced`, once",
        })),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_a_padding_is_one_and_only_once() {
        let cases: [(&[&str], Option<Option<Padding>>); 9] = [
            (&[], Some(None)),
            (&["off"], Some(Some(Padding::Off))),
            (&["bucket"], Some(Some(Padding::Bucket))),
            (&["paced"], Some(Some(Padding::Paced))),
            (&[""], None),
            (&["Paced"], None),
            (&["paced, off"], None),
            (&["p\u{e4}ced"], None),
            (&["paced", "paced"], None),
        ];
        for (values, expected) in cases {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(PADDING, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            assert_eq!(asked(&headers).ok(), expected, "{values:?}");
        }
    }
}
