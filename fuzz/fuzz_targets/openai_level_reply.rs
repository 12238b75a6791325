//! An engine's unary replies, errors and lists: no panic; what is levelled levels to itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealgate::openai::{
    Endpoint,
    level::{RequestOptions, level_error, level_reply, level_request},
    models::engine_models,
};

fuzz_target!(|body: &[u8]| {
    for endpoint in Endpoint::ALL {
        let request = endpoint.example("m").to_string();
        let request = level_request(endpoint, request.as_bytes(), &RequestOptions::default())
            .expect("a valid request");
        let id = "000102030405060708090a0b0c0d0e0f".parse().expect("an id");
        let context = request.context(id, std::time::UNIX_EPOCH);
        if let Ok(reply) = level_reply(body, &context) {
            let again = level_reply(&reply.body, &context).expect("the contract levels");
            assert_eq!(again.body, reply.body);
        }
    }
    let error = level_error(400, body);
    assert_eq!(level_error(400, &error), error);
    let _ = engine_models(body);
});
