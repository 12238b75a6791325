//! `sealgate policy`, from evidence of a real node to a policy in force.

use std::process::Output;

use crate::harness::{
    Engine, Process,
    process::sealgate,
    setup::{Files, policy},
    soon,
};

/// A node's answer in a file, with the nonce that it was asked with.
struct Kept {
    _node: Process,
    nonce: String,
    /// The last to go: the node's log is in there.
    files: Files,
}

impl Kept {
    async fn new() -> Self {
        let (files, engine) = (Files::new(), Engine::start().await);
        let node = Process::start("node", &files.node("node-a", &engine, "")).await;
        let nonce = "5a".repeat(32);
        let url = format!("{}/v1/attestation?nonce={nonce}", node.url);
        let answer = soon("an answer", reqwest::get(url)).await.unwrap();
        files.write("answer.json", &answer.text().await.unwrap());
        Self {
            files,
            nonce,
            _node: node,
        }
    }

    /// Runs `sealgate policy` in the folder of the files.
    async fn policy(&self, args: &[&str]) -> Said {
        let mut command = sealgate();
        command.current_dir(self.files.dir.path());
        let run = command.arg("policy").args(args).output();
        Said::from(soon("policy", run).await.unwrap())
    }
}

/// What a command said.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

#[tokio::test]
async fn a_policy_is_proposed_confirmed_and_explained() {
    let kept = Kept::new().await;
    let proposed = kept.policy(&["from-evidence", "answer.json"]).await;
    assert_eq!(proposed.code, 0, "{}{}", proposed.out, proposed.err);
    kept.files.write("proposed.toml", &proposed.out);

    for command in [&["policy", "check"][..], &["check-config"]] {
        let mut run = sealgate();
        run.current_dir(kept.files.dir.path());
        let said = run.args(command).arg("proposed.toml").output();
        let said = Said::from(soon("check", said).await.unwrap());
        assert_eq!(said.code, 2, "{command:?}");
        assert!(
            said.err.contains("lines that begin with `#? `"),
            "{command:?}: {}",
            said.err
        );
    }
    let unconfirmed = kept
        .policy(&["explain", "proposed.toml", "answer.json"])
        .await;
    assert_eq!(unconfirmed.code, 2, "{}", unconfirmed.out);
    let hint = "lines that begin with `#? ` wait to be confirmed";
    assert!(unconfirmed.err.contains(hint), "{}", unconfirmed.err);

    let confirmed = proposed.out.replace("#? ", "");
    kept.files.write("confirmed.toml", &confirmed);
    let args = [
        "explain",
        "confirmed.toml",
        "answer.json",
        "--nonce",
        &kept.nonce,
    ];
    let accepted = kept.policy(&args).await;
    assert_eq!(accepted.code, 0, "{}", accepted.out);
    assert!(
        accepted
            .out
            .contains("answer.json: accepted (software root: "),
        "{}",
        accepted.out
    );

    let kept_alone = kept.policy(&args[..3]).await;
    assert!(
        kept_alone.out.ends_with("that it is fresh is not shown\n"),
        "{}",
        kept_alone.out
    );
    let other_nonce = "00".repeat(32);
    let other = [&args[..3], &["--nonce", &other_nonce]].concat();
    let other = kept.policy(&other).await;
    assert!(
        other.out.contains("follows from the nonce"),
        "{}",
        other.out
    );
    assert!(!other.out.contains("altered"), "{}", other.out);

    let measured = hex::encode(sealgate::node::SOFTWARE_MEASUREMENT);
    let stricter = confirmed.replace(&measured, &"0".repeat(96));
    kept.files.write("stricter.toml", &stricter);
    let refused = kept
        .policy(&["explain", "stricter.toml", "answer.json"])
        .await;
    assert_eq!(refused.code, 1);
    let remedy = format!("to accept it, add \"{measured}\" to `measurements`");
    assert!(
        refused.out.contains("refused by 1 check"),
        "{}",
        refused.out
    );
    assert!(refused.out.contains(&remedy), "{}", refused.out);
}

/// Evidence does not name the file of its root.
#[tokio::test]
async fn a_guess_is_called_one() {
    let kept = Kept::new().await;
    let elsewhere = kept.files.dir.path().join("software-root");
    let mut command = sealgate();
    command.current_dir(elsewhere);
    let run = command
        .args(["policy", "from-evidence", "../answer.json"])
        .output();
    let said = Said::from(soon("policy", run).await.unwrap());
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains("ark.pem` is a guess"), "{}", said.err);
}

