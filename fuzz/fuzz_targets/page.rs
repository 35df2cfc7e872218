//! Any text as a page token: refused, or one that this list made.

#![no_main]

use libfuzzer_sys::fuzz_target;
use longtake_orchestrator::page;

fuzz_target!(|given: (&str, &str, i64)| {
    let (token, filters, last) = given;
    if let Ok(Some(start)) = page::start(token, filters) {
        assert_eq!(page::token(start, filters), token, "two tokens for one page");
    }
    let made = page::token(last, filters);
    assert_eq!(page::start(&made, filters).expect("it was made for these filters"), Some(last));
});
