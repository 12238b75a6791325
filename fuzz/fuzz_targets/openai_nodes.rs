//! Announcements, locks, lists and the outside of sealed requests are read without panic, within bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealgate::openai::nodes::{Announcement, ConfidentialRequest, LockRequest, serving};

fuzz_target!(|body: &[u8]| {
    let announced = Announcement::parse(body);
    let locked = LockRequest::parse(body);
    let sealed = ConfidentialRequest::parse(body);
    if let Ok(announced) = &announced {
        assert!((1..=512).contains(&announced.public_address.len()));
    }
    if let Ok(locked) = &locked {
        assert!((1..=256).contains(&locked.model.len()));
        assert!(locked.max_num_tokens != Some(0) && locked.timeout_s != Some(0));
    }
    if let Ok(sealed) = &sealed {
        assert!((1..=256).contains(&sealed.model.len()));
    }
    if let Ok(nodes) = serving(body, "m") {
        let texts = nodes
            .iter()
            .flat_map(|node| node.suites.iter().chain([&node.id]));
        assert!(texts.map(String::len).sum::<usize>() <= body.len());
    }
    for error in [announced.err(), locked.err(), sealed.err()]
        .into_iter()
        .flatten()
    {
        assert!(error.message().len() < 1024);
    }
});
