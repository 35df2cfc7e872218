//! The command line from end to end: what it prints for programs, and the exit codes that scripts can use.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use longtake_e2e::{Outcome, Server, World, binary, processes_that_name, run, shipped_definitions};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const CALL: Duration = Duration::from_secs(30);
const RUN: Duration = Duration::from_secs(120);
const QUERY: &str = "How do plants turn light into sugar?";

/// Runs the program against `server`.
async fn cli(server: &Server, arguments: &[&str]) -> Outcome {
    longtake(&[&["--server", &server.url()], arguments].concat()).await
}

async fn longtake(arguments: &[&str]) -> Outcome {
    let mut command = binary();
    command.args(arguments);
    run(command, RUN).await
}

/// What a successful call printed, as JSON.
async fn json(server: &Server, arguments: &[&str]) -> Value {
    let outcome = cli(server, &[&["--json"], arguments].concat()).await;
    assert_eq!(outcome.code, Some(0), "{arguments:?}: {outcome:?}");
    serde_json::from_str(&outcome.out).unwrap_or_else(|error| panic!("{error}: {}", outcome.out))
}

#[tokio::test]
async fn a_request_is_submitted_and_waited_for() {
    let world = World::new().await;
    let server = world.server().await;
    let _executor = world.executor(&server, "all", &["script", "audio", "video", "finalize"]).start();
    let notes = world.dir().join("notes.md");
    std::fs::write(&notes, "# Light\n\nA leaf drinks light.\n").expect("a file");

    let submit = ["submit", QUERY, "--modality", "text", "--file", notes.to_str().expect("a path"), "--wait"];
    let waited = cli(&server, &submit).await;
    assert_eq!(waited.code, Some(0), "{waited:?}");
    for part in ["script\t", "narration\t", "manifest\t", "$0.017", "$0.183"] {
        assert!(waited.out.contains(part), "{part} is not in {waited:?}");
    }
    let made =
        waited.out.lines().find_map(|line| line.strip_prefix("script\t")).expect("where the script is");
    assert!(Path::new(made).is_file(), "{made} is a path that can be opened");

    let waited = json(&server, &submit).await;
    let content = &waited["content"];
    assert_eq!(
        (&content["state"], &content["saved"]["nanoUsd"]),
        (&"STATE_SUCCEEDED".into(), &"183000000".into()),
        "{waited}"
    );
    let run_id = content["runId"].as_str().expect("an id");

    let watched = cli(&server, &["watch", run_id, "--json"]).await;
    assert_eq!(watched.code, Some(0), "{watched:?}");
    let numbers: Vec<String> = watched
        .out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("one document a line"))
        .filter_map(|update| update["event"]["number"].as_str().map(str::to_owned))
        .collect();
    assert!(
        numbers.iter().map(String::as_str).eq((1..=numbers.len()).map(|n| n.to_string()).collect::<Vec<_>>()),
        "{numbers:?}"
    );
    let watched = cli(&server, &["watch", run_id]).await;
    assert_eq!(
        (watched.code, watched.out.lines().count()),
        (Some(0), numbers.len()),
        "a line an event: {watched:?}"
    );
    let events = json(&server, &["events", run_id]).await;
    assert_eq!(events["events"].as_array().map(Vec::len), Some(numbers.len()));
    let explained = cli(&server, &["explain", run_id]).await;
    assert!(explained.code == Some(0) && explained.out.contains("succeeded"), "{explained:?}");
}

