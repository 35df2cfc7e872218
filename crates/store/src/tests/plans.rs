//! How Postgres goes about a lane's statements: by index, however small a table was when it was last looked at.

use std::collections::BTreeMap;

use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor, PgConnection};

use super::support::Database;
use crate::lane::{self, Shape};
use crate::line::SETTINGS;
use crate::retention::plan::{Range, WIDTH};
use crate::retention::{self, extend};

/// Tables that grow with the runs.
const LARGE: [&str; 9] =
    ["run", "run_key", "open_run", "run_label", "history", "checkpoint", "progress", "ready", "timer"];

/// The types of a statement's parameters, as it says them itself.
fn types(statement: &str, types: &mut BTreeMap<usize, String>) {
    for part in statement.split('$').skip(1) {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = part.split_at(digits);
        let Some(name) = rest.strip_prefix("::") else { continue };
        let name: String =
            name.chars().take_while(|c| c.is_ascii_alphanumeric() || "_[]".contains(*c)).collect();
        types.entry(number.parse().expect("parameters are numbers")).or_insert(name);
    }
}

/// The generic plan of a statement.
async fn plan(connection: &mut PgConnection, statement: &str, types: &BTreeMap<usize, String>) -> Value {
    let names: Vec<&str> = types.values().map(String::as_str).collect();
    let nothing = vec!["null"; names.len()];
    connection
        .execute(AssertSqlSafe(format!("prepare s({}) as {statement}", names.join(","))))
        .await
        .expect("it is prepared");
    let explain = format!("explain (format json) execute s({})", nothing.join(","));
    let plan = connection.fetch_one(AssertSqlSafe(explain)).await.expect("it is planned");
    connection.execute("deallocate s").await.expect("it is forgotten");
    sqlx::Row::get::<sqlx::types::Json<Value>, _>(&plan, 0).0
}

/// Whether it holds a range of history.
fn is_partition(table: &str) -> bool {
    table.strip_prefix("history_").is_some_and(|range| range.parse::<i64>().is_ok())
}

/// The first column of each index.
type Leading = BTreeMap<String, String>;

async fn leading(connection: &mut PgConnection) -> Leading {
    const FIRST: &str = "select indexrelid::regclass::text, attname::text from pg_index
        join pg_attribute on attrelid = indrelid and attnum = indkey[0]";
    let rows: Vec<(String, String)> = sqlx::query_as(FIRST).fetch_all(connection).await.expect("indexes");
    rows.into_iter().collect()
}

/// What is wrong with a plan.
fn problems(node: &Value, leading: &Leading, problems: &mut Vec<String>) {
    match node {
        Value::Array(nodes) => nodes.iter().for_each(|node| self::problems(node, leading, problems)),
        Value::Object(fields) => {
            let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
            let (kind, table) = (text("Node Type"), text("Relation Name"));
            let by_key = fields.contains_key("Index Cond");
            let is_large = LARGE.contains(&table) || is_partition(table);
            let walk = kind.ends_with("Scan") && is_large && !by_key;
            // A condition on later columns only is looked for through all of the index.
            let index = text("Index Name");
            let from_the_side = by_key
                && leading.get(index).is_some_and(|first| !text("Index Cond").contains(&format!("{first} ")));
            if walk || from_the_side || kind == "Hash Join" || kind == "Merge Join" {
                problems.push(format!("{kind} {table} {index}"));
            }
            fields.values().for_each(|node| self::problems(node, leading, problems));
        }
        _ => {}
    }
}

async fn check(connection: &mut PgConnection, when: &str) {
    let shapes: Vec<(String, String)> =
        Shape::all().map(|shape| (format!("write {shape:?}"), shape.statement().to_string())).collect();
    let mut write = BTreeMap::new();
    shapes.iter().for_each(|(_, statement)| types(statement, &mut write));
    // The replica is only named where sessions are renewed.
    assert_eq!(write.keys().copied().collect::<Vec<_>>(), (1..=write.len()).collect::<Vec<_>>());
    let others = [
        ("lock", lane::LOCK),
        ("load", lane::LOAD),
        ("end sessions", lane::END_SESSIONS),
        ("leases", lane::LEASES),
        ("forget sessions", lane::FORGET_SESSIONS),
        ("housekeep", lane::HOUSEKEEP),
    ];
    let others = others.map(|(name, statement)| (name.to_owned(), statement.to_owned()));
    let leading = leading(connection).await;
    for (name, statement) in shapes.iter().chain(&others) {
        let mut own = BTreeMap::new();
        types(statement, &mut own);
        let types = if name.starts_with("write") { &write } else { &own };
        let mut found = Vec::new();
        problems(&plan(connection, statement, types).await, &leading, &mut found);
        assert!(found.is_empty(), "{name}, {when}: {found:?}");
    }
}

