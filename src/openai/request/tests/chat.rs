use super::*;

const USER: &str = r#"{"role":"user","content":"hi"}"#;

fn chat(body: &str) -> Result<Request, RequestError> {
    Request::parse(
        Endpoint::ChatCompletions,
        Bytes::copy_from_slice(body.as_bytes()),
    )
}

fn with(member: &str) -> String {
    format!(r#"{{"model":"m","messages":[{USER}],{member}}}"#)
}

fn messages(messages: &str) -> String {
    format!(r#"{{"model":"m","messages":{messages}}}"#)
}

#[track_caller]
fn refused(body: &str, param: &str) {
    let error = chat(body).map(drop).unwrap_err();
    let seen = (error.code(), error.param());
    assert_eq!(seen, ("invalid_request", Some(param)), "{body}");
}

#[test]
fn all_roles_and_contents_pass() {
    let cases = [
        USER,
        r#"{"role":"system","content":""}"#,
        r#"{"role":"developer","content":"x","name":"d"}"#,
        r#"{"role":"user","content":[{"type":"text","text":"x"},{"type":"image_url","image_url":{"url":"data:,"}}]}"#,
        r#"{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]}"#,
        r#"{"role":"assistant","tool_calls":null,"content":"x","reasoning_content":"y"}"#,
        r#"{"role":"assistant"}"#,
        r#"{"role":"tool","content":"42","tool_call_id":"1"}"#,
        r#"{"role":"function","name":"f","content":null}"#,
    ];
    for message in cases {
        let request = chat(&messages(&format!("[{message},{USER}]")));
        assert_eq!(request.map(|it| it.asked().choices()), Ok(1), "{message}");
    }
}

#[test]
fn a_message_that_is_none_is_named() {
    let cases = [
        ("null", "messages"),
        ("[]", "messages"),
        ("{}", "messages"),
        ("\"hi\"", "messages"),
        ("[5]", "messages[0]"),
        (r#"[["user","hi"]]"#, "messages[0]"),
        (r#"[{"content":"hi"}]"#, "messages[0].role"),
        (r#"[{"role":5,"content":"hi"}]"#, "messages[0].role"),
        (r#"[{"role":"root","content":"hi"}]"#, "messages[0].role"),
        (r#"[{"role":"user"}]"#, "messages[0].content"),
        (r#"[{"role":"user","content":null}]"#, "messages[0].content"),
        (
            r#"[{"role":"tool","tool_call_id":"1","content":null}]"#,
            "messages[0].content",
        ),
        (r#"[{"role":"user","content":5}]"#, "messages[0].content"),
        (r#"[{"role":"user","content":{}}]"#, "messages[0].content"),
        (r#"[{"role":"user","content":[]}]"#, "messages[0].content"),
        (
            r#"[{"role":"user","content":["x"]}]"#,
            "messages[0].content[0]",
        ),
        (
            r#"[{"role":"user","content":[{"type":"sound"},{"text":"x"}]}]"#,
            "messages[0].content[1]",
        ),
        (
            r#"[{"role":"user","content":[{"type":"text"}]}]"#,
            "messages[0].content[0].text",
        ),
        (
            r#"[{"role":"user","content":[{"type":"text","text":5}]}]"#,
            "messages[0].content[0].text",
        ),
        (
            r#"[{"role":"user","content":[{"type":"image_url","url":"x"}]}]"#,
            "messages[0].content[0].image_url",
        ),
        (
            r#"[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]"#,
            "messages[0].content[0].image_url",
        ),
        (
            r#"[{"role":"tool","content":"42"}]"#,
            "messages[0].tool_call_id",
        ),
        (
            r#"[{"role":"tool","content":"42","tool_call_id":1}]"#,
            "messages[0].tool_call_id",
        ),
        (
            r#"[{"role":"assistant","tool_calls":{}}]"#,
            "messages[0].tool_calls",
        ),
        (
            r#"[{"role":"assistant","tool_calls":[{}]}]"#,
            "messages[0].tool_calls[0]",
        ),
    ];
    for (list, param) in cases {
        refused(&messages(list), param);
    }
    refused(
        &messages(&format!(r#"[{USER},{{"role":"x"}}]"#)),
        "messages[1].role",
    );
    refused(r#"{"model":"m"}"#, "messages");
    refused(&format!(r#"{{"messages":[{USER}]}}"#), "model");
    let twice = chat(&messages(
        r#"[{"role":"user","content":[{"type":"text","text":"","type":"x"}]}]"#,
    ));
    let twice = twice.map(drop).unwrap_err();
    assert_eq!(
        twice,
        RequestError::DuplicateMember("messages[0].content[0].type".to_owned())
    );
}

#[test]
fn limits_stand_under_either_name_and_the_newer_counts() {
    let most = |member: &str| chat(&with(member)).unwrap().asked().max_tokens;
    assert_eq!(
        chat(&messages(&format!("[{USER}]")))
            .unwrap()
            .asked()
            .max_tokens,
        None
    );
    assert_eq!(most(r#""max_tokens":5"#), Some(5));
    assert_eq!(most(r#""max_completion_tokens":6"#), Some(6));
    assert_eq!(most(r#""max_completion_tokens":6,"max_tokens":5"#), Some(6));
    assert_eq!(
        most(r#""max_completion_tokens":null,"max_tokens":5"#),
        Some(5)
    );
}

#[test]
fn members_in_range_pass() {
    let function = r#"{"type":"function","function":{"name":"f","parameters":{}}}"#;
    let members = [
        r#""logprobs":true,"top_logprobs":20"#.to_owned(),
        r#""top_logprobs":0"#.to_owned(),
        r#""logprobs":false,"n":3,"temperature":2"#.to_owned(),
        format!(r#""tools":[{function},{{"type":"custom","custom":{{}}}}]"#),
        r#""tools":[],"tool_choice":"auto""#.to_owned(),
        format!(r#""tool_choice":{function},"parallel_tool_calls":false"#),
        r#""response_format":{"type":"json_schema","json_schema":{"schema":{}}}"#.to_owned(),
        r#""reasoning_effort":"low","stop":["a"],"user":"u","logit_bias":{"5":1}"#.to_owned(),
        r#""stream":true,"stream_options":{"include_usage":true}"#.to_owned(),
        r#""tools":null,"response_format":null,"logprobs":null,"metadata":{"a":[]}"#.to_owned(),
    ];
    for member in members {
        assert!(chat(&with(&member)).is_ok(), "{member}");
    }
}

#[test]
fn members_out_of_range_are_named() {
    let cases = [
        (r#""max_tokens":0"#, "max_tokens"),
        (r#""max_completion_tokens":0"#, "max_completion_tokens"),
        (r#""max_completion_tokens":"5""#, "max_completion_tokens"),
        (r#""logprobs":5"#, "logprobs"),
        (r#""logprobs":true,"top_logprobs":21"#, "top_logprobs"),
        (r#""top_logprobs":5"#, "top_logprobs"),
        (r#""logprobs":false,"top_logprobs":5"#, "top_logprobs"),
        (r#""temperature":2.1"#, "temperature"),
        (r#""tools":{}"#, "tools"),
        (r#""tools":["f"]"#, "tools[0]"),
        (r#""tools":[{"function":{"name":"f"}}]"#, "tools[0]"),
        (r#""tools":[{"type":"function"}]"#, "tools[0].function"),
        (
            r#""tools":[{"type":"function","function":{}}]"#,
            "tools[0].function",
        ),
        (r#""tool_choice":5"#, "tool_choice"),
        (r#""tool_choice":{}"#, "tool_choice"),
        (r#""parallel_tool_calls":1"#, "parallel_tool_calls"),
        (r#""response_format":"json""#, "response_format"),
        (r#""response_format":{"json_schema":{}}"#, "response_format"),
        (r#""reasoning_effort":5"#, "reasoning_effort"),
        (r#""stream_options":{}"#, "stream_options"),
    ];
    for (member, param) in cases {
        refused(&with(member), param);
    }
}
