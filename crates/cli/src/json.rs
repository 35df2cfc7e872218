//! Messages of the contract as JSON, the way grpcurl prints them: proto3 JSON names, enums by name, 64-bit numbers as text,
//! nothing for what has its default.

use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::Value;

static CONTRACT: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(longtake_proto::FILE_DESCRIPTOR_SET).expect("the contract's descriptors are whole")
});

/// `message` as JSON.
pub(crate) fn of<M: Message>(message: &M) -> Value {
    let dynamic = DynamicMessage::decode(descriptor::<M>(), message.encode_to_vec().as_slice())
        .expect("a message that was just encoded");
    let json = dynamic.serialize_with_options(serde_json::value::Serializer, &SerializeOptions::new());
    whole_numbers(json.expect("every message of the contract has a JSON form"))
}

/// Doubles that are whole, as in a Struct, without a decimal point.
#[allow(clippy::cast_possible_truncation)] // whole and within 2^53
fn whole_numbers(value: Value) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(double) if number.is_f64() && double.fract() == 0.0 && double.abs() <= EXACT => (double as i64).into(),
            _ => Value::Number(number),
        },
        Value::Array(values) => values.into_iter().map(whole_numbers).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, whole_numbers(value))).collect(),
        Value::Null | Value::Bool(_) | Value::String(_) => value,
    }
}

/// A Struct as the JSON that it holds.
pub(crate) fn of_struct(fields: &prost_types::Struct) -> Value {
    Value::Object(longtake_proto::convert::json_from_struct(fields.clone()))
}

/// The generated types do not know their proto names; those of top-level messages end in the same word.
fn descriptor<M>() -> MessageDescriptor {
    let name = std::any::type_name::<M>().rsplit("::").next().unwrap_or_default();
    CONTRACT
        .get_message_by_name(&format!("longtake.v1.{name}"))
        .expect("only top-level messages of the contract are printed")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use longtake_proto::convert::struct_from_json;
    use longtake_proto::v1;
    use serde_json::json;

    use super::*;

    #[test]
    fn json_has_proto3_names_and_leaves_defaults_out() {
        let response = v1::GetRunResponse {
            run: Some(v1::Run {
                run_id: "r".into(),
                state: v1::run::State::TimedOut.into(),
                create_time: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 5_000_000 }),
                labels: HashMap::from([("class".into(), "7b".into())]),
                input: struct_from_json(json!({"whole": 3, "half": 0.5, "list": [null, "x"]})),
                requested_modalities: vec![v1::Modality::Text.into(), v1::Modality::Video.into()],
                spent: Some(v1::Money { nano_usd: 17_000_000 }),
                saved: Some(v1::Money { nano_usd: 0 }),
                event_number: 9_007_199_254_740_993,
                ..Default::default()
            }),
        };
        assert_eq!(
            of(&response),
            json!({"run": {
                "runId": "r",
                "state": "STATE_TIMED_OUT",
                "createTime": "2027-01-15T08:00:00.005Z",
                "labels": {"class": "7b"},
                "input": {"whole": 3, "half": 0.5, "list": [null, "x"]},
                "requestedModalities": ["MODALITY_TEXT", "MODALITY_VIDEO"],
                "spent": {"nanoUsd": "17000000"},
                "saved": {},
                "eventNumber": "9007199254740993",
            }})
        );
    }

    #[test]
    fn a_oneof_is_its_field_and_bytes_are_base64() {
        let leased = v1::StepLeased { step: "video".into(), token_hash: vec![0, 255], ..Default::default() };
        let event = v1::Event { number: 3, time: None, kind: Some(v1::event::Kind::StepLeased(leased)) };
        let response = v1::WatchRunResponse { update: Some(v1::watch_run_response::Update::Event(event)) };
        assert_eq!(
            of(&response),
            json!({"event": {"number": "3", "stepLeased": {"step": "video", "tokenHash": "AP8="}}})
        );
    }

    /// Everything that a command prints.
    #[test]
    fn every_printed_message_has_a_descriptor() {
        of(&v1::SubmitContentResponse::default());
        of(&v1::CreateRunResponse::default());
        of(&v1::GetContentResponse::default());
        of(&v1::ListRunsResponse::default());
        of(&v1::ListRunEventsResponse::default());
        of(&v1::ExplainRunResponse::default());
        of(&v1::CancelRunResponse::default());
        of(&v1::PauseRunResponse::default());
        of(&v1::ResumeRunResponse::default());
        of(&v1::RetryRunResponse::default());
        of(&v1::ExtendDeadlineResponse::default());
        of(&v1::ListWorkflowsResponse::default());
        of(&v1::GetWorkflowResponse::default());
        of(&v1::ValidateWorkflowResponse::default());
        of(&v1::WorkflowProblem::default());
    }
}
