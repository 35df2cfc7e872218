//! Well-known types to plain ones and back.
//!
//! Times and spans are i64 microseconds inside. JSON travels as `google.protobuf.Struct`, whose only number is a double: whole
//! numbers up to 2^53 survive exactly and come back as integers.

use prost_types::{Duration, ListValue, Struct, Timestamp, Value as ProtoValue, value::Kind};
use serde_json::{Map, Number, Value};

const MICROS_PER_SECOND: i64 = 1_000_000;
/// The largest whole number below which a double holds every other: 2^53.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A message's Struct as JSON. Whole numbers up to 2^53 become integers; numbers that JSON cannot hold become null.
pub fn json_from_struct(fields: Struct) -> Map<String, Value> {
    fields.fields.into_iter().map(|(key, value)| (key, json_from_value(value))).collect()
}

/// JSON as a message's Struct; `None` unless it is an object.
#[allow(clippy::needless_pass_by_value)] // callers make it for this
pub fn struct_from_json(value: Value) -> Option<Struct> {
    match value {
        Value::Object(fields) => Some(struct_from_map(&fields)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => None,
    }
}

/// A JSON object as a message's Struct.
pub fn struct_from_map(fields: &Map<String, Value>) -> Struct {
    Struct { fields: fields.iter().map(|(key, value)| (key.clone(), value_of(value))).collect() }
}

fn value_of(value: &Value) -> ProtoValue {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        Value::String(value) => Kind::StringValue(value.clone()),
        Value::Array(values) => Kind::ListValue(ListValue { values: values.iter().map(value_of).collect() }),
        Value::Object(fields) => Kind::StructValue(struct_from_map(fields)),
    };
    ProtoValue { kind: Some(kind) }
}

fn json_from_value(value: ProtoValue) -> Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(value),
        Some(Kind::NumberValue(value)) => json_from_number(value),
        Some(Kind::StringValue(value)) => Value::String(value),
        Some(Kind::StructValue(fields)) => Value::Object(json_from_struct(fields)),
        Some(Kind::ListValue(list)) => Value::Array(list.values.into_iter().map(json_from_value).collect()),
    }
}

#[allow(clippy::cast_possible_truncation)] // whole and within 2^53
fn json_from_number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() <= EXACT {
        return Value::from(value as i64);
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// Microseconds of a message's Duration; `None` when it is malformed or out of range. Nanoseconds are cut off.
pub fn micros_from_duration(span: &Duration) -> Option<i64> {
    let nanos_fit = (-999_999_999..=999_999_999).contains(&span.nanos);
    let signs_agree = span.seconds == 0 || span.nanos == 0 || (span.seconds < 0) == (span.nanos < 0);
    if !nanos_fit || !signs_agree {
        return None;
    }
    micros(span.seconds, span.nanos)
}

/// A message's Duration of so many microseconds.
#[allow(clippy::cast_possible_truncation)] // below a billion
pub fn duration_from_micros(micros: i64) -> Duration {
    Duration { seconds: micros / MICROS_PER_SECOND, nanos: (micros % MICROS_PER_SECOND) as i32 * 1_000 }
}

/// Microseconds since 1970 of a message's Timestamp; `None` when it is malformed or out of range. Nanoseconds are cut off.
pub fn micros_from_timestamp(time: &Timestamp) -> Option<i64> {
    if !(0..=999_999_999).contains(&time.nanos) {
        return None;
    }
    micros(time.seconds, time.nanos)
}

fn micros(seconds: i64, nanos: i32) -> Option<i64> {
    i64::try_from(i128::from(seconds) * i128::from(MICROS_PER_SECOND) + i128::from(nanos / 1_000)).ok()
}

/// A message's Timestamp of so many microseconds since 1970.
#[allow(clippy::cast_possible_truncation)] // below a billion
pub fn timestamp_from_micros(micros: i64) -> Timestamp {
    Timestamp {
        seconds: micros.div_euclid(MICROS_PER_SECOND),
        nanos: micros.rem_euclid(MICROS_PER_SECOND) as i32 * 1_000,
    }
}

/// A message's Duration as the standard library's; `None` when it is malformed or negative.
pub fn std_from_duration(span: &Duration) -> Option<std::time::Duration> {
    u64::try_from(micros_from_duration(span)?).ok().map(std::time::Duration::from_micros)
}

/// The standard library's Duration as a message's; cut at what 64 bits of microseconds hold.
pub fn duration_from_std(span: std::time::Duration) -> Duration {
    duration_from_micros(i64::try_from(span.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_survives_the_way_through_a_struct() {
        let value = json!({
            "whole": 42, "negative": -7, "zero": 0, "fraction": 0.25, "exact": 9_007_199_254_740_992_i64,
            "text": "ä", "none": null, "yes": true, "list": [1, "two", [3.5], {}], "nested": {"deep": {"er": []}},
        });
        let fields = struct_from_json(value.clone()).expect("an object");
        assert_eq!(Value::Object(json_from_struct(fields)), value);
    }

    #[test]
    fn only_objects_are_structs() {
        for value in [json!(null), json!(1), json!("text"), json!([1]), json!(true)] {
            assert_eq!(struct_from_json(value), None);
        }
    }

    #[test]
    fn numbers_that_json_cannot_hold_become_null() {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(json_from_number(number), Value::Null);
        }
        assert_eq!(json_from_number(1e300), json!(1e300));
    }

    #[test]
    fn times_and_spans_survive_in_microseconds() {
        for micros in [0, 1, -1, 999_999, -999_999, 1_000_000, -1_500_000, i64::MAX, i64::MIN] {
            assert_eq!(micros_from_duration(&duration_from_micros(micros)), Some(micros), "{micros}");
            assert_eq!(micros_from_timestamp(&timestamp_from_micros(micros)), Some(micros), "{micros}");
        }
    }

    #[test]
    fn malformed_times_and_spans_are_refused() {
        let spans = [(1, -1), (-1, 1), (0, 1_000_000_000), (0, -1_000_000_000), (i64::MAX, 0), (i64::MIN, 0)];
        for (seconds, nanos) in spans {
            assert_eq!(micros_from_duration(&Duration { seconds, nanos }), None, "{seconds} {nanos}");
        }
        for (seconds, nanos) in [(0, -1), (0, 1_000_000_000), (i64::MAX, 0), (i64::MIN, 0)] {
            assert_eq!(micros_from_timestamp(&Timestamp { seconds, nanos }), None, "{seconds} {nanos}");
        }
    }
}
