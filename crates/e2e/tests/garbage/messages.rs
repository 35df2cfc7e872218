//! Messages at random.

use std::collections::HashMap;

use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

/// How deep messages lie in each other: a Struct may hold itself.
const DEPTH: usize = 6;

pub struct Messages<'a> {
    rng: StdRng,
    known: &'a [String],
}

impl Messages<'_> {
    /// The same for the same seed. `known` are texts that mean something.
    pub fn new(seed: u64, known: &[String]) -> Messages<'_> {
        Messages { rng: StdRng::seed_from_u64(seed), known }
    }

    /// A message of this type, or what is left of one.
    pub fn bytes(&mut self, of: &MessageDescriptor) -> Vec<u8> {
        let mut bytes = self.message(of, DEPTH).encode_to_vec();
        if self.rng.random_ratio(1, 3) {
            self.spoil(&mut bytes);
        }
        bytes
    }

    fn spoil(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.rng.random_range(1..4) {
            let at = self.rng.random_range(0..=bytes.len());
            match self.rng.random_range(0..4) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.rng.random()),
                2 => drop(bytes.splice(at..at, std::iter::repeat_n(0xff, 12))),
                _ => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << self.rng.random_range(0..8);
                    }
                }
            }
        }
    }

    fn message(&mut self, of: &MessageDescriptor, depth: usize) -> DynamicMessage {
        let mut message = DynamicMessage::new(of.clone());
        // Half of all messages have most of their fields, so that some get past the first check.
        let chance = if self.rng.random() { 0.9 } else { 0.4 };
        for field in of.fields() {
            if self.rng.random_bool(chance) {
                let value = self.field(&field, depth);
                message.set_field(&field, value);
            }
        }
        message
    }

    fn field(&mut self, field: &FieldDescriptor, depth: usize) -> Value {
        let most = if depth == 0 { 0 } else { 3 };
        if field.is_map() {
            let Kind::Message(entry) = field.kind() else { panic!("a map has entries") };
            let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
            let count = self.rng.random_range(0..=most);
            let entries = (0..count).map(|_| {
                assert!(matches!(key.kind(), Kind::String), "maps of the contract have texts for keys");
                (MapKey::String(self.text()), self.value(&value.kind(), depth.saturating_sub(1)))
            });
            return Value::Map(entries.collect::<HashMap<_, _>>());
        }
        if field.is_list() {
            let count = self.rng.random_range(0..=most);
            return Value::List(
                (0..count).map(|_| self.value(&field.kind(), depth.saturating_sub(1))).collect(),
            );
        }
        self.value(&field.kind(), depth.saturating_sub(1))
    }

    fn value(&mut self, kind: &Kind, depth: usize) -> Value {
        match kind {
            Kind::Bool => Value::Bool(self.rng.random()),
            Kind::String => Value::String(self.text()),
            Kind::Bytes => Value::Bytes(self.text().into_bytes().into()),
            Kind::Double => {
                Value::F64(*[0.0, -1.5, f64::NAN, f64::INFINITY, 1e300].choose(&mut self.rng).expect("one"))
            }
            Kind::Float => Value::F32(*[0.0, f32::NAN].choose(&mut self.rng).expect("one")),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                Value::I32(*[0, 1, -1, 7, 1000, i32::MAX, i32::MIN].choose(&mut self.rng).expect("one"))
            }
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                Value::I64(*[0, 1, -1, 60, 1 << 40, i64::MAX, i64::MIN].choose(&mut self.rng).expect("one"))
            }
            Kind::Uint32 | Kind::Fixed32 => Value::U32(*[0, 1, u32::MAX].choose(&mut self.rng).expect("one")),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(*[0, 1, u64::MAX].choose(&mut self.rng).expect("one")),
            Kind::Enum(of) => {
                let known: Vec<i32> = of.values().map(|value| value.number()).collect();
                let any = *[-1, 99, i32::MAX].choose(&mut self.rng).expect("one");
                Value::EnumNumber(if self.rng.random_bool(0.8) {
                    *known.choose(&mut self.rng).expect("one")
                } else {
                    any
                })
            }
            Kind::Message(of) if depth == 0 => Value::Message(DynamicMessage::new(of.clone())),
            Kind::Message(of) => Value::Message(self.message(of, depth)),
        }
    }

    fn text(&mut self) -> String {
        match self.rng.random_range(0..10) {
            0 => String::new(),
            1 => "x".repeat(self.rng.random_range(1..6_000)),
            2 => "\u{0}\u{1}\u{202e}'; drop table run; --".to_owned(),
            3 => uuid::Uuid::from_u128(self.rng.random()).to_string(),
            4 => "3s".to_owned(),
            5 => (0..8).map(|_| self.rng.random::<char>()).collect(),
            _ => self.known.choose(&mut self.rng).cloned().unwrap_or_default(),
        }
    }
}