#[tokio::test]
async fn a_run_is_looked_at_and_operated() {
    let world = World::new().await;
    let server = world.server().await;
    let submitted = cli(&server, &["submit", QUERY, "--label", "class=7b", "--priority", "-3"]).await;
    assert_eq!(submitted.code, Some(0), "{submitted:?}");
    let run_id = submitted.out.trim();
    assert_eq!(submitted.out.lines().count(), 1, "the id alone, for scripts");

    let got = json(&server, &["get", run_id]).await;
    let run = &got["run"];
    assert_eq!(
        (&run["runId"], &run["state"], &run["priority"]),
        (&run_id.into(), &"STATE_RUNNING".into(), &(-3).into())
    );
    assert_eq!(
        (&run["labels"]["class"], &run["input"]["student_query"]),
        (&"7b".into(), &QUERY.into()),
        "{run}"
    );
    let got = cli(&server, &["get", run_id]).await;
    assert!(
        got.code == Some(0) && got.out.contains("RUNNING") && got.out.contains("script\tREADY"),
        "{got:?}"
    );

    let listed = cli(&server, &["list", "--label", "class=7b", "--state", "running"]).await;
    let rows: Vec<&str> = listed.out.lines().collect();
    assert!(rows.len() == 1 && rows[0].starts_with(&format!("{run_id}\tcontent\tRUNNING")), "{listed:?}");
    assert_eq!(cli(&server, &["list", "--label", "class=8a"]).await.out, "");
    let listed = json(&server, &["list", "--limit", "1"]).await;
    assert_eq!(listed["runs"][0]["runId"], run_id);

    let explained = cli(&server, &["explain", run_id]).await;
    assert!(explained.out.contains("longtake executor --queues script"), "what to do is said: {explained:?}");

    for (arguments, shown) in [
        (["pause", run_id], "PAUSED"),
        (["resume", run_id], "RUNNING"),
        (["cancel", run_id], "CANCELLED"),
        (["retry", run_id], "RUNNING"),
        (["cancel", run_id], "CANCELLED"),
    ] {
        let operated = cli(&server, &arguments).await;
        assert_eq!(
            (operated.code, operated.out.trim()),
            (Some(0), &*format!("{run_id}  {shown}")),
            "{arguments:?}: {operated:?}"
        );
    }
    let watched = cli(&server, &["watch", run_id]).await;
    assert_eq!(watched.code, Some(1), "a run that did not succeed: {watched:?}");
    let refused = cli(&server, &["resume", run_id]).await;
    assert!(refused.code == Some(5) && refused.err.contains("RUN_STATE"), "{refused:?}");

    let workflows = cli(&server, &["workflows", "list"]).await;
    assert!(workflows.out.lines().any(|line| line.starts_with("content\t")), "{workflows:?}");
    let source = cli(&server, &["workflows", "get", "content"]).await;
    let shipped = std::fs::read_to_string(shipped_definitions().join("content.toml")).expect("content.toml");
    assert_eq!(source.out.trim(), shipped.trim());
    let noop = json(&server, &["submit", "--workflow", "noop", "--input", r#"{"a": 1}"#]).await;
    assert_eq!((&noop["created"], &noop["run"]["workflow"]), (&true.into(), &"noop".into()), "{noop}");
}

#[tokio::test]
async fn exit_codes_tell_scripts_what_happened() {
    let world = World::new().await;
    let server = world.server().await;
    let unknown = uuid::Uuid::new_v4().to_string();
    let empty = world.dir().join("empty.md");
    std::fs::write(&empty, " \n\n").expect("a file");
    let empty = empty.to_str().expect("a path");
    let cases: [(&[&str], i32, &str); 13] = [
        (&["get", &unknown], 3, "RUN_UNKNOWN"),
        (&["watch", &unknown], 3, "RUN_UNKNOWN"),
        (&["cancel", &unknown], 3, "RUN_UNKNOWN"),
        (&["workflows", "get", "nope"], 3, "WORKFLOW_UNKNOWN"),
        (&["submit", "why"], 5, "student_query"),
        (&["submit", QUERY, "--modality", "images"], 5, "MODALITY_NOT_PRODUCED"),
        (&["submit"], 2, "nothing to explain"),
        (&["submit", "--file", empty], 5, "empty.md is empty"),
        (&["submit", QUERY, "--file", empty], 5, "empty.md is empty"),
        (&["submit", "--file", "-"], 5, "standard input is empty"),
        (&["run", "--file", empty], 5, "empty.md is empty"),
        (&["get", "17"], 2, "17"),
        (&["get", &unknown, "--colour"], 2, "--colour"),
    ];
    for (arguments, code, said) in cases {
        let outcome = cli(&server, arguments).await;
        assert_eq!(outcome.code, Some(code), "{arguments:?}: {outcome:?}");
        assert!(outcome.err.contains(said) && outcome.out.is_empty(), "{arguments:?}: {outcome:?}");
    }
    let request_id = uuid::Uuid::new_v4().to_string();
    for (query, code) in [(QUERY, 0), (QUERY, 0), ("Something else?", 5)] {
        let outcome = cli(&server, &["submit", query, "--request-id", &request_id]).await;
        assert_eq!(outcome.code, Some(code), "{query}: {outcome:?}");
    }
    let nobody = longtake(&["--server", "http://127.0.0.1:1", "list"]).await;
    assert!(nobody.code == Some(4) && nobody.err.contains("127.0.0.1:1"), "{nobody:?}");
    let help = longtake(&["--help"]).await;
    assert!(help.code == Some(0) && help.out.contains("Exit codes"), "{help:?}");
}

#[tokio::test]
async fn a_definition_is_validated_without_a_server() {
    let world = World::without_database();
    let file = world.dir().join("five.toml");
    let five = "format = 2\nname = \"five\"\n\n[[step]]\nname = \"one\"\nneeds = [\"zero\"]\nheartbeat_timeout = \"soon\"\n\n\
                [[step]]\nname = \"two\"\ncolour = \"red\"\nwhen = \"input. ==\"\n";
    std::fs::write(&file, five).expect("a file");
    let path = file.to_str().expect("a path");
    let outcome = longtake(&["workflows", "validate", path]).await;
    assert_eq!(outcome.code, Some(5), "{outcome:?}");
    let lines: Vec<&str> = outcome.out.lines().collect();
    assert_eq!(lines.len(), 5, "{outcome:?}");
    let expected = [
        "line 1: format",
        "line 6: step.one.needs",
        "line 7: step.one.heartbeat_timeout",
        "line 11: step.two.colour",
        "line 12: step.two.when",
    ];
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(&format!("{path}: {expected}")), "{line}");
    }
    let shipped = shipped_definitions().join("content.toml");
    let outcome = longtake(&["workflows", "validate", shipped.to_str().expect("a path")]).await;
    assert!(outcome.code == Some(0) && outcome.out.contains("workflow content with 4 steps"), "{outcome:?}");
    let outcome =
        longtake(&["workflows", "validate", shipped.to_str().expect("a path"), path, "--json"]).await;
    let said: Value = serde_json::from_str(&outcome.out).expect("JSON");
    assert_eq!(outcome.code, Some(5), "one of them is wrong");
    assert_eq!(said["files"][1]["problems"].as_array().map(Vec::len), Some(5), "{said}");
}

