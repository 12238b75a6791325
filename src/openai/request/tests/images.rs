use super::*;

fn images(members: &str) -> Result<Asked, RequestError> {
    let body = format!(r#"{{"model":"m",{members}}}"#);
    Request::parse(Endpoint::Images, body.into()).map(|request| request.asked().clone())
}

#[test]
fn members_in_range_pass() {
    let asked = images(r#""prompt":"a cat""#).unwrap();
    assert_eq!((asked.n, asked.encoding, asked.max_tokens), (1, None, None));
    for (member, encoding) in [
        ("\"b64_json\"", Encoding::Base64),
        ("\"url\"", Encoding::Url),
    ] {
        let members = format!(
            r#""prompt":"a cat","n":10,"size":"1024x1536","quality":"hd","style":"vivid","user":"u","response_format":{member},"background":{{}}"#
        );
        let asked = images(&members).unwrap();
        assert_eq!((asked.n, asked.encoding), (10, Some(encoding)));
    }
    for size in ["auto", "1x1", "99999x5"] {
        assert!(
            images(&format!(r#""prompt":"x","size":"{size}""#)).is_ok(),
            "{size}"
        );
    }
}

#[test]
fn members_out_of_range_are_named() {
    assert_eq!(images("\"n\":1").unwrap_err().param(), Some("prompt"));
    let cases = [
        ("n", "0 11 1.5 \"1\""),
        ("response_format", "\"b64\" 5 \"float\""),
        (
            "size",
            "\"\" \"1024\" \"x\" \"0x5\" \"5x05\" \"1x2x3\" \"100000x1\" \"+1x1\" 1024",
        ),
        ("quality", "5"),
        ("style", "[]"),
        ("user", "{}"),
        ("stream", "true"),
        ("prompt", "null 5 [\"x\"]"),
    ];
    for (param, values) in cases {
        for value in values.split(' ') {
            let prompt = if param == "prompt" {
                ""
            } else {
                "\"prompt\":\"x\","
            };
            let error = images(&format!("{prompt}\"{param}\":{value}")).unwrap_err();
            assert_eq!(error.param(), Some(param), "{value}");
        }
    }
}
