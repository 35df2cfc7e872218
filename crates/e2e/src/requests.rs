//! What tests ask for.

use std::time::Duration;

use longtake_proto::v1::{Modality, SubmitContentRequest};

/// A request whose script has so many scenes, the closing one included. Each is as short as a scene can be.
pub fn content_request(modalities: &[Modality], scenes: usize) -> SubmitContentRequest {
    let part = |number| format!("## Part {number}\n\nA leaf drinks light, part {number}.\n");
    let parts: Vec<String> = (1..scenes).map(part).collect();
    SubmitContentRequest {
        request_id: uuid::Uuid::new_v4().to_string(),
        student_id: "student-1".to_owned(),
        student_query: "How do plants turn light into sugar?".to_owned(),
        source_text: parts.join("\n"),
        requested_modalities: modalities.iter().map(|modality| i32::from(*modality)).collect(),
        ..SubmitContentRequest::default()
    }
}

/// A span for a message.
pub fn span(span: Duration) -> Option<prost_types::Duration> {
    Some(longtake_proto::convert::duration_from_std(span))
}
