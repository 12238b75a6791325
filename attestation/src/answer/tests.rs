use proptest::prelude::*;

use super::*;

fn item(kind: EvidenceKind, leaf: &[u8]) -> EvidenceItem {
    EvidenceItem {
        kind,
        report: b"report".to_vec(),
        certificates: vec![leaf.to_vec()],
        collateral: Collateral::default(),
    }
}

fn answer(evidence: Vec<EvidenceItem>) -> Answer {
    Answer {
        statement: b"{}".to_vec(),
        nonce: Nonce::from([1; 32]),
        evidence,
    }
}

#[test]
fn reads_what_it_writes() {
    let gpus = [b"a", b"b"].map(|leaf| item(EvidenceKind::NvidiaGpu, leaf));
    let mut evidence = vec![item(EvidenceKind::SevSnp, b"vcek")];
    evidence.extend(gpus);
    evidence[1].collateral.ocsp = vec![b"good".to_vec(), b"good too".to_vec()];
    let answer = answer(evidence);
    assert_eq!(
        Answer::from_json(&answer.to_json().unwrap()).unwrap(),
        answer
    );
    assert_eq!(answer.devices().len(), 2);
}

#[test]
fn what_is_at_a_limit_passes_and_one_more_is_refused() {
    let devices = |count: usize| {
        let leaves = (0..count).map(|leaf| leaf.to_be_bytes());
        let devices = leaves.map(|leaf| item(EvidenceKind::NvidiaGpu, &leaf));
        let mut evidence = vec![item(EvidenceKind::SevSnp, b"vcek")];
        evidence.extend(devices);
        answer(evidence)
    };
    let statement = |len: usize| Answer {
        statement: vec![b' '; len],
        ..devices(0)
    };
    let certificates = |count: usize| {
        let mut answer = devices(0);
        answer.evidence[0].certificates = vec![b"vcek".to_vec(); count];
        answer
    };
    let pieces = |count: usize| {
        let mut answer = devices(0);
        answer.evidence[0].collateral.ocsp = vec![b"good".to_vec(); count];
        answer
    };
    type Maker<'a> = (&'static str, usize, &'a dyn Fn(usize) -> Answer);
    let makers: [Maker<'_>; 4] = [
        ("statement", MAX_STATEMENT, &statement),
        ("devices", MAX_ITEMS - 1, &devices),
        ("certificates", MAX_CERTIFICATES, &certificates),
        ("pieces of collateral", MAX_PIECES, &pieces),
    ];
    for (name, limit, make) in makers {
        let read = |size| Answer::from_json(&make(size).to_json().unwrap());
        assert_eq!(read(limit).unwrap(), make(limit), "{name}");
        let error = read(limit + 1).unwrap_err();
        let is_limit = matches!(
            error,
            AnswerError::StatementTooLong { .. }
                | AnswerError::TooManyItems(_)
                | AnswerError::TooManyCertificates(_)
                | AnswerError::TooManyPieces(_)
        );
        assert!(is_limit, "{name}: {error}");
    }
    let mut longest = devices(0).to_json().unwrap();
    longest.resize(MAX_ANSWER, b' ');
    assert!(Answer::from_json(&longest).is_ok());
    longest.push(b' ');
    let error = Answer::from_json(&longest).unwrap_err();
    assert!(matches!(error, AnswerError::TooLong { .. }), "{error}");
}

#[test]
fn evidence_is_one_cpu_followed_by_distinct_devices() {
    use EvidenceKind::{NvidiaGpu, SevSnp, Tdx};
    let cpu = || item(SevSnp, b"vcek");
    let mut bare = item(NvidiaGpu, b"");
    bare.certificates.clear();
    let mut laden = cpu();
    laden.certificates = vec![vec![1]; MAX_CERTIFICATES + 1];
    let cases = [
        (
            "none",
            vec![],
            "evidence is not one CPU item followed by devices",
        ),
        (
            "device first",
            vec![item(NvidiaGpu, b"a"), cpu()],
            "evidence is not one CPU item followed by devices",
        ),
        (
            "two CPUs",
            vec![cpu(), item(Tdx, b"b")],
            "evidence is not one CPU item followed by devices",
        ),
        (
            "one device twice",
            vec![cpu(), item(NvidiaGpu, b"a"), item(NvidiaGpu, b"a")],
            "two devices have the same leaf certificate",
        ),
        (
            "bare device",
            vec![cpu(), bare],
            "a device has no certificate",
        ),
        (
            "many items",
            vec![cpu(); MAX_ITEMS + 1],
            "33 evidence items exceed the limit of 32",
        ),
        (
            "many certificates",
            vec![laden],
            "9 certificates exceed the limit of 8",
        ),
    ];
    for (name, evidence, expected) in cases {
        let json = answer(evidence).to_json().unwrap();
        let error = Answer::from_json(&json).unwrap_err();
        assert_eq!(error.to_string(), expected, "{name}");
    }
}

#[test]
fn refuses_each_broken_rule() {
    let json = answer(vec![item(EvidenceKind::SevSnp, b"vcek")])
        .to_json()
        .unwrap();
    let text = String::from_utf8(json).unwrap();
    let cases = [
        (
            "type",
            "sev-snp",
            "sev-snp-simulated",
            "evidence of an unknown type",
        ),
        (
            "nonce",
            "01",
            "0",
            "`nonce` is not 32 bytes of lower-case hex",
        ),
        (
            "url-safe",
            "e30=",
            "__0=",
            "`statement` is not canonical base64",
        ),
        (
            "no padding",
            "e30=",
            "e30",
            "`statement` is not canonical base64",
        ),
        (
            "trailing bits",
            "e30=",
            "e31=",
            "`statement` is not canonical base64",
        ),
        (
            "space",
            "e30=",
            "e30= ",
            "`statement` is not canonical base64",
        ),
        (
            "no report",
            "\"report\"",
            "\"raport\"",
            "member `report` is missing",
        ),
        (
            "collateral",
            "\"type\"",
            "\"collateral\":null,\"type\"",
            "`collateral` is not an object",
        ),
        (
            "one piece of collateral",
            "\"type\"",
            "\"collateral\":{\"ocsp\":\"AA==\"},\"type\"",
            "`ocsp` is not an array",
        ),
        (
            "collateral no base64",
            "\"type\"",
            "\"collateral\":{\"tdx\":[\"A\"]},\"type\"",
            "`tdx` is not canonical base64",
        ),
        (
            "one certificate",
            "[\"dmNlaw==\"]",
            "\"dmNlaw==\"",
            "`certificates` is not an array",
        ),
    ];
    for (name, from, to, expected) in cases {
        let error = Answer::from_json(text.replace(from, to).as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), expected, "{name}");
    }
    let collateral = text.replace("\"type\"", "\"collateral\":{\"later\":1},\"type\"");
    assert!(Answer::from_json(collateral.as_bytes()).is_ok());
    let repeated = text.replacen('{', "{\"nonce\":1,", 1);
    assert!(matches!(
        Answer::from_json(repeated.as_bytes()),
        Err(AnswerError::Json(_))
    ));
}

#[test]
fn limits_hold_at_the_edge() {
    let mut json = answer(vec![item(EvidenceKind::SevSnp, b"vcek")])
        .to_json()
        .unwrap();
    json.resize(MAX_ANSWER, b' ');
    assert!(Answer::from_json(&json).is_ok());
    json.push(b' ');
    assert!(matches!(
        Answer::from_json(&json),
        Err(AnswerError::TooLong { .. })
    ));
}

proptest! {
    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        drop(Answer::from_json(&bytes));
    }
}
