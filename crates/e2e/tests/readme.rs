//! What README.md shows is what there is, and works as it stands there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use longtake_e2e::{Outcome, Process, Server, World, binary, grpcurl, run, shipped_definitions};
use serde_json::json;
use tokio::process::Command;

const TOUR: Duration = Duration::from_secs(180);

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn readme() -> String {
    std::fs::read_to_string(repository().join("README.md")).expect("README.md")
}

/// The blocks of code of one language below a heading.
fn blocks(heading: &str, language: &str) -> Vec<String> {
    let text = readme();
    let (_, section) = text.split_once(&format!("\n## {heading}\n")).expect("the heading");
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut parts = section.split("```").skip(1).step_by(2);
    let mut found = Vec::new();
    for block in parts.by_ref() {
        let (first, code) = block.split_once('\n').expect("a line that opens the block");
        if first == language {
            found.push(code.to_owned());
        }
    }
    found
}

#[test]
fn code_is_that_of_the_files() {
    let example = repository().join("crates/executor/examples/hello.rs");
    let example = std::fs::read_to_string(example).expect("the example");
    let (_, example) = example.split_once("\n\n").expect("a heading");
    assert_eq!(blocks("An executor in 30 lines", "rust"), [example]);

    let content = std::fs::read_to_string(shipped_definitions().join("content.toml")).expect("content.toml");
    let bare = content.lines().map(|line| line.split("  #").next().unwrap_or_default().trim_end());
    let bare: Vec<&str> = bare.filter(|line| !line.starts_with('#')).collect();
    assert_eq!(blocks("A workflow", "toml"), [format!("{}\n", bare.join("\n").trim())]);
}

/// The script of a block, against this server: programs are where they were built.
async fn follow(world: &World, server: &Server, script: &str) -> Outcome {
    let program = binary();
    let program = Path::new(program.as_std().get_program());
    let folders =
        [program.parent().expect("a folder").to_owned(), grpcurl().parent().expect("a folder").to_owned()];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(folders.into_iter().chain(std::env::split_paths(&path))).expect("a path");
    let script = script.replace("127.0.0.1:50051", &server.address());
    let script: Vec<&str> = script.lines().filter(|line| !line.starts_with("export PATH=")).collect();
    let mut command = Command::new("sh");
    command.args(["-e", "-c", &script.join("\n")]).current_dir(world.dir());
    command.env("PATH", path).env("LONGTAKE_SERVER", server.url());
    run(command, TOUR).await
}

#[tokio::test]
async fn the_tour_with_grpcurl_works_to_the_letter() {
    let world = World::new().await;
    let server = world.server().await;
    let queues = ["script", "audio", "video", "finalize"];
    let _executor = world.executor(&server, "all", &queues).slots(2).start();
    let mut blocks = blocks("Five minutes with grpcurl", "");
    assert_eq!(blocks.remove(0), "target/release/longtake dev\n", "what keeps the stack up");
    let said = follow(&world, &server, &blocks.join("\n")).await;
    assert_eq!(said.code, Some(0), "{}\n{}", said.out, said.err);
    for part in [
        "longtake.v1.ContentService",
        "student_query",
        "\"created\": true",
        "runEnded",
        "\"summary\"",
        "manifest\t",
    ] {
        assert!(said.out.contains(part), "{part} is not in {}\n{}", said.out, said.err);
    }
}

#[tokio::test]
async fn the_executor_works_as_it_is_shown() {
    let world = World::new().await;
    let server = world.server().await;
    let shown = blocks("An executor in 30 lines", "");
    let [commands] = shown.as_slice() else { panic!("{shown:?}") };
    let (start, submit) = commands.split_once('\n').expect("two commands");
    assert_eq!(start, "cargo run -p longtake-executor --example hello");
    let program = binary();
    let built = Path::new(program.as_std().get_program()).with_file_name("examples").join("hello");
    assert!(built.is_file(), "{} is not built: `cargo build --all-targets` builds it", built.display());
    let mut command = Command::new(built);
    command.env("LONGTAKE_SERVER", server.url());
    let _hello = Process::start("hello", command, world.dir());
    let said = follow(&world, &server, submit).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let request = longtake_proto::v1::ListRunsRequest { workflow: "add_up".to_owned(), ..Default::default() };
    let runs = server.client().runs().list_runs(request).await.expect("listed").into_inner().runs;
    let run = server.client().run(&runs[0].run_id).await;
    assert_eq!(run.steps[0].output, longtake_proto::convert::struct_from_json(json!({"sum": 55})));
}
