mod chat;
mod embeddings;
mod images;

use proptest::prelude::*;

use super::*;

fn parse(body: &str) -> Result<Request, RequestError> {
    Request::parse(
        Endpoint::Completions,
        Bytes::copy_from_slice(body.as_bytes()),
    )
}

/// A valid body with one more member.
fn with(member: &str) -> String {
    format!(r#"{{"model":"m","prompt":"p",{member}}}"#)
}

fn outcome(body: &str) -> Result<(), (&'static str, Option<String>)> {
    parse(body)
        .map(drop)
        .map_err(|error| (error.code(), error.param().map(str::to_owned)))
}

#[track_caller]
fn invalid(body: &str, param: &str) {
    assert_eq!(
        outcome(body),
        Err(("invalid_request", Some(param.to_owned()))),
        "{body}"
    );
}

#[test]
fn the_body_stays_as_it_came() {
    let body = " {\"prompt\" :\"h\\u00e9 \u{1F600}\",\n\"x\":{\"y\":[1e5]},\"model\":\"m/1\",\"stream\":true,\
                \"stream_options\":{\"include_usage\":true,\"other\":[]},\"max_tokens\":7,\"n\":3}\t";
    let request = parse(body).unwrap();
    assert_eq!(request.body(), body);
    assert_eq!(request.model(), "m/1");
    assert!(request.stream() && request.asked().include_usage);
    assert_eq!(
        (
            request.asked().max_tokens,
            request.asked().n,
            request.asked().inputs
        ),
        (Some(7), 3, 1)
    );
    assert!(!format!("{request:?}").contains("m/1"));
}

#[test]
fn absent_and_null_members_are_their_defaults() {
    let names = [
        "best_of",
        "echo",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_tokens",
        "n",
        "presence_penalty",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "suffix",
        "temperature",
        "top_p",
        "user",
        "unknown",
    ];
    let nulls = names.map(|name| format!("\"{name}\":null")).join(",");
    for body in [with(&nulls), r#"{"model":"m","prompt":"p"}"#.to_owned()] {
        let request = parse(&body).unwrap();
        assert!(!request.stream() && !request.asked().include_usage);
        assert_eq!(
            (
                request.asked().max_tokens,
                request.asked().n,
                request.asked().choices()
            ),
            (Some(16), 1, 1)
        );
    }
}

#[test]
fn the_four_prompt_forms() {
    let cases = [
        (r#""""#, Some(1)),
        (r#""words \ud83d\ude00""#, Some(1)),
        (r#"["a"]"#, Some(1)),
        (r#"["a","","\n"]"#, Some(3)),
        ("[0]", Some(1)),
        ("[ 1 , 2147483647 ]", Some(1)),
        ("[[1,2],[3]]", Some(2)),
        ("null", None),
        ("5", None),
        ("true", None),
        ("{}", None),
        ("[]", None),
        ("[[]]", None),
        ("[[1],[]]", None),
        (r#"["a",5]"#, None),
        (r#"[5,"a"]"#, None),
        ("[[1],2]", None),
        ("[1,[2]]", None),
        (r#"[["a"]]"#, None),
        ("[[[1]]]", None),
        ("[true]", None),
        ("[null]", None),
        ("[{}]", None),
        ("[-1]", None),
        ("[-0]", None),
        ("[1.0]", None),
        ("[1e2]", None),
        ("[2147483648]", None),
        ("[99999999999999999999]", None),
        ("[[1,-1]]", None),
        ("[1e999]", None),
    ];
    for (prompt, prompts) in cases {
        let body = format!(r#"{{"model":"m","prompt":{prompt},"n":2}}"#);
        match prompts {
            Some(prompts) => {
                let request = parse(&body).unwrap();
                assert_eq!(
                    (request.asked().inputs, request.asked().choices()),
                    (prompts, 2 * prompts),
                    "{body}"
                );
            }
            None => invalid(&body, "prompt"),
        }
    }
}

#[test]
fn members_in_range_pass() {
    let members = [
        "\"temperature\":0",
        "\"temperature\":2",
        "\"temperature\":2.0",
        "\"temperature\":1e-7",
        "\"temperature\":-0.0",
        "\"top_p\":0",
        "\"top_p\":1",
        "\"top_p\":0.5",
        "\"frequency_penalty\":-2",
        "\"frequency_penalty\":2",
        "\"presence_penalty\":-2.0",
        "\"presence_penalty\":1.5",
        "\"logprobs\":0",
        "\"logprobs\":20",
        "\"n\":1",
        "\"n\":2147483647",
        "\"best_of\":1",
        "\"n\":2,\"best_of\":1",
        "\"max_tokens\":0",
        "\"max_tokens\":2147483647",
        "\"seed\":-9223372036854775808",
        "\"seed\":9223372036854775807",
        "\"stop\":\"x\"",
        "\"stop\":[]",
        "\"stop\":[\"a\",\"b\",\"c\",\"d\"]",
        "\"logit_bias\":{}",
        "\"logit_bias\":{\"50256\":-100,\"1\":100,\"x\":0.5}",
        "\"stream\":false",
        "\"echo\":true",
        "\"stream\":true,\"stream_options\":{}",
        "\"stream\":true,\"stream_options\":{\"include_usage\":null}",
        "\"stream\":null,\"stream_options\":null",
        "\"suffix\":\"\"",
        "\"user\":\"u\"",
        "\"messages\":[{\"role\":\"user\"},{\"role\":\"user\"}]",
        "\"big\":123456789012345678901234567890",
    ];
    for member in members {
        assert_eq!(outcome(&with(member)), Ok(()), "{member}");
    }
}

#[test]
fn members_out_of_range_or_of_another_type_are_named() {
    let cases = [
        ("temperature", "-0.1 2.1 \"1\" true [] {} 1e999"),
        ("top_p", "-1 1.01 \"1\" false"),
        ("frequency_penalty", "-2.1 2.5 \"0\""),
        ("presence_penalty", "-3 3 []"),
        ("logprobs", "-1 21 1.0 true \"5\""),
        ("n", "0 -1 1.0 1e0 \"1\" true 2147483648"),
        ("best_of", "0 -1 1.5 \"1\" 99999999999999999999"),
        ("max_tokens", "-1 16.0 \"16\" false 2147483648"),
        (
            "seed",
            "1.0 \"1\" 9223372036854775808 -9223372036854775809 true",
        ),
        ("stream", "\"yes\" 1 0 \"true\" []"),
        ("echo", "\"yes\" 1 {}"),
        ("suffix", "1 true []"),
        ("user", "1 {} false"),
        (
            "stop",
            "5 true {} [\"a\",\"b\",\"c\",\"d\",\"e\"] [\"a\",\"b\",\"c\",\"d\",5]",
        ),
        ("stop[0]", "[5] [null] [[\"a\"]]"),
        ("stop[2]", "[\"a\",\"b\",{}]"),
        (
            "logit_bias",
            "[] \"x\" {\"1\":101} {\"1\":-100.5} {\"1\":\"5\"} {\"1\":null} {\"1\":true}",
        ),
    ];
    for (param, values) in cases {
        let name = param.split('[').next().unwrap();
        for value in values.split(' ') {
            invalid(&with(&format!("\"{name}\":{value}")), param);
        }
    }
}

#[test]
fn an_engines_own_names_for_limits_do_not_go_past_the_contracts() {
    let names = |endpoint| -> &[&str] {
        match endpoint {
            Endpoint::Completions => &["max_completion_tokens"],
            Endpoint::ChatCompletions => &["best_of"],
            Endpoint::Embeddings | Endpoint::Images => &["max_completion_tokens", "best_of"],
        }
    };
    let bodies = [
        (Endpoint::Completions, r#"{"model":"m","prompt":"a"}"#),
        (
            Endpoint::ChatCompletions,
            r#"{"model":"m","messages":[{"role":"user","content":"a"}]}"#,
        ),
        (Endpoint::Embeddings, r#"{"model":"m","input":"a"}"#),
        (Endpoint::Images, r#"{"model":"m","prompt":"a"}"#),
    ];
    for (endpoint, body) in bodies {
        let all = ["n_predict", "n_cmpl", "max_new_tokens"].iter();
        for name in all.chain(names(endpoint)) {
            let with = |value: &str| body.replacen('{', &format!("{{\"{name}\":{value},"), 1);
            let parsed = |body: String| Request::parse(endpoint, Bytes::from(body));
            let error = parsed(with("50000")).unwrap_err();
            assert_eq!(error.param(), Some(*name), "{endpoint:?}");
            assert!(error.message().contains("max_tokens"), "{error}");
            assert!(parsed(with("null")).is_ok(), "{endpoint:?} {name}");
        }
    }
}

#[test]
fn stream_options_go_only_with_a_stream() {
    let on = |options: &str| with(&format!("\"stream_options\":{options},\"stream\":true"));
    for options in ["[]", "[true]", "true", "\"x\"", "5"] {
        invalid(&on(options), "stream_options");
    }
    for value in ["1", "\"true\"", "[]"] {
        let options = format!("{{\"include_usage\":{value}}}");
        invalid(&on(&options), "stream_options.include_usage");
    }
    invalid(
        &with("\"stream_options\":{\"include_usage\":true}"),
        "stream_options",
    );
    invalid(
        &with("\"stream\":false,\"stream_options\":{}"),
        "stream_options",
    );
}

#[test]
fn model_and_prompt_are_required() {
    invalid("{}", "model");
    invalid(r#"{"prompt":"p"}"#, "model");
    invalid(r#"{"model":"m"}"#, "prompt");
    let long = format!("\"{}\"", "m".repeat(MAX_MODEL + 1));
    let huge = format!("\"{}\"", "m".repeat(100_000));
    for model in ["null", "5", "\"\"", "[\"m\"]", &long, &huge] {
        invalid(&format!(r#"{{"model":{model},"prompt":"p"}}"#), "model");
    }
    let longest = "\u{1F600}".repeat(MAX_MODEL);
    let escaped = "\\ud83d\\ude00".repeat(MAX_MODEL);
    for model in [&longest, &escaped] {
        let request = parse(&format!(r#"{{"model":"{model}","prompt":"p"}}"#)).unwrap();
        assert_eq!(request.model(), longest);
    }
}

#[test]
fn what_is_not_json_is_refused_as_such() {
    let deep = |open: &str, close: &str, n: usize| {
        with(&format!("\"x\":{}1{}", open.repeat(n), close.repeat(n)))
    };
    let cases = [
        String::new(),
        " ".to_owned(),
        "{".to_owned(),
        "{\"model\":\"m\",\"prompt\":\"p\"".to_owned(),
        "{\"model\":\"m\",\"prompt\":\"p\",}".to_owned(),
        "{\"model\":\"m\",\"prompt\":\"p\"} x".to_owned(),
        "{\"model\":\"m\",\"prompt\":\"p\"}{}".to_owned(),
        "{'model':'m'}".to_owned(),
        "{model:1}".to_owned(),
        "\u{feff}{\"model\":\"m\",\"prompt\":\"p\"}".to_owned(),
        "{\"model\":\"m\",\"prompt\":\"a\nb\"}".to_owned(),
        "{\"model\":\"m\",\"prompt\":\"a\0b\"}".to_owned(),
        "{\"model\":\"m\",\"prompt\":\"\\x\"}".to_owned(),
        "{\"model\":\"m\",\"prompt\":\"\\ud83d\"}".to_owned(),
        "{\"model\":\"m\",\"prompt\":\"\\ude00\\ud83d\"}".to_owned(),
        "{\"model\":\"m\",\"prompt\":[\"\\ud83d\"]}".to_owned(),
        with("\"x\":\"\\udc00\""),
        with("\"\\udc00\":1"),
        with("\"x\":{\"\\udc00\":1}"),
        with("\"temperature\":NaN"),
        with("\"temperature\":Infinity"),
        with("\"temperature\":-Infinity"),
        with("\"temperature\":01"),
        with("\"temperature\":.5"),
        with("\"temperature\":+1"),
        with("\"x\":1e999"),
        with("\"x\":[-1e999]"),
        deep("[", "]", 128),
        deep("{\"a\":", "}", 128),
        deep("[", "]", 100_000),
        "[".repeat(100_000),
    ];
    for body in cases {
        let shown = body.get(..80).unwrap_or(&body);
        assert_eq!(outcome(&body), Err(("invalid_json", None)), "{shown}");
    }
    let mut body = with("\"x\":\"?\"").into_bytes();
    for byte in &mut body {
        if *byte == b'?' {
            *byte = 0xFF;
        }
    }
    assert_eq!(
        Request::parse(Endpoint::Completions, body.into()).unwrap_err(),
        RequestError::InvalidJson
    );
    assert_eq!(outcome(&deep("[", "]", 127)), Ok(()));
}

#[test]
fn what_is_no_object_is_an_invalid_request() {
    for body in ["null", "5", "\"x\"", "[]", "[{\"model\":\"m\"}]", "true"] {
        assert_eq!(outcome(body), Err(("invalid_request", None)), "{body}");
    }
}

#[test]
fn duplicates_are_refused_with_their_path() {
    let cases = [
        (with("\"model\":\"n\""), "model"),
        (with("\"\\u006dodel\":\"n\""), "model"),
        (with("\"n\":null,\"n\":null"), "n"),
        (with("\"x\":1,\"y\":2,\"x\":3"), "x"),
        (
            with("\"a very odd \\\"name\\\"\":1,\"a very odd \\\"name\\\"\":1"),
            "?",
        ),
        (with("\"x\":{\"y\":[{\"z\":1,\"z\":2}]}"), "x.y[0].z"),
        (with("\"logit_bias\":{\"7\":1,\"7\":2}"), "logit_bias.7"),
        (
            with(
                "\"stream\":true,\"stream_options\":{\"include_usage\":true,\"include_usage\":true}",
            ),
            "stream_options.include_usage",
        ),
    ];
    for (body, path) in cases {
        assert_eq!(
            outcome(&body),
            Err(("duplicate_member", Some(path.to_owned()))),
            "{body}"
        );
    }
}

#[test]
fn no_error_repeats_a_value() {
    let secret = "canary-7f3a";
    let bodies = [
        format!(r#"{{"model":["{secret}"],"prompt":"p"}}"#),
        format!(r#"{{"model":"m","prompt":["{secret}",5]}}"#),
        format!(r#"{{"model":"m","prompt":"{secret}" x}}"#),
        with(&format!("\"stop\":[\"{secret}\",5]")),
        with(&format!("\"stream\":\"{secret}\"")),
        with(&format!("\"x\":{{\"y\":\"{secret}\",\"y\":\"{secret}\"}}")),
        with(&format!("\"logit_bias\":{{\"1\":\"{secret}\"}}")),
        with(&format!("\"my {secret}\":1,\"my {secret}\":2")),
    ];
    for body in bodies {
        let error = parse(&body).unwrap_err();
        let json = String::from_utf8(error.object().to_json().to_vec()).unwrap();
        for shown in [
            json,
            format!("{error:?}"),
            error.to_string(),
            error.message().into_owned(),
        ] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}

#[test]
fn messages_say_what_is_wanted() {
    let message = |member: &str| parse(&with(member)).unwrap_err().message().into_owned();
    assert_eq!(
        message("\"temperature\":3"),
        "`temperature` must be a number from 0 to 2."
    );
    assert_eq!(message("\"stop\":[\"a\",1]"), "`stop[1]` must be a string.");
    assert_eq!(
        message("\"n\":1,\"n\":1"),
        "`n` stands twice in one object."
    );
    assert_eq!(
        parse("[]").unwrap_err().message(),
        "The body must be a JSON object."
    );
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Request::parse(Endpoint::Completions, body.into());
    }

    /// What passes is JSON for serde_json's own tree, and the tree agrees with what was read.
    #[test]
    fn what_passes_is_what_a_tree_says(
        parts in proptest::collection::vec(
            prop_oneof![
                Just("{"), Just("}"), Just("["), Just("]"), Just(","), Just(":"),
                Just("\"model\":\"m\""), Just("\"prompt\":"), Just("\"p\""), Just("1"),
                Just("null"), Just("\"stream\":true"), Just("\"x\":"), Just("\"n\":2"), Just(" "),
            ],
            0..24,
        )
    ) {
        let body = parts.concat();
        if let Ok(request) = parse(&body) {
            let tree: serde_json::Value = serde_json::from_str(&body).unwrap();
            prop_assert_eq!(tree["model"].as_str(), Some(request.model()));
            prop_assert_eq!(tree["stream"].as_bool().unwrap_or(false), request.stream());
            prop_assert!(tree["prompt"].is_string() || tree["prompt"].is_array());
        }
    }

    #[test]
    fn any_text_can_be_a_prompt(prompt in any::<String>()) {
        let body = format!(r#"{{"model":"m","prompt":{}}}"#, serde_json::to_string(&prompt).unwrap());
        prop_assert_eq!(parse(&body).unwrap().asked().inputs, 1);
    }
}
