//! A body is read without panic; what passes is JSON, levels, and passes again after levelling.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sealgate::openai::{
    CompletionRequest,
    echo::Echo,
    level::{RequestOptions, level_request},
};

fuzz_target!(|body: &[u8]| {
    let levelled = level_request(body, &RequestOptions::default());
    match CompletionRequest::parse(Bytes::copy_from_slice(body)) {
        Ok(request) => {
            assert_eq!(request.body(), body);
            let levelled = levelled.expect("what parses levels");
            assert_eq!(levelled.model, request.model());
            let again =
                CompletionRequest::parse(levelled.body.clone().into()).expect("still valid");
            assert_eq!(again.max_tokens(), request.max_tokens());
            assert_eq!(
                (again.stream(), again.choices()),
                (request.stream(), request.choices())
            );
            let twice = level_request(&levelled.body, &RequestOptions::default()).expect("levels");
            assert_eq!(twice.body, levelled.body);
            if let Ok(echo) = Echo::new(&request, String::new(), 0) {
                echo.reply();
            }
        }
        Err(error) => {
            assert_eq!(levelled.err(), Some(error.clone()));
            assert!(error.message().len() < 1024);
        }
    }
});