#[tokio::test]
async fn an_executor_says_what_its_machine_lacks() {
    let world = World::new().await;
    let artifacts = format!("file://{}", world.dir().join("artifacts").display());
    let check = async |ffmpeg: Option<&str>, queues: &str| {
        let mut command = binary();
        command.args(["executor", "--check", "--queues", queues, "--artifacts", &artifacts]);
        command.envs(ffmpeg.map(|ffmpeg| ("LONGTAKE_FFMPEG", ffmpeg)));
        run(command, CALL).await
    };
    let whole = check(None, "script,audio,video,finalize").await;
    assert_eq!(whole.code, Some(0), "{whole:?}");
    let lacking = check(Some("/nonexistent"), "video").await;
    assert_eq!(lacking.code, Some(1), "{lacking:?}");
    for part in ["ffmpeg", "/nonexistent", "LONGTAKE_FFMPEG", "apt-get install"] {
        assert!(lacking.out.contains(part), "{part} is not in {lacking:?}");
    }
    let needless = check(Some("/nonexistent"), "script").await;
    assert_eq!(needless.code, Some(0), "the script step needs no ffmpeg: {needless:?}");
    assert!(world.dir().read_dir().expect("the folder").next().is_none(), "a check leaves nothing behind");
    let unknown = longtake(&["executor", "--queues", "nope"]).await;
    assert!(unknown.code == Some(2) && unknown.err.contains("nope"), "{unknown:?}");

    // One that is started all the same says so first.
    let server = world.server().await;
    let started = world.executor(&server, "poor", &["video"]).env("LONGTAKE_FFMPEG", "/nonexistent").start();
    longtake_e2e::eventually(CALL, async || {
        let said = started.said();
        if said.contains("/nonexistent") && said.contains("apt-get install") { Ok(()) } else { Err(said) }
    })
    .await;
}

