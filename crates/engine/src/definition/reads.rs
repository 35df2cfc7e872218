//! What a compiled `when` reads, and whether it keeps to the part of CEL whose cost is bounded.

use std::collections::{BTreeMap, BTreeSet};

use cel::IdedExpr;
use cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue, operators};

use super::problem::quote;

/// The operators that are evaluated, besides the functions.
const OPERATORS: [&str; 18] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::ADD,
    operators::SUBSTRACT,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER,
    operators::GREATER_EQUALS,
    operators::LESS,
    operators::LESS_EQUALS,
    operators::NEGATE,
    operators::INDEX,
    operators::IN,
];

/// The functions that may be called: each costs no more than its arguments are large. `matches` is not among them, because
/// the price of a regular expression is not in its length; nor is anything about time, which a `when` must not depend on.
const FUNCTIONS: [&str; 9] =
    ["bool", "contains", "double", "endsWith", "int", "size", "startsWith", "string", "uint"];

const MACROS: [&str; 5] = ["all", "exists", "exists_one", "filter", "map"];

/// What an expression reads.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Of the run's input.
    pub(super) input: Part,
    /// Of the outputs, by step number.
    pub(super) steps: BTreeMap<usize, Part>,
    /// How many times it names a value.
    pub(super) count: usize,
    /// How many times it adds: sums of strings and lists grow.
    pub(super) sums: usize,
}

/// Which part of a value is read.
#[derive(Debug, PartialEq)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// These fields, if it is an object.
    Fields(BTreeSet<String>),
}

/// What a name means where a `when` stands.
pub(super) struct Scope<'a> {
    /// Every step of the workflow by name.
    pub(super) steps: &'a BTreeMap<&'a str, usize>,
    /// The bits of those that are done by then.
    pub(super) done: u64,
}

impl Default for Part {
    fn default() -> Part {
        Part::Fields(BTreeSet::new())
    }
}

impl Part {
    fn add(&mut self, field: Option<&str>) {
        match (&mut *self, field) {
            (Part::Whole, _) => {}
            (Part::Fields(fields), Some(field)) => drop(fields.insert(field.to_owned())),
            (Part::Fields(_), None) => *self = Part::Whole,
        }
    }
}

/// What `root` reads, or everything that is wrong with it.
pub(super) fn reads(root: &IdedExpr, scope: &Scope<'_>) -> Result<Reads, Vec<String>> {
    let mut walk = Walk { scope, reads: Reads::default(), wrong: BTreeSet::new() };
    walk.visit(root);
    if let Some(kind) = never_a_boolean(&root.expr) {
        walk.wrong.insert(format!("gives {kind}, never true or false: compare it with something"));
    }
    if walk.wrong.is_empty() { Ok(walk.reads) } else { Err(walk.wrong.into_iter().collect()) }
}

struct Walk<'a> {
    scope: &'a Scope<'a>,
    reads: Reads,
    /// A set, because the same mistake is often made twice.
    wrong: BTreeSet<String>,
}

