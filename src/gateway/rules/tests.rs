use super::*;
use crate::gateway::tests::fake;

/// A folder of its own with the policy that names the tests' software root.
pub(in crate::gateway) fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["policy.toml", "ark.pem"] {
        std::fs::copy(fake::folder().join(name), dir.path().join(name)).unwrap();
    }
    dir
}

#[test]
fn every_file_is_watched_that_the_policy_names() {
    let dir = folder();
    let path = |name: &str| dir.path().join(name);
    let sources = Sources::new(path("policy.toml"), None);
    let first = sources.attempt(None);
    assert_eq!(first.named, ["ark.pem"]);
    assert_eq!(sources.look(&first.named), first.seen);
    let rules = first.rules.unwrap();
    assert_eq!(rules.policy_digest, hex::encode(rules.policy.digest()));
    let ark = std::fs::read(path("ark.pem")).unwrap();
    assert_eq!(rules.named, [("ark.pem".to_owned(), ark.clone())]);

    std::fs::remove_file(path("ark.pem")).unwrap();
    let gone = sources.attempt(None);
    assert!(gone.rules.is_err());
    assert_ne!(gone.seen, first.seen);
    assert_eq!(
        gone.named,
        ["ark.pem"],
        "still watched, so that it can come"
    );
    std::fs::write(path("ark.pem"), ark).unwrap();
    assert_eq!(sources.look(&gone.named), first.seen);
    std::fs::write(path("policy.toml"), "version = 1\n").unwrap();
    assert_ne!(sources.look(&gone.named), first.seen);
}

#[test]
fn a_file_beyond_all_size_is_not_read() {
    let dir = folder();
    let long = vec![b'x'; 1024 * 1024 + 1];
    std::fs::write(dir.path().join("ark.pem"), long).unwrap();
    let error = Sources::new(dir.path().join("policy.toml"), None)
        .read()
        .unwrap_err();
    assert!(error.to_string().contains("larger than"), "{error}");
}