#[tokio::test]
async fn a_check_writes_to_the_storage_before_it_says_that_it_works() {
    let check = async |bucket: &Bucket| {
        let mut command = binary();
        command.args(["executor", "--check", "--queues", "script", "--artifacts", "s3://films/some/prefix"]);
        command.env("AWS_ENDPOINT", format!("http://{}", bucket.address)).env("AWS_ALLOW_HTTP", "true");
        command.env("AWS_ACCESS_KEY_ID", "x").env("AWS_SECRET_ACCESS_KEY", "x").env("AWS_REGION", "here");
        run(command, CALL).await
    };
    let open = Bucket::serve("200 OK").await;
    let checked = check(&open).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let asked = open.asked();
    let methods: Vec<&str> = asked.iter().filter_map(|request| request.split(' ').next()).collect();
    // POST deletes, of S3's ways the one that object_store takes.
    assert_eq!(methods, ["PUT", "GET", "POST"], "{asked:?}");
    assert!(asked[2].starts_with("POST /films?delete"), "{asked:?}");
    assert!(asked.iter().all(|request| request.contains("some/prefix/longtake-check-")), "{asked:?}");
    let closed = Bucket::serve("403 Forbidden").await;
    let checked = check(&closed).await;
    assert_eq!(checked.code, Some(1), "{checked:?}");
    assert!(checked.out.contains("MISSING") && checked.out.contains("s3://films/some/prefix"), "{checked:?}");
}

/// As much of S3 as a check speaks to: every write has one answer, and is read back.
struct Bucket {
    address: std::net::SocketAddr,
    /// Each request as it came.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Bucket {
    async fn serve(answer_to_writes: &'static str) -> Bucket {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = asked.clone();
        tokio::spawn(async move {
            let mut stored = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let request = read_request(&mut stream).await;
                let (head, body) = request.split_once("\r\n\r\n").unwrap_or_default();
                let line = head.lines().next().unwrap_or_default().to_owned();
                let (status, body) = match line.split(' ').next() {
                    Some("PUT") => {
                        stored = body.as_bytes().to_vec();
                        (answer_to_writes, Vec::new())
                    }
                    Some("GET") => ("200 OK", stored.clone()),
                    // All that it asks for is gone.
                    _ => (
                        "200 OK",
                        body.replace("<Object>", "<Deleted>").replace("</Object>", "</Deleted>").into_bytes(),
                    ),
                };
                noted.lock().expect("no panic").push(request);
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"1\"\r\n\
                     Last-Modified: Wed, 21 Oct 2026 07:28:00 GMT\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                // Whoever asked may have gone.
                let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
            }
        });
        Bucket { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

/// A request with its whole body.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return String::from_utf8_lossy(&bytes).into_owned();
            }
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return String::from_utf8_lossy(&bytes).into_owned();
        }
    }
}

#[tokio::test]
async fn a_schema_goes_up_and_down_and_a_server_needs_one() {
    let world = World::new().await;
    let url = world.database().url();
    let migrate = ["migrate", "--database-url", url];
    for arguments in [&migrate[..], &migrate[..], &[&migrate[..], &["--down-to", "0"]].concat(), &migrate[..]]
    {
        let outcome = longtake(arguments).await;
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
    }
    let status = longtake(&[&migrate[..], &["--status", "--json"]].concat()).await;
    let said: Value = serde_json::from_str(&status.out).expect("JSON");
    let version = said["version"].as_i64().expect("a number");
    assert!(status.code == Some(0) && version >= 1 && said["newest"] == version, "{status:?}");
    assert!(said["oldestBinary"].is_string() && said["binary"].is_string(), "{said}");
    let status = longtake(&[&migrate[..], &["--status"]].concat()).await;
    assert!(status.out.contains(&format!("version\t{version}\n")), "{status:?}");
    let up = longtake(&[&migrate[..], &["--down-to", &(version + 1).to_string()]].concat()).await;
    assert_eq!(up.code, Some(5), "{up:?}");
    assert!(up.err.contains(&format!("at version {version}")) && !up.err.contains("is down to"), "{up:?}");
    let down = longtake(&[&migrate[..], &["--down-to", "0"]].concat()).await;
    assert!(down.code == Some(0) && down.err.contains("is down to version 0."), "{down:?}");
    let status = longtake(&[&migrate[..], &["--status"]].concat()).await;
    assert!(status.code == Some(0) && status.out.contains("there is no schema"), "{status:?}");
    let definitions = shipped_definitions();
    let definitions = definitions.to_str().expect("a path");
    let serve = ["serve", "--grpc-listen", "127.0.0.1:0", "--http-listen", "off", "--workflows"];
    let empty = longtake(&[&serve[..], &[definitions, "--database-url", url, "--no-migrate"]].concat()).await;
    assert!(empty.code != Some(0) && empty.err.contains("migrations"), "{empty:?}");
    let nowhere = "postgresql://nobody@127.0.0.1:1/none";
    let unreachable = longtake(&[&serve[..], &[definitions, "--database-url", nowhere]].concat()).await;
    assert_eq!(unreachable.code, Some(4), "{unreachable:?}");
    let unnamed = longtake(&[&serve[..], &[definitions]].concat()).await;
    assert_eq!(unnamed.code, Some(2), "{unnamed:?}");
    let folder =
        longtake_e2e::definitions(world.folder("bad"), &[("bad", "format = 1\nname = 7\nsteps = []\n")]);
    let folder = folder.to_str().expect("a path");
    let refused = longtake(&[&serve[..], &[folder, "--database-url", url]].concat()).await;
    assert_ne!(refused.code, Some(0));
    for part in ["bad.toml", "line 2: name", "line 3: steps"] {
        assert!(refused.err.contains(part), "{part} is not in {refused:?}");
    }
}