/// The plan that lanes must not have is seen when it is there: the way to a list's rows through all of a table.
async fn check_the_check(connection: &mut PgConnection) {
    let statement =
        "delete from ready using unnest($1::bigint[]) as r (run_no) where ready.run_no = r.run_no";
    let mut own = BTreeMap::new();
    types(statement, &mut own);
    let mut found = Vec::new();
    problems(&plan(connection, statement, &own).await, &leading(connection).await, &mut found);
    assert_eq!(found.len(), 1, "{found:?}");
}

/// So many runs under way, and everything that belongs to them.
async fn fill(connection: &mut PgConnection, runs: i64) {
    let statements = format!(
        "insert into run_key select gen_random_uuid(), n, 'default', '\\x00' from generate_series(1, {runs}) as n;
         insert into run select run_no, run_id, now(), 1, 0, tenant, 'RUNNING', null, 0, '{{1,0}}', 2, 0, '{{2,0}}',
            array[gen_random_uuid()] from run_key;
         insert into open_run select run_no from run;
         insert into run_label select 'key', (run_no % 100)::text, run_no from run;
         insert into history select run_no, event, now(), '\\x00' from run, generate_series(1, 4) as event;
         insert into checkpoint select run_no, 0, 1, 1, 1, 1, now(), '{{}}', '[]' from run;
         insert into progress select run_no, 0, 1, 1, 1, '', now() from run;
         insert into ready select run_no, 1, 'queue' || run_no % 4, 0, now() from run;
         insert into timer select run_no, 2, -1, now() + run_no * interval '1 s' from run"
    );
    connection.execute(AssertSqlSafe(statements)).await.expect("rows are made");
}

#[tokio::test]
async fn lanes_go_by_index_at_any_size() {
    let database = Database::new().await;
    let mut connection = database.connect().await;
    connection.execute(SETTINGS).await.unwrap();
    connection.execute("set statement_timeout = 0").await.unwrap();
    check(&mut connection, "empty").await;
    connection.execute("analyze").await.unwrap();
    check(&mut connection, "empty and analysed").await;
    for runs in [1, 10, 200, 50_000] {
        let tables = LARGE.join(", ");
        connection.execute(AssertSqlSafe(format!("truncate {tables}"))).await.unwrap();
        fill(&mut connection, runs).await;
        check(&mut connection, &format!("{runs} runs")).await;
        connection.execute("vacuum analyze").await.unwrap();
        check(&mut connection, &format!("{runs} runs, analysed")).await;
        if runs == 1 {
            check_the_check(&mut connection).await;
        }
        if runs == 200 {
            extend_to(&database, 40).await;
        }
    }
    // As while a dump is made: all rows are dead, none may be cleaned up, and statistics know of none.
    let mut dump = database.connect().await;
    dump.execute("begin isolation level repeatable read; select count(*) from ready").await.unwrap();
    for table in LARGE {
        connection.execute(AssertSqlSafe(format!("delete from {table}"))).await.unwrap();
    }
    connection.execute("analyze").await.unwrap();
    check(&mut connection, "only dead rows, analysed").await;
}

/// So many partitions of history.
pub(super) async fn extend_to(database: &Database, ranges: usize) {
    let mut connection = database.connect().await;
    let (no, ends_before) =
        ("select max(range_no) from history_range", "select max(ends_before) from history_range");
    for _ in usize::try_from(database.count("select count(*) from history_range").await).unwrap()..ranges {
        let (no, starts_at) = (database.count(no).await + 1, database.count(ends_before).await);
        let range = Range { no, starts_at, ends_before: starts_at + WIDTH, began_at: None, thinned: false };
        extend(&mut connection, &range).await.expect("a range is made");
    }
}

/// So does what removes runs: by key, and through all runs only in the order of their numbers.
#[tokio::test]
async fn removing_goes_by_index_at_any_size() {
    let database = Database::new().await;
    let mut connection = database.connect().await;
    connection.execute(retention::SETTINGS).await.unwrap();
    // Filling tables may meet an autovacuum, which is to be waited for.
    connection.execute("set lock_timeout = 0").await.unwrap();
    extend_to(&database, 8).await;
    connection.execute("create table history_left (like history including all)").await.unwrap();
    let leading = leading(&mut connection).await;
    for runs in [1, 10, 200, 50_000] {
        let tables = LARGE.join(", ");
        connection.execute(AssertSqlSafe(format!("truncate {tables}"))).await.unwrap();
        fill(&mut connection, runs).await;
        for mode in ["force_generic_plan", "force_custom_plan"] {
            let set = format!("set plan_cache_mode = {mode}");
            connection.execute(AssertSqlSafe(set)).await.unwrap();
            for (name, statement) in [
                ("remove", retention::REMOVE),
                ("copy", retention::thin::THIN_COPY),
                ("left", retention::thin::LEFT),
            ] {
                let mut own = BTreeMap::new();
                types(statement, &mut own);
                let mut found = Vec::new();
                problems(&plan(&mut connection, statement, &own).await, &leading, &mut found);
                assert!(found.is_empty(), "{name}, {runs} runs, {mode}: {found:?}");
            }
        }
        connection.execute("vacuum analyze").await.unwrap();
    }
}
