//! Which parts of `write.sql` a batch needs: an empty part costs as much as a small one.

use std::sync::{Arc, LazyLock};

use longtake_engine::lane::work::SessionWrite;

use super::batch::Batch;

const WRITE: &str = include_str!("../sql/write.sql");

/// The names of the parts that may be missing, as `write.sql` marks them.
const PARTS: [&str; 5] = ["new", "changed", "ended", "beside", "sessions"];

/// A set of parts: one bit for each of [`PARTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape(usize);

/// The statement of every shape.
static STATEMENTS: LazyLock<Vec<Arc<str>>> =
    LazyLock::new(|| (0..1 << PARTS.len()).map(|bits| assemble(WRITE, Shape(bits)).into()).collect());

impl Shape {
    /// What a batch needs.
    pub(super) fn of(batch: &Batch<'_>, sessions: &[SessionWrite]) -> Shape {
        let needed = [
            !batch.new.is_empty(),
            !batch.changed.is_empty(),
            batch.changed.iter().any(|(hot, _)| hot.write.was_open == hot.write.row.ended_at.is_some()),
            batch.has_rows_beside(),
            !sessions.is_empty(),
        ];
        Shape(needed.iter().enumerate().map(|(bit, needed)| usize::from(*needed) << bit).sum())
    }

    /// Every shape that a batch can have.
    #[cfg(test)]
    pub(crate) fn all() -> impl Iterator<Item = Shape> {
        // Only a run that is changed can end.
        (0..1 << PARTS.len()).map(Shape).filter(|shape| shape.has("changed") || !shape.has("ended"))
    }

    fn has(self, part: &str) -> bool {
        PARTS.iter().position(|name| *name == part).is_some_and(|bit| self.0 >> bit & 1 == 1)
    }

    /// Its statement.
    pub(crate) fn statement(self) -> Arc<str> {
        STATEMENTS[self.0].clone()
    }
}

/// The text without the parts that `shape` does not have. Parts may lie within parts.
fn assemble(text: &str, shape: Shape) -> String {
    let mut assembled = String::with_capacity(text.len());
    let mut within: Vec<bool> = Vec::new();
    for line in text.lines() {
        if let Some(part) = line.strip_prefix("--[") {
            within.push(shape.has(part));
        } else if line == "--]" {
            within.pop();
        } else if within.iter().all(|wanted| *wanted) && !line.starts_with("-- ") {
            assembled.push_str(line);
            assembled.push('\n');
        }
    }
    assembled
}
