use super::*;

fn embeddings(members: &str) -> Result<Asked, RequestError> {
    let body = format!(r#"{{"model":"m",{members}}}"#);
    Request::parse(Endpoint::Embeddings, body.into()).map(|request| request.asked().clone())
}

#[test]
fn inputs_are_texts_or_tokens() {
    let cases = [
        (r#""x""#, Some(1)),
        (r#"["a","b"]"#, Some(2)),
        ("[1,2,3]", Some(1)),
        ("[[1],[2,3]]", Some(2)),
        ("null", None),
        ("[]", None),
        (r#"["a",1]"#, None),
        ("5", None),
    ];
    for (input, inputs) in cases {
        let asked = embeddings(&format!(r#""input":{input}"#));
        let seen = asked.as_ref().map(|asked| asked.inputs);
        match inputs {
            Some(inputs) => assert_eq!(seen, Ok(inputs), "{input}"),
            None => assert_eq!(seen.unwrap_err().param(), Some("input"), "{input}"),
        }
    }
    assert_eq!(
        embeddings(r#""prompt":"x""#).unwrap_err().param(),
        Some("input")
    );
}

#[test]
fn members_say_how_vectors_are_written() {
    let asked = embeddings(r#""input":"x","encoding_format":"base64","dimensions":8"#).unwrap();
    let written = (asked.encoding, asked.dimensions);
    assert_eq!(written, (Some(Encoding::Base64), Some(8)));
    let asked = embeddings(r#""input":"x","encoding_format":"float","user":"u""#).unwrap();
    assert_eq!(
        (asked.encoding, asked.dimensions),
        (Some(Encoding::Float), None)
    );
    let nulls = r#""input":"x","encoding_format":null,"dimensions":null,"stream":false"#;
    let asked = embeddings(nulls).unwrap();
    assert_eq!((asked.encoding, asked.dimensions), (None, None));
    let cases = [
        (r#""encoding_format":"url""#, "encoding_format"),
        (r#""encoding_format":5"#, "encoding_format"),
        (r#""dimensions":0"#, "dimensions"),
        (r#""dimensions":1.5"#, "dimensions"),
        (r#""user":5"#, "user"),
        (r#""stream":true"#, "stream"),
        (r#""stream":"no""#, "stream"),
    ];
    for (member, param) in cases {
        let error = embeddings(&format!(r#""input":"x",{member}"#)).unwrap_err();
        assert_eq!(error.param(), Some(param), "{member}");
    }
}
