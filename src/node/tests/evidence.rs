//! Evidence of hardware, from a kernel in memory through the node to the verifier.

use std::sync::Arc;

use attestation::{
    Answer, EvidenceItem, EvidenceKind, Nonce, StatementDigest, VerifiedNode, binding,
};
use http::StatusCode;

use super::harness::{FakeEngine, Running};
use crate::attester::evidence::{
    CpuSource, DeviceSource, EvidenceError, GUIDS, Kernel, Question, Sources, milan, table,
    tdx_quote,
};

async fn answer_of(node: &Running) -> Answer {
    let path = format!("/v1/attestation?nonce={}", Nonce::from([7; 32]));
    let (status, _, body) = node.get(&path).await;
    assert_eq!(status, StatusCode::OK);
    Answer::from_json(&body).unwrap()
}

/// The kernel's report is made by the software root, which signs what it is asked; the verifier
/// finds statement, nonce and certificates as they must be.
#[tokio::test]
async fn the_verifier_accepts_what_comes_through_configfs() {
    let engine = FakeEngine::start().await;
    let through_configfs = |own: Arc<dyn CpuSource>| -> Arc<dyn CpuSource> {
        let ask = move |inblob: &[u8]| {
            let question = Question {
                report_data: inblob.try_into().unwrap(),
                nonce: [0; 32],
            };
            own.evidence(&question).unwrap()
        };
        let chain = ask(&[0; 64]).certificates;
        let host = table(&[(GUIDS[0], &chain[0]), (GUIDS[2], &chain[1])]);
        let kernel = Kernel::new("sev_guest", move |inblob| ask(inblob).report);
        Arc::new(kernel.with_table(host).cpu())
    };
    let node = Running::start_with(&engine.config(), through_configfs).await;
    let _: VerifiedNode = node.attest().await;
}

#[tokio::test]
async fn recorded_evidence_stands_in_the_answer_byte_for_byte() {
    let engine = FakeEngine::start().await;
    let (report, vcek, ask) = milan();
    let recorded = report.clone();
    let kernel = Kernel::new("sev_guest", move |_| recorded.clone())
        .with_table(table(&[(GUIDS[2], &ask), (GUIDS[0], &vcek)]));
    let node = Running::start_with(&engine.config(), |_| Arc::new(kernel.cpu())).await;
    let [item] = &answer_of(&node).await.evidence[..] else {
        panic!("one item")
    };
    assert_eq!((item.kind, &item.report), (EvidenceKind::SevSnp, &report));
    assert_eq!(item.certificates, [vcek, ask]);

    let kernel = Kernel::new("tdx_guest", |_| tdx_quote());
    let node = Running::start_with(&engine.config(), |_| Arc::new(kernel.cpu())).await;
    let [item] = &answer_of(&node).await.evidence[..] else {
        panic!("one item")
    };
    assert_eq!((item.kind, &item.report), (EvidenceKind::Tdx, &tdx_quote()));
}

/// Devices whose leaf certificates are these.
struct Devices(&'static [&'static [u8]]);

impl DeviceSource for Devices {
    fn evidence(&self, nonce: &[u8; 32]) -> Result<Vec<EvidenceItem>, EvidenceError> {
        let answer = |leaf: &&[u8]| EvidenceItem {
            kind: EvidenceKind::NvidiaGpu,
            report: nonce.to_vec(),
            certificates: vec![leaf.to_vec()],
            collateral: attestation::Collateral::default(),
        };
        Ok(self.0.iter().map(answer).collect())
    }
}

#[tokio::test]
async fn devices_follow_the_cpu_and_none_is_there_twice() {
    let engine = FakeEngine::start().await;
    let with = |leaves: &'static [&'static [u8]]| {
        let config = engine.config();
        async move {
            let add = |sources: &mut Sources| {
                sources.devices.push(Box::new(Devices(leaves)));
            };
            Running::start_changed(&config, add).await
        }
    };
    let node = with(&[b"a", b"b"]).await;
    let answer = answer_of(&node).await;
    let statement = StatementDigest::of(&answer.statement);
    let nonce = binding::gpu_nonce(&statement, &answer.nonce);
    let reports: Vec<&[u8]> = answer.devices().iter().map(|it| &it.report[..]).collect();
    assert_eq!(reports, [&nonce[..], &nonce]);
    // SEV-SNP's report data stands at 0x50.
    let data = binding::report_data(&statement, &answer.nonce, &reports);
    assert_eq!(answer.evidence[0].report[0x50..0x90], data);

    let node = with(&[b"a", b"a"]).await;
    let path = format!("/v1/attestation?nonce={}", Nonce::from([7; 32]));
    assert_eq!(node.get(&path).await.0, StatusCode::INTERNAL_SERVER_ERROR);
}
