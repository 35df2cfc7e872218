//! What the runs of a chaos run are: a fan-out that joins again, with a long step that checkpoints and one that may be skipped.

use crate::checker::{DefinedStep, Definition};

/// Limits as tight as they go, so that what is lost is found within seconds; budgets that no fault exhausts, so that a run that
/// ends as FAILED does so because a step said so.
pub const RELAY: &str = r#"
format = 1
name = "relay"

[[step]]
name = "draft"
queue = "quick"
heartbeat_timeout = "3s"
retry = { initial_delay = "20ms", max_delay = "500ms" }
budgets = { failures = 1000, losses = 1000, yields = 1000 }
price_usd = "0.001"

[[step]]
name = "left"
queue = "long"
needs = ["draft"]
heartbeat_timeout = "3s"
retry = { initial_delay = "20ms", max_delay = "500ms" }
budgets = { failures = 1000, losses = 1000, yields = 1000 }
price_usd = "0.01"

[[step]]
name = "right"
queue = "quick"
needs = ["draft"]
when = "input.right"
heartbeat_timeout = "3s"
retry = { initial_delay = "20ms", max_delay = "500ms" }
budgets = { failures = 1000, losses = 1000, yields = 1000 }
price_usd = "0.002"

[[step]]
name = "join"
queue = "quick"
needs = ["left", "right"]
heartbeat_timeout = "3s"
retry = { initial_delay = "20ms", max_delay = "500ms" }
budgets = { failures = 1000, losses = 1000, yields = 1000 }
price_usd = "0.001"
"#;

/// The same for the checker, written down a second time: it must not learn the rules from the code that it checks.
pub fn definitions() -> Vec<Definition> {
    let step = |name: &str, needs: &[&str], price| DefinedStep {
        name: name.to_owned(),
        needs: needs.iter().copied().map(str::to_owned).collect(),
        price,
    };
    let steps = vec![
        step("draft", &[], 1_000_000),
        step("left", &["draft"], 10_000_000),
        step("right", &["draft"], 2_000_000),
        step("join", &["left", "right"], 1_000_000),
    ];
    vec![Definition { name: "relay".to_owned(), steps }]
}
