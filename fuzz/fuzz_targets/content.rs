//! Any message as a SubmitContent: refused with what is wrong, or within every bound.

#![no_main]

use libfuzzer_sys::fuzz_target;
use longtake_engine::time::Timestamp;
use longtake_orchestrator::services::check_content;
use longtake_orchestrator::validate::INPUT_BYTES;
use longtake_proto::v1 as pb;
use prost::Message as _;

const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

fuzz_target!(|bytes: &[u8]| {
    let Ok(request) = pb::SubmitContentRequest::decode(bytes) else { return };
    match check_content(&request, NOW) {
        Ok(checked) => {
            assert!(checked.input.to_string().len() <= INPUT_BYTES);
            assert!(checked.requested.contains(&checked.preferred));
            assert!(checked.deadline.is_none_or(|deadline| deadline > NOW));
        }
        Err(refused) => assert!(!refused.fields.is_empty(), "{refused:?}"),
    }
});
