//! A body is read without panic, at each endpoint; what passes is JSON, levels, and passes again
//! after levelling.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sealgate::openai::{
    Endpoint, Request,
    echo::{Echo, embed},
    level::{RequestOptions, level_request},
};

fuzz_target!(|body: &[u8]| {
    for endpoint in Endpoint::ALL {
        read(endpoint, body);
    }
});

fn read(endpoint: Endpoint, body: &[u8]) {
    let levelled = level_request(endpoint, body, &RequestOptions::default());
    match Request::parse(endpoint, Bytes::copy_from_slice(body)) {
        Ok(request) => {
            assert_eq!(request.body(), body);
            let levelled = levelled.expect("what parses levels");
            assert_eq!(levelled.asked.model, request.model());
            let again =
                Request::parse(endpoint, levelled.body.clone().into()).expect("still valid");
            let asked = |request: &Request| {
                let asked = request.asked();
                (asked.max_tokens, asked.stream, asked.choices())
            };
            assert_eq!(asked(&again), asked(&request));
            let twice = level_request(endpoint, &levelled.body, &RequestOptions::default());
            assert_eq!(twice.expect("levels").body, levelled.body);
            match endpoint {
                Endpoint::Completions | Endpoint::ChatCompletions => {
                    if let Ok(echo) = Echo::new(&request, String::new(), 0) {
                        echo.reply();
                    }
                }
                Endpoint::Embeddings => drop(embed(&request)),
                Endpoint::Images => {}
            }
        }
        Err(error) => {
            assert_eq!(levelled.err(), Some(error.clone()));
            assert!(error.message().len() < 1024);
        }
    }
}
