//! `longtake dev` as a process: what it is told is so, what dies is started again, and one Ctrl-C stops all of it.

use std::path::Path;
use std::time::Duration;

use longtake_e2e::{
    Client, Process, Signal, World, binary, definitions, eventually, free_port, http_status,
    processes_that_name,
};
use longtake_proto::v1;
use rustix::process::{Pid, kill_process};

const START: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(30);
const ONLY: &str = "format = 1\nname = \"only\"\n\n[[step]]\nname = \"one\"\n";

/// The processes that a part had so far, as `dev` tells them.
fn lives(said: &str, part: &str) -> Vec<u32> {
    let told =
        said.lines().filter_map(|line| line.strip_prefix(part)?.strip_prefix(" is process ")?.parse().ok());
    told.collect()
}

/// The command line of a process that runs. It has none for a moment when it has just been started.
async fn line_of(pid: u32, folder: &Path) -> String {
    eventually(SOON, async || {
        let running = processes_that_name(folder);
        let line = running.into_iter().find(|(running, _)| *running == pid);
        line.map(|(_, line)| line).ok_or_else(|| format!("process {pid} is not among those that run"))
    })
    .await
}

#[tokio::test]
async fn the_stack_is_as_it_was_told_restarts_what_dies_and_leaves_nothing() {
    let world = World::without_database();
    let (grpc, http) = (free_port(), free_port());
    let workflows = definitions(world.folder("definitions"), &[("only", ONLY)]);
    let data = world.dir().join("data");
    let mut command = binary();
    command.args(["dev", "--grpc-listen", &format!("127.0.0.1:{grpc}")]);
    command.args(["--http-listen", &format!("127.0.0.1:{http}"), "--slots", "3"]);
    command.arg("--workflows").arg(&workflows).arg("--data-dir").arg(&data).current_dir(world.dir());
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let mut dev = Process::start("dev", command, world.dir());
    eventually(START, async || {
        assert!(dev.end().is_none(), "it ended: {}", dev.said());
        match http_status(http, "/readyz").await {
            Ok(200) if lives(&dev.said(), "finalize").len() == 1 => Ok(()),
            other => Err(format!("/readyz: {other:?}")),
        }
    })
    .await;

    let said = dev.said();
    for hint in ["submit", "list"] {
        let hint = format!("{program} --server 127.0.0.1:{grpc} {hint}");
        assert!(said.contains(&hint), "{hint} is not in {said}");
    }
    let client = Client::new(&format!("http://127.0.0.1:{grpc}"));
    let listed = client.workflows().list_workflows(v1::ListWorkflowsRequest::default()).await;
    let listed = listed.expect("listed").into_inner().workflows;
    assert_eq!(listed.iter().map(|workflow| workflow.name.as_str()).collect::<Vec<_>>(), ["only"]);
    for queue in ["script", "audio", "video", "finalize"] {
        let line = line_of(*lives(&said, queue).last().expect("it was started"), world.dir()).await;
        for part in [&format!("--queues={queue}"), "--slots=3", &format!("--server=http://127.0.0.1:{grpc}")]
        {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        assert!(line.contains(&format!("--artifacts={}", data.join("artifacts").display())), "{line}");
    }

    let killed = *lives(&said, "video").last().expect("it was started");
    Signal::Kill.send(killed);
    let next = eventually(SOON, async || {
        let said = dev.said();
        match lives(&said, "video").as_slice() {
            [_, next] if said.contains("video died and is started again") => Ok(*next),
            lives => Err(format!("{lives:?}")),
        }
    })
    .await;
    assert_ne!(next, killed);
    line_of(next, world.dir()).await;

    let pid = i32::try_from(dev.pid()).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    let ended = dev.ended(Duration::from_secs(60)).await;
    assert_eq!(ended.code(), Some(0), "{}", dev.said());
    let left = processes_that_name(world.dir());
    assert!(left.is_empty(), "still running: {left:?}");
}
