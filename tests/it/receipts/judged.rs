use super::*;

#[tokio::test]
async fn an_auditor_judges_by_a_policy_of_his_own() {
    let setup = start("", REQUIRED).await;
    let exchange = Exchange::whole(&setup, "a cat").await;
    let empty = Empty::new();
    empty.write("receipt.json", &exchange.bundle);
    let root = setup.dir.path().join("software-root");
    fs::create_dir(empty.0.path().join("software-root")).unwrap();
    let ark = empty.0.path().join("software-root/ark.pem");
    fs::copy(root.join("ark.pem"), ark).unwrap();
    let cases = [
        ("same.toml", policy(&measurement()), 0, "which you gave"),
        ("other.toml", policy(&"00".repeat(48)), 1, "refused"),
    ];
    for (name, policy, code, said) in cases {
        empty.write(name, policy.as_bytes());
        let output = empty.verify(&["receipt.json", "--policy", name]).await;
        let shown = text(&output);
        assert_eq!(output.status.code(), Some(code), "{shown}");
        assert!(shown.contains(said), "{shown}");
    }
}

#[tokio::test]
async fn a_receipt_stays_good_where_its_evidence_was_judged_anew_after_the_policy_changed() {
    let setup = start("", REQUIRED).await;
    let before = Exchange::whole(&setup, "a cat").await;
    let wider = policy(&measurement()).replace("measurements = [", "measurements = [\n");
    let unfinished = setup.dir.path().join("policy.toml.new");
    fs::write(&unfinished, wider).unwrap();
    fs::rename(unfinished, setup.dir.path().join("policy.toml")).unwrap();
    setup.gateway.signal("HUP").await;
    let content = |exchange: &Exchange| -> Value {
        let file: Value = serde_json::from_slice(&exchange.bundle).unwrap();
        file["content"].clone()
    };
    let judging = async {
        loop {
            let exchange = Exchange::whole(&setup, "a cat").await;
            if content(&exchange)["policy_sha256"] != content(&before)["policy_sha256"] {
                return exchange;
            }
        }
    };
    let after = soon("the node is judged by the new policy", judging).await;
    let (was, is) = (content(&before), content(&after));
    assert_eq!(was["asked_at"], was["appraised_at"]);
    assert_eq!(
        (&is["asked_at"], &is["evidence"]),
        (&was["asked_at"], &was["evidence"])
    );
    let empty = Empty::new();
    empty.write("receipt.json", &after.bundle);
    let is_judged = |args: Vec<&'static str>| {
        let empty = &empty;
        async move {
            let args = [vec!["receipt.json"], args].concat();
            let output = empty.verify(&args).await;
            (output.status.code(), text(&output))
        }
    };
    let (code, shown) = is_judged(vec![]).await;
    assert_eq!(code, Some(0), "{shown}");
    // An auditor's own time counts in place of the file's.
    let (code, shown) = is_judged(vec!["--at", "2020-01-01T00:00:00Z"]).await;
    assert_eq!(code, Some(1), "{shown}");
    assert!(
        shown.contains("appraised at 2020-01-01T00:00:00Z"),
        "{shown}"
    );
    let (code, shown) = is_judged(vec!["--at", "yesterday"]).await;
    assert_eq!(code, Some(2), "{shown}");
}
