//! Messages of the contract as JSON, the way grpcurl prints them: proto3 JSON names, enums by name, 64-bit numbers as text,
//! nothing for what has its default.

use std::io::{self, Write};
use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::Value;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};

static CONTRACT: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(longtake_proto::FILE_DESCRIPTOR_SET).expect("the contract's descriptors are whole")
});

/// `message` as one line.
pub(crate) fn line<M: Message>(message: &M) -> String {
    written(message, Line)
}

/// `message` over several lines.
pub(crate) fn document<M: Message>(message: &M) -> String {
    written(message, Lines(PrettyFormatter::new()))
}

/// `message` as a value, for documents that hold more; its fields come in the order of the alphabet.
pub(crate) fn value<M: Message>(message: &M) -> Value {
    serde_json::from_str(&line(message)).expect("JSON that was just written")
}

fn written<M: Message>(message: &M, layout: impl Formatter) -> String {
    let dynamic = DynamicMessage::decode(descriptor::<M>(), message.encode_to_vec().as_slice())
        .expect("a message that was just encoded");
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, layout);
    dynamic
        .serialize_with_options(&mut serializer, &SerializeOptions::new())
        .expect("every message of the contract has a JSON form");
    String::from_utf8(text).expect("JSON is UTF-8")
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

/// JSON in one line.
struct Line;

impl Formatter for Line {
    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        write_double(writer, value)
    }
}

/// JSON over several lines.
struct Lines(PrettyFormatter<'static>);

impl Formatter for Lines {
    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        write_double(writer, value)
    }
    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }
    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }
    fn end_array_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }
    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }
    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }
    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }
    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }
    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

/// Doubles that are whole, as in a Struct, have no decimal point.
#[allow(clippy::cast_possible_truncation)] // whole and within 2^53
fn write_double<W: ?Sized + Write>(writer: &mut W, value: f64) -> io::Result<()> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT {
        return CompactFormatter.write_i64(writer, value as i64);
    }
    CompactFormatter.write_f64(writer, value)
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
            value(&response),
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
    fn fields_come_in_the_order_of_the_contract() {
        let response = v1::GetRunResponse {
            run: Some(v1::Run {
                run_id: "r".into(),
                workflow: "w".into(),
                priority: 3,
                ..Default::default()
            }),
        };
        assert_eq!(line(&response), r#"{"run":{"runId":"r","workflow":"w","priority":3}}"#);
        let lines = [
            "{",
            r#"  "run": {"#,
            r#"    "runId": "r","#,
            r#"    "workflow": "w","#,
            r#"    "priority": 3"#,
            "  }",
            "}",
        ];
        assert_eq!(document(&response), lines.join("\n"));
    }

    #[test]
    fn a_oneof_is_its_field_and_bytes_are_base64() {
        let leased = v1::StepLeased { step: "video".into(), token_hash: vec![0, 255], ..Default::default() };
        let event = v1::Event { number: 3, time: None, kind: Some(v1::event::Kind::StepLeased(leased)) };
        let response = v1::WatchRunResponse { update: Some(v1::watch_run_response::Update::Event(event)) };
        assert_eq!(
            value(&response),
            json!({"event": {"number": "3", "stepLeased": {"step": "video", "tokenHash": "AP8="}}})
        );
    }

    /// Everything that a command prints.
    #[test]
    fn every_printed_message_has_a_descriptor() {
        value(&v1::SubmitContentResponse::default());
        value(&v1::CreateRunResponse::default());
        value(&v1::GetContentResponse::default());
        value(&v1::ListRunsResponse::default());
        value(&v1::ListRunEventsResponse::default());
        value(&v1::ExplainRunResponse::default());
        value(&v1::CancelRunResponse::default());
        value(&v1::PauseRunResponse::default());
        value(&v1::ResumeRunResponse::default());
        value(&v1::RetryRunResponse::default());
        value(&v1::ExtendDeadlineResponse::default());
        value(&v1::ListWorkflowsResponse::default());
        value(&v1::GetWorkflowResponse::default());
        value(&v1::ValidateWorkflowResponse::default());
        value(&v1::WorkflowProblem::default());
    }
}
