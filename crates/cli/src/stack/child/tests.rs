use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(20);

/// A shell in place of this program.
fn shell(script: &str, log: LogTo, stop_timeout: Duration) -> Child {
    let arguments = vec!["-c".to_owned(), script.to_owned()];
    Child { program: "/bin/sh".into(), ..Child::new("part", arguments, log, stop_timeout).unwrap() }
}

struct Supervised {
    stop: CancellationToken,
    now: CancellationToken,
    notices: UnboundedReceiver<Notice>,
    task: tokio::task::JoinHandle<()>,
}

fn supervise(child: Child) -> Supervised {
    let (tell, notices) = mpsc::unbounded_channel();
    let (stop, now) = (CancellationToken::new(), CancellationToken::new());
    let task = tokio::spawn(child.supervise(stop.clone(), now.clone(), tell));
    Supervised { stop, now, notices, task }
}

impl Supervised {
    async fn next(&mut self) -> Notice {
        timeout(SOON, self.notices.recv()).await.expect("in time").expect("somebody supervises")
    }

    /// The next line that it logs.
    async fn line(&mut self) -> String {
        loop {
            match self.next().await {
                Notice::Logged { line, .. } => return line,
                Notice::Started { .. } => {}
                Notice::Restarting { why, .. } => panic!("died: {why}"),
            }
        }
    }

    async fn ended(self) {
        timeout(SOON, self.task).await.expect("in time").expect("no panic");
    }
}

#[tokio::test]
async fn a_part_that_dies_is_started_again() {
    let mut part = supervise(shell("echo hello >&2; exit 3", LogTo::Notices, SOON));
    for in_row in 1..=2 {
        assert!(matches!(part.next().await, Notice::Started { .. }));
        assert_eq!(part.next().await, Notice::Logged { part: "part".into(), line: "hello".into() });
        let Notice::Restarting { why, in_row: counted, .. } = part.next().await else { panic!("it died") };
        assert_eq!((why.as_str(), counted), ("exit status: 3", in_row));
    }
    part.stop.cancel();
    part.ended().await;
}

#[tokio::test]
async fn a_part_is_stopped_by_the_end_of_its_input() {
    let script = "echo up >&2; cat >/dev/null; echo drained >&2";
    let mut part = supervise(shell(script, LogTo::Notices, SOON));
    assert_eq!(part.line().await, "up");
    part.stop.cancel();
    assert_eq!(part.line().await, "drained");
    part.ended().await;
}

#[tokio::test]
async fn a_part_that_does_not_stop_is_killed_in_time_or_at_once() {
    // Without a child of its own, which would keep the pipe open.
    let deaf = "echo up >&2; trap '' TERM; exec sleep 600";
    let mut late = supervise(shell(deaf, LogTo::Notices, Duration::from_millis(50)));
    let mut hurried = supervise(shell(deaf, LogTo::Notices, Duration::from_secs(600)));
    for part in [&mut late, &mut hurried] {
        assert_eq!(part.line().await, "up");
        part.stop.cancel();
    }
    hurried.now.cancel();
    late.ended().await;
    hurried.ended().await;
}

#[tokio::test]
async fn a_log_file_tells_why_its_part_died() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("logs/part.log");
    let mut part = supervise(shell("seq 9 >&2; exit 1", LogTo::File(path.clone()), SOON));
    assert!(matches!(part.next().await, Notice::Started { .. }));
    let Notice::Restarting { why, .. } = part.next().await else { panic!("it died") };
    assert!(why.contains("exit status: 1") && why.ends_with("5\n6\n7\n8\n9"), "{why}");
    part.stop.cancel();
    part.ended().await;
    assert!(std::fs::read_to_string(path).unwrap().starts_with("1\n2\n"));
}