#[tokio::test]
async fn switches_are_read_from_the_environment_as_people_write_them() {
    let world = World::new().await;
    let set = async |name: &str, value: &str, arguments: &[&str]| {
        let mut command = binary();
        command.args(arguments).env(name, value);
        run(command, CALL).await
    };
    let shipped = shipped_definitions().join("content.toml");
    let validate = ["workflows", "validate", shipped.to_str().expect("a path")];
    // A server that stops at its definitions, before or after it has looked at the schema.
    let bad = longtake_e2e::definitions(world.folder("bad"), &[("bad", "format = 1\n")]);
    let listen = ["serve", "--grpc-listen", "127.0.0.1:0", "--http-listen", "off", "--workflows"];
    let serve =
        [&listen[..], &[bad.to_str().expect("a path"), "--database-url", world.database().url()]].concat();
    for value in ["1", "true", "yes", "on", "TRUE"] {
        let json = set("LONGTAKE_JSON", value, &validate).await;
        assert!(json.code == Some(0) && json.out.starts_with('{'), "{value}: {json:?}");
        let unready = set("LONGTAKE_NO_MIGRATE", value, &serve).await;
        assert!(unready.err.contains("migrations"), "{value}: {unready:?}");
    }
    for value in ["0", "false", "no", "off", "OFF", ""] {
        let text = set("LONGTAKE_JSON", value, &validate).await;
        assert!(text.code == Some(0) && text.out.contains("workflow content"), "{value}: {text:?}");
        let migrated = set("LONGTAKE_NO_MIGRATE", value, &serve).await;
        assert!(migrated.err.contains("bad.toml"), "{value}: {migrated:?}");
    }
}

/// What `bin/run` calls: everything from nothing, and nothing left behind.
#[tokio::test]
async fn one_command_makes_content_on_this_machine_and_stops_everything() {
    let world = World::without_database();
    let data = world.folder("data");
    let make = async |arguments: &[&str]| {
        let mut command = binary();
        command.arg("run").args(arguments).arg("--data-dir").arg(&data);
        command.env("LONGTAKE_WORDS_PER_MINUTE", "450").current_dir(world.dir());
        run(command, RUN).await
    };
    let first = make(&[QUERY, "--modality", "text"]).await;
    assert_eq!(first.code, Some(0), "{first:?}");
    for part in ["script\t", "narration\t", "manifest\t", "$0.017", "$0.183"] {
        assert!(first.out.contains(part), "{part} is not in {first:?}");
    }
    let notes = world.dir().join("notes.md");
    std::fs::write(&notes, "# Light\n\nA leaf drinks light.\n").expect("a file");
    let second = make(&["--file", notes.to_str().expect("a path")]).await;
    assert_eq!(second.code, Some(0), "{second:?}");
    let video = second.out.lines().find_map(|line| line.strip_prefix("video\t")).expect("where the video is");
    assert!(Path::new(video).is_file() && video.ends_with(".mp4"), "{video}");
    let left = processes_that_name(&data);
    assert!(left.is_empty(), "still running: {left:?}");
}
