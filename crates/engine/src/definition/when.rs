//! The condition of a step.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use serde_json::Value;

use super::problem::{brief, quote};
use super::reads::{Part, Reads, Scope, reads};
use super::{limits, scan};

/// CEL's standard library; [`reads()`] says what of it may be used.
static ENVIRONMENT: LazyLock<Arc<cel::Env>> = LazyLock::new(|| Arc::new(cel::Env::stdlib()));

/// A compiled `when`: CEL over `input` and `steps.<name>.output`.
///
/// Numbers without a fraction are `int`, others `double`; they compare with each other. A value that is not there is an error:
/// `has(input.x)` asks first.
#[derive(Clone)]
pub struct When(Arc<Compiled>);

struct Compiled {
    text: String,
    program: cel::Program,
    reads: Reads,
    /// The steps that it reads, by number and by name.
    steps: Vec<usize>,
    names: Vec<String>,
}

impl When {
    /// Compiles `text`, or says everything that is wrong with it.
    pub(super) fn compile(text: &str, scope: &Scope<'_>) -> Result<When, Vec<String>> {
        scan::scan(text).map_err(|message| vec![message])?;
        let compiled = catch_unwind(AssertUnwindSafe(|| ENVIRONMENT.compile(text)));
        let program = match compiled {
            Ok(Ok(program)) => program,
            Ok(Err(errors)) => return Err(vec![syntax(&errors)]),
            Err(_) => return Err(vec!["cannot be compiled: write it more simply".to_owned()]),
        };
        let reads = reads(program.expression(), scope)?;
        let steps: Vec<usize> = reads.steps.keys().copied().collect();
        let name = |number: &usize| {
            let named = scope.steps.iter().find(|(_, candidate)| *candidate == number);
            named.map_or_else(String::new, |(name, _)| (*name).to_owned())
        };
        let names = steps.iter().map(name).collect();
        Ok(When(Arc::new(Compiled { text: text.to_owned(), program, reads, steps, names })))
    }

    /// Whether it can be answered when the run is submitted.
    pub fn reads_only_input(&self) -> bool {
        self.0.steps.is_empty()
    }

    /// The numbers of the steps whose outputs it reads, ascending; all among the step's needs and what these need.
    pub fn reads(&self) -> &[usize] {
        &self.0.steps
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// Its answer. `outputs` holds, by name, the output of every step that it reads; null for a skipped one.
    ///
    /// Anything but a boolean is an error, as is everything that CEL finds wrong; the message is for people. It never panics,
    /// and its cost is bounded ([`limits::WHEN_COST`]), whatever the values are.
    pub fn evaluate(&self, input: &Value, outputs: &BTreeMap<String, Value>) -> Result<bool, String> {
        // Foreign code: a panic in it must not take down the caller, who holds many other runs.
        match catch_unwind(AssertUnwindSafe(|| self.0.evaluate(input, outputs))) {
            Ok(answer) => answer.map_err(|message| format!("when {} {message}", quote(&self.0.text))),
            Err(_) => Err(format!("when {} cannot be evaluated", quote(&self.0.text))),
        }
    }
}

impl Compiled {
    fn evaluate(&self, input: &Value, outputs: &BTreeMap<String, Value>) -> Result<bool, String> {
        let uses = self.reads.count.max(1) * (self.reads.sums + 1);
        let mut meter = Meter { left: limits::WHEN_COST / uses };
        let mut context = cel::Context::with_env(Arc::clone(&ENVIRONMENT));
        context.add_variable_from_value("input", meter.part(input, &self.reads.input)?);
        if !self.steps.is_empty() {
            let mut steps = HashMap::new();
            for (name, part) in self.names.iter().zip(self.reads.steps.values()) {
                let output = outputs
                    .get(name)
                    .ok_or_else(|| format!("reads the output of {name:?}, which is not there"))?;
                let output = HashMap::from([("output".to_owned(), meter.part(output, part)?)]);
                steps.insert(name.clone(), cel::Value::from(output));
            }
            context.add_variable_from_value("steps", steps);
        }
        match self.program.execute(&context) {
            Ok(cel::Value::Bool(answer)) => Ok(answer),
            Ok(other) => Err(format!("gave {}, neither true nor false", kind(&other))),
            Err(error) => Err(format!("failed: {}", brief(&error))),
        }
    }
}

/// Hands values to CEL, as many as the evaluation can afford.
struct Meter {
    left: usize,
}

impl Meter {
    fn part(&mut self, value: &Value, part: &Part) -> Result<cel::Value, String> {
        match (value, part) {
            (Value::Object(object), Part::Fields(fields)) => {
                let read = object.iter().filter(|(name, _)| fields.contains(*name));
                self.object(read, limits::VALUE_DEPTH)
            }
            _ => self.value(value, limits::VALUE_DEPTH),
        }
    }

    fn value(&mut self, value: &Value, depth: usize) -> Result<cel::Value, String> {
        let depth = depth.checked_sub(1).ok_or("reads a value that nests too deeply")?;
        self.pay(1)?;
        Ok(match value {
            Value::Null => cel::Value::Null,
            Value::Bool(value) => cel::Value::Bool(*value),
            Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(int), _, _) => cel::Value::Int(int),
                (_, Some(uint), _) => cel::Value::UInt(uint),
                (_, _, Some(double)) => cel::Value::Float(double),
                (None, None, None) => return Err("reads a number that is out of range".to_owned()),
            },
            Value::String(text) => {
                self.pay(text.len() / BYTES_PER_VALUE)?;
                cel::Value::String(Arc::new(text.clone()))
            }
            Value::Array(array) => {
                let items: Result<Vec<_>, _> = array.iter().map(|item| self.value(item, depth)).collect();
                cel::Value::List(Arc::new(items?))
            }
            Value::Object(object) => return self.object(object.iter(), depth),
        })
    }

    fn object<'v>(
        &mut self,
        fields: impl Iterator<Item = (&'v String, &'v Value)>,
        depth: usize,
    ) -> Result<cel::Value, String> {
        let mut map = HashMap::new();
        for (name, value) in fields {
            self.pay(name.len() / BYTES_PER_VALUE)?;
            map.insert(name.clone(), self.value(value, depth)?);
        }
        Ok(map.into())
    }

    fn pay(&mut self, cost: usize) -> Result<(), String> {
        let left = self.left.checked_sub(cost);
        self.left =
            left.ok_or("reads more than it may cost: read a smaller part of it, or read it fewer times")?;
        Ok(())
    }
}

/// How many bytes of text cost as much as one value: copying them takes about as long as making it.
const BYTES_PER_VALUE: usize = 64;

/// The parser's first complaint; the others follow from it.
fn syntax(errors: &cel::ParseErrors) -> String {
    let Some(first) = errors.errors.first() else {
        return "is no valid CEL".to_owned();
    };
    let message = first.msg.strip_prefix("Syntax error: ").unwrap_or(&first.msg);
    let message = message.split(" expecting {").next().unwrap_or(message).replace("'<EOF>'", "end of text");
    format!("is no valid CEL at line {}, column {}: {}", first.pos.0, first.pos.1, brief(&message))
}

fn kind(value: &cel::Value) -> &'static str {
    match value {
        cel::Value::Null => "null",
        cel::Value::Int(_) | cel::Value::UInt(_) | cel::Value::Float(_) => "a number",
        cel::Value::String(_) => "a text",
        cel::Value::List(_) => "a list",
        cel::Value::Map(_) => "a map",
        _ => "something else",
    }
}

impl fmt::Debug for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("When").field(&self.text()).finish()
    }
}