impl Walk<'_> {
    fn visit(&mut self, node: &IdedExpr) {
        if let Some((root, fields)) = path(&node.expr) {
            return self.name(root, &fields);
        }
        match &node.expr {
            Expr::Literal(_) => {}
            Expr::Select(select) => self.visit(&select.operand),
            Expr::Call(call) => self.call(call),
            Expr::List(list) => list.elements.iter().for_each(|element| self.visit(element)),
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.visit(&entry.key);
                        self.visit(&entry.value);
                    }
                }
            }
            Expr::Comprehension(_) => self.refuse(
                "loops over a list (all, exists, exists_one, filter, map): loops are refused, because their cost has no bound; \
                 use `in`, or move the decision into a step and read its output",
            ),
            Expr::Struct(message) => {
                let name = quote(&message.type_name);
                self.refuse(format!("makes a message of type {name}: there are no message types here"));
            }
            // Paths were seen to above.
            Expr::Ident(_) | Expr::Unspecified => self.refuse("is no complete expression"),
        }
    }

    fn call(&mut self, call: &CallExpr) {
        let name = call.func_name.as_str();
        if name == operators::ADD {
            self.reads.sums += 1;
        }
        if MACROS.contains(&name) {
            // Its arguments name the loop's own variables.
            return self.refuse(format!("calls {name}: loops are refused, because their cost has no bound"));
        }
        if name == operators::OPT_INDEX || name == operators::OPT_SELECT {
            self.refuse("uses `.?` or `[?`: write has(…) && …");
        } else if !OPERATORS.contains(&name) && !FUNCTIONS.contains(&name) {
            let known = FUNCTIONS.join(", ");
            self.refuse(format!("calls {}, which is not offered: there are {known} and has", quote(name)));
        }
        call.target.iter().for_each(|target| self.visit(target));
        call.args.iter().for_each(|argument| self.visit(argument));
    }

    /// A variable and the fields that are taken from it.
    fn name(&mut self, root: &str, fields: &[&str]) {
        self.reads.count += 1;
        match (root, fields) {
            ("input", fields) => self.reads.input.add(fields.first().copied()),
            ("steps", [step, "output", rest @ ..]) => match self.scope.steps.get(step) {
                Some(number) if self.scope.done >> number & 1 == 1 => {
                    self.reads.steps.entry(*number).or_default().add(rest.first().copied());
                }
                Some(_) => self.refuse(format!(
                    "reads the output of {step:?}, which may not be done by then: add {step:?} to this step's needs"
                )),
                None => self.unknown_step(step),
            },
            ("steps", [step, ..]) if !self.scope.steps.contains_key(step) => self.unknown_step(step),
            ("steps", _) => self.refuse("names `steps` without an output: write steps.<name>.output, with the name spelled out"),
            _ => self.refuse(format!(
                "names the unknown variable {}: there are input and steps.<name>.output; text goes in quotes",
                quote(root)
            )),
        }
    }

    fn unknown_step(&mut self, step: &str) {
        // `steps.step-1.output` is a subtraction to CEL.
        let dashed = self
            .scope
            .steps
            .keys()
            .find(|name| name.strip_prefix(step).is_some_and(|rest| rest.starts_with('-')));
        self.refuse(match dashed {
            Some(name) => format!("reads `-` in {name:?} as a minus: write steps[{name:?}].output"),
            None => format!("names the step {}, which this workflow does not have", quote(step)),
        });
    }

    fn refuse(&mut self, message: impl Into<String>) {
        self.wrong.insert(message.into());
    }
}

/// `a.b["c"]` as its root and its fields; `None` when it is not a variable with constant fields.
fn path(expr: &Expr) -> Option<(&str, Vec<&str>)> {
    let mut fields = Vec::new();
    let mut expr = expr;
    loop {
        match expr {
            Expr::Ident(root) => {
                fields.reverse();
                return Some((root, fields));
            }
            Expr::Select(select) => {
                fields.push(select.field.as_str());
                expr = &select.operand.expr;
            }
            Expr::Call(call) if call.func_name == operators::INDEX => {
                let [operand, index] = call.args.as_slice() else { return None };
                let Expr::Literal(LiteralValue::String(field)) = &index.expr else { return None };
                fields.push(field.inner());
                expr = &operand.expr;
            }
            _ => return None,
        }
    }
}

/// What kind of value it is, if that is plain to see and not a boolean.
fn never_a_boolean(expr: &Expr) -> Option<&'static str> {
    match expr {
        Expr::Literal(LiteralValue::Boolean(_)) => None,
        Expr::Literal(LiteralValue::String(_) | LiteralValue::Bytes(_)) => Some("a text"),
        Expr::Literal(LiteralValue::Null) => Some("null"),
        Expr::Literal(_) => Some("a number"),
        Expr::List(_) => Some("a list"),
        Expr::Map(_) => Some("a map"),
        Expr::Call(call) => match call.func_name.as_str() {
            "string" => Some("a text"),
            "size" | "int" | "uint" | "double" => Some("a number"),
            operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE => Some("a number"),
            operators::MODULO | operators::NEGATE => Some("a number"),
            operators::ADD => Some("a sum"),
            _ => None,
        },
        _ => None,
    }
}
