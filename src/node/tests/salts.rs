//! Callers apart in an engine's prefix cache.

use serde_json::Value;

use super::{
    BODY,
    harness::{FakeEngine, Running, Sent},
};

const ALICE: &str = "000102030405060708090a0b0c0d0e0f";
const BOB: &str = "101112131415161718191a1b1c1d1e1f";
const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"a canary"}]}"#;
const VLLM: &str = r#"{"data":[{"id":"m","owned_by":"vllm"}]}"#;
const OTHER: &str = r#"{"data":[{"id":"m","owned_by":"llamacpp"}]}"#;

/// What the engine is asked for `caller`, who sends `own` as his salt.
async fn asked(
    (node, engine): (&Running, &mut FakeEngine),
    chat: bool,
    caller: &str,
    own: Option<&str>,
) -> Value {
    let (path, content) = if chat {
        ("/v1/chat/completions", CHAT)
    } else {
        ("/v1/completions", BODY)
    };
    let mut body: Value = serde_json::from_str(content).unwrap();
    if let Some(own) = own {
        body["cache_salt"] = own.into();
    }
    let fields = [("sealgate-caller", caller)];
    let content = body.to_string();
    let sent = Sent {
        path,
        fields: &fields,
        content: &content,
        ..Sent::default()
    };
    let played = async {
        let mut asked = engine.asked().await;
        asked.reply(400, "{}").await;
        serde_json::from_str(&asked.body).unwrap()
    };
    tokio::join!(node.ask(sent), played).1
}

#[tokio::test]
async fn callers_have_salts_of_their_own_that_nobody_else_can_ask_for() {
    let mut engine = FakeEngine::start().await;
    engine.say("/v1/models", 200, VLLM);
    let node = Running::start(&engine.config()).await;
    for chat in [false, true] {
        let mut salt = async |caller: &str, own: Option<&str>| {
            let asked = asked((&node, &mut engine), chat, caller, own).await;
            asked["cache_salt"].as_str().unwrap().to_owned()
        };
        let alice = salt(ALICE, None).await;
        assert_eq!(salt(ALICE, None).await, alice, "one caller, one salt");
        let bob = salt(BOB, None).await;
        assert_ne!(bob, alice);
        let narrow = salt(ALICE, Some("mine")).await;
        assert_eq!(salt(ALICE, Some("mine")).await, narrow);
        assert!(narrow != alice && salt(BOB, Some("mine")).await != narrow);
        // What the engine knows another by leads nowhere.
        assert!(![&alice, &bob].contains(&&salt(BOB, Some(&alice)).await));
        // Who seals for himself shares with nobody, nor with himself.
        let unnamed = [salt("", None).await, salt("", None).await];
        assert!(unnamed[0] != unnamed[1] && !unnamed.contains(&alice));
        assert!(![&alice, &narrow].contains(&&salt("", Some("mine")).await));
    }
}

#[tokio::test]
async fn a_node_that_starts_anew_makes_other_salts() {
    let mut engine = FakeEngine::start().await;
    engine.say("/v1/models", 200, VLLM);
    let mut salts = Vec::new();
    for _ in 0..2 {
        let node = Running::start(&engine.config()).await;
        let asked = asked((&node, &mut engine), false, ALICE, None).await;
        salts.push(asked["cache_salt"].clone());
    }
    assert_ne!(salts[0], salts[1]);
}

#[tokio::test]
async fn salts_go_to_engines_that_know_them_or_to_those_that_are_named() {
    let mut engine = FakeEngine::start().await;
    for (says, line, salted) in [
        (VLLM, "", true),
        (VLLM, "cache_salt = \"auto\"\n", true),
        (VLLM, "cache_salt = false\n", false),
        (OTHER, "", false),
        (OTHER, "cache_salt = true\n", true),
    ] {
        engine.say("/v1/models", 200, says);
        let node = Running::start(&format!("{}{line}", engine.config())).await;
        let asked = asked((&node, &mut engine), false, ALICE, None).await;
        assert_eq!(asked.get("cache_salt").is_some(), salted, "{says} {line}");
    }
}

#[tokio::test]
async fn a_caller_that_is_no_pseudonym_makes_a_request_malformed() {
    let mut engine = FakeEngine::start().await;
    let node = Running::start(&engine.config()).await;
    let upper = ALICE.to_uppercase();
    for caller in ["alice", upper.as_str(), &ALICE[1..]] {
        let fields = [("sealgate-caller", caller)];
        let sent = Sent {
            fields: &fields,
            ..Sent::default()
        };
        assert_eq!(
            node.ask(sent).await.problem(),
            (400, "malformed".to_owned())
        );
    }
    assert!(engine.idle());
}