#[tokio::test]
async fn a_new_policy_is_compared_before_it_is_in_force() {
    let kept = Kept::new().await;
    kept.files.write("new.toml", &policy(&"0".repeat(96)));
    let cases = [
        (["policy.toml", "policy.toml"], 0, "kept "),
        (["policy.toml", "new.toml"], 1, "dropped "),
        (["new.toml", "policy.toml"], 1, "admitted "),
        (["new.toml", "new.toml"], 0, "refused by both "),
    ];
    for ([old, new], code, word) in cases {
        let said = kept.policy(&["diff", old, new, "answer.json"]).await;
        assert_eq!(said.code, code, "{old} {new}: {}{}", said.out, said.err);
        assert!(said.out.starts_with(word), "{old} {new}: {}", said.out);
        assert!(
            said.out.contains("node-a (answer.json) (software root: "),
            "{}",
            said.out
        );
    }
    let said = kept
        .policy(&["diff", "policy.toml", "new.toml", "answer.json"])
        .await;
    assert!(
        said.out.contains("measurement failed: expected 0000"),
        "{}",
        said.out
    );
    assert!(
        said.out
            .ends_with("1 dropped, 0 admitted of 1 piece of evidence\n")
    );
}

#[tokio::test]
async fn of_an_archive_each_nodes_newest_evidence_is_compared() {
    let kept = Kept::new().await;
    kept.files.write("new.toml", &policy(&"0".repeat(96)));
    let folder = kept.files.dir.path().join("archive");
    let [older, newer] = ["0", "1"].map(|digit| digit.repeat(64));
    std::fs::create_dir_all(folder.join("evidence")).unwrap();
    for digest in [&older, &newer] {
        let place = folder.join(format!("evidence/{digest}.json"));
        std::fs::copy(kept.files.dir.path().join("answer.json"), place).unwrap();
    }
    let diff = ["diff", "policy.toml", "new.toml", "archive"];
    let all = kept.policy(&diff).await;
    let end = "2 dropped, 0 admitted of 2 pieces of evidence\n";
    assert!(all.out.ends_with(end), "{}{}", all.out, all.err);
    let lines = [older, newer.clone()]
        .map(|digest| format!("{{\"node\":\"http://a\",\"evidence\":\"{digest}\"}}\n"));
    kept.files
        .write("archive/appraisals.jsonl", &lines.concat());
    let newest = kept.policy(&diff).await;
    let end = "1 dropped, 0 admitted of 1 piece of evidence\n";
    assert!(newest.out.ends_with(end), "{}{}", newest.out, newest.err);
    assert!(newest.out.contains(&newer), "{}", newest.out);
    assert!(newest.err.contains("1 node in all"), "{}", newest.err);
}

#[tokio::test]
async fn a_check_says_what_is_accepted_and_what_deserves_a_second_look() {
    let kept = Kept::new().await;
    let checked = kept.policy(&["check", "policy.toml"]).await;
    assert_eq!(checked.code, 0, "{}", checked.err);
    for words in [
        "policy.toml: a policy, nothing wrong\n",
        "accepts AMD SEV-SNP ([sev_snp])\n",
        "look again: sev_snp.software_roots: ",
    ] {
        assert!(checked.out.contains(words), "{words}: {}", checked.out);
    }
    let wrong = [
        ("absent.toml", "absent.toml"),
        ("answer.json", "answer.json"),
    ];
    for (file, named) in wrong {
        let said = kept.policy(&["check", file]).await;
        assert_eq!(said.code, 2, "{file}");
        assert!(said.err.contains(named), "{file}: {}", said.err);
        assert!(said.out.is_empty(), "{file}: {}", said.out);
    }
    // What no policy accepts without the table is said once.
    let none = "version = 1\nbundle_signers = []\n";
    kept.files.write("none.toml", none);
    let checked = kept.policy(&["check", "none.toml"]).await;
    assert_eq!(checked.code, 1, "{}", checked.out);
    assert!(
        checked
            .out
            .contains("none.toml: a policy, accepts no node\n"),
        "{}",
        checked.out
    );
    let explained = kept.policy(&["explain", "none.toml", "answer.json"]).await;
    assert_eq!(explained.code, 1);
    assert!(
        explained
            .out
            .contains("refused by 1 check\n  policy section\n"),
        "{}",
        explained.out
    );
    let two = ["from-evidence", "answer.json", "answer.json"];
    assert!(kept.policy(&two).await.err.contains("proposed from one"));
    let none = ["explain", "policy.toml", "software-root"];
    assert!(
        kept.policy(&none)
            .await
            .err
            .contains("an archive without evidence")
    );
}
